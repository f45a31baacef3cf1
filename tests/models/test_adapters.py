"""Textual Inversion and LoRA on random checkpoints: what the files say is what the networks do."""

import shutil

import pytest
import torch
from latent_prior import OptionError
from latent_prior.models.adapter_files import lora_scale, word_entry
from latent_prior.models.checkpoint import resolve
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.loading import load_denoiser, load_text_encoder
from latent_prior.models.text_encoder import TextEncoder
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_xl_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def word(tmp_path):
    """A Textual Inversion file of two vectors for the word <blob>."""
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    save_file({"<blob>": vectors}, tmp_path / "blob.safetensors")
    return str(tmp_path / "blob.safetensors"), vectors


def lora_file(path, module, part, layer, rank=2, seed=2):
    """A LoRA file in diffusers' layout that changes one layer; returns it and the change B A of that layer's weight."""
    g = torch.Generator().manual_seed(seed)
    weight = dict(module.named_modules())[layer].weight
    down, up = torch.randn(rank, weight.shape[1], generator=g), torch.randn(weight.shape[0], rank, generator=g)
    save_file({f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}, path)
    return str(path), up @ down


def test_an_added_word_becomes_all_its_vectors(tiny_prior, word):
    file, vectors = word
    tokenizer, model = load_text_encoder(resolve(str(tiny_prior), [file]), torch.float32)
    ids = tokenizer("<blob> <blob>_1", add_special_tokens=False).input_ids
    assert len(ids) == 2
    torch.testing.assert_close(model.get_input_embeddings().weight[ids], vectors)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_prompt_with_the_word_is_embedded_with_every_vector(tiny_prior, word):
    with_word = TextEncoder(resolve(str(tiny_prior), [word[0]]), CPU)
    plain = TextEncoder(resolve(str(tiny_prior)), CPU)
    torch.testing.assert_close(with_word(["a red mug"]), plain(["a red mug"]))
    assert not torch.allclose(with_word(["a <blob>"]), plain(["a <blob>"]))


def test_another_adapter_is_another_cache_entry(tiny_prior, word, tmp_path):
    cache = tmp_path / "cache"
    plain = TextEncoder(resolve(str(tiny_prior)), CPU, cache_dir=cache)(["a <blob>"])
    with_word = TextEncoder(resolve(str(tiny_prior), [word[0]]), CPU, cache_dir=cache)(["a <blob>"])
    assert not torch.allclose(plain, with_word)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_lora_is_merged_into_the_denoiser(tiny_prior, tmp_path, scale):
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    plain = load_denoiser(resolve(str(tiny_prior)), torch.float32)
    file, change = lora_file(tmp_path / "unet.safetensors", plain, "unet", layer)
    merged = load_denoiser(resolve(str(tiny_prior), lora=[f"{file}:{scale}" if scale != 1 else file]), torch.float32)
    before, after = plain.state_dict(), merged.state_dict()
    assert before.keys() == after.keys()  # nothing of peft is left
    for name in before:
        expected = before[name] + scale * change if name == f"{layer}.weight" else before[name]
        torch.testing.assert_close(after[name], expected)
    assert not any(parameter.requires_grad for parameter in merged.parameters())


def test_a_lora_is_merged_into_the_text_encoder(tiny_prior, tmp_path):
    _, plain = load_text_encoder(resolve(str(tiny_prior)), torch.float32)
    layer = next(name for name, _ in plain.named_modules() if name.endswith("self_attn.q_proj"))
    file, change = lora_file(tmp_path / "text.safetensors", plain, "text_encoder", layer)
    _, merged = load_text_encoder(resolve(str(tiny_prior), lora=[f"{file}:0.5"]), torch.float32)
    before, after = plain.state_dict(), merged.state_dict()
    assert before.keys() == after.keys()
    torch.testing.assert_close(after[f"{layer}.weight"], before[f"{layer}.weight"] + 0.5 * change)


@pytest.mark.parametrize(
    "entry, expected",
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.5", ("a.safetensors", 0.5)),
        ("owner/name:2", ("owner/name", 2.0)),
        ("C:\\loras\\a.safetensors", ("C:\\loras\\a.safetensors", 1.0)),
    ],
)
def test_scales_are_read_off_the_end(entry, expected):
    assert lora_scale(entry) == expected


@pytest.mark.parametrize("entry", ["a.safetensors:nan", "a.safetensors:inf", "owner/name:-inf"])
def test_a_scale_that_is_not_finite_is_refused(entry):
    with pytest.raises(OptionError, match="^lora is .*expected a finite scale"):
        lora_scale(entry)


@pytest.mark.parametrize(
    "entry, expected",
    [
        ("a.safetensors", ("a.safetensors", None)),
        ("a.safetensors=blob", ("a.safetensors", "blob")),
        ("owner/name=<blob>", ("owner/name", "<blob>")),
        ("runs/lr=0.1/a.safetensors", ("runs/lr=0.1/a.safetensors", None)),
        ("lr=0.1.safetensors", ("lr=0.1.safetensors", None)),
        ("lr=0.1.safetensors=blob", ("lr=0.1.safetensors", "blob")),
        ("a.safetensors:2", ("a.safetensors:2", None)),
    ],
)
def test_words_are_read_off_the_end(entry, expected):
    assert word_entry(entry) == expected


@pytest.mark.parametrize("entry", ["a.safetensors=", "a.safetensors=two words", "=blob"])
def test_a_word_is_one_word(entry):
    with pytest.raises(OptionError, match="^textual_inversion is .*expected path or path=word"):
        word_entry(entry)


# Textual Inversion as others write it. -------------------------------------------------------------------------------


def embedded_with(folder, entry, prompt):
    return TextEncoder(resolve(str(folder), [entry]), CPU)([prompt])


@pytest.mark.parametrize("entry, word", [("{}", "my-style"), ("{}=blob", "blob")])
def test_a_web_uis_file_gets_the_word_of_its_name_or_of_the_entry(tiny_prior, tmp_path, word, entry):
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, tmp_path / "my-style.safetensors")
    entry = entry.format(tmp_path / "my-style.safetensors")
    tokenizer, model = load_text_encoder(resolve(str(tiny_prior), [entry]), torch.float32)
    ids = tokenizer(f"{word} {word}_1", add_special_tokens=False).input_ids
    torch.testing.assert_close(model.get_input_embeddings().weight[ids], vectors)
    assert "emb_params" not in tokenizer.get_vocab()


def test_a_word_may_be_chosen_for_an_ordinary_file(tiny_prior, word):
    named = embedded_with(tiny_prior, f"{word[0]}=zebu", "a zebu")
    torch.testing.assert_close(named, embedded_with(tiny_prior, word[0], "a <blob>"))


def test_an_xl_embedding_has_vectors_for_both_text_encoders(tmp_path):
    folder = write_xl_checkpoint(tmp_path / "xl")
    g = torch.Generator().manual_seed(1)
    vectors = {"clip_l": torch.randn(2, 32, generator=g), "clip_g": torch.randn(2, 16, generator=g)}
    save_file(vectors, tmp_path / "blob.safetensors")
    checkpoint = resolve(str(folder), [f"{tmp_path / 'blob.safetensors'}=<blob>"])
    for part, key in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        tokenizer, model = load_text_encoder(checkpoint, torch.float32, part)
        ids = tokenizer("<blob> <blob>_1", add_special_tokens=False).input_ids
        torch.testing.assert_close(model.get_input_embeddings().weight[ids], vectors[key])


@pytest.mark.parametrize(
    "tensors, match",
    [
        ({"clip_l": torch.zeros(1, 32), "clip_g": torch.zeros(1, 16)}, "made for Stable Diffusion XL"),
        ({"<blob>": torch.zeros(1, 24)}, r"shape \(1, 24\), but the text_encoder is 32 wide"),
        ({"a": torch.zeros(1, 32), "b": torch.zeros(1, 32)}, "holds a, b; expected one tensor"),
    ],
)
def test_an_embedding_that_does_not_fit_is_refused(tiny_prior, tmp_path, tensors, match):
    save_file(tensors, tmp_path / "blob.safetensors")
    with pytest.raises(OptionError, match=f"^textual_inversion: cannot load .*{match}"):
        embedded_with(tiny_prior, str(tmp_path / "blob.safetensors"), "a <blob>")


def test_a_pickled_embedding_is_not_read(tiny_prior, tmp_path):
    torch.save({"string_to_param": {"*": torch.zeros(1, 32)}, "name": "blob"}, tmp_path / "blob.pt")
    with pytest.raises(OptionError, match="^textual_inversion: .*pickled files are not read"):
        embedded_with(tiny_prior, str(tmp_path / "blob.pt"), "a blob")


# LoRAs of other models. ----------------------------------------------------------------------------------------------

UNET_LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def pair(name, inputs, outputs, rank=2):
    return {f"{name}.lora_A.weight": torch.ones(rank, inputs), f"{name}.lora_B.weight": torch.ones(outputs, rank)}


@pytest.mark.parametrize(
    "tensors, stranger",
    [
        (pair("transformer.single_transformer_blocks.0.proj_out", 16, 16), "transformer.single_transformer_blocks.0"),
        (pair("unet.down_blocks.7.attentions.0.proj_in", 16, 16), "unet.down_blocks.7"),
        ({**pair(f"unet.{UNET_LAYER}", 32, 16), **pair("unet.nowhere.to_k", 32, 16)}, "unet.nowhere.to_k"),
        (pair(f"unet.{UNET_LAYER}", 48, 16), f"unet.{UNET_LAYER}.lora_A"),  # as Stable Diffusion 2's in 1
        (pair("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj", 16, 16), "text_encoder_2"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": torch.ones(2, 16),
          "lora_unet_double_blocks_0_img_attn_proj.lora_up.weight": torch.ones(16, 2)}, "unet.double"),
        ({"model.diffusion_model.out.2.weight": torch.ones(4, 8)}, "model.diffusion_model.out.2.weight"),
    ],
)  # fmt: skip
def test_a_lora_that_does_not_fit_is_refused(tiny_prior, tmp_path, tensors, stranger):
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(OptionError, match="^lora: cannot load .* do not fit the checkpoint") as error:
        load_denoiser(resolve(str(tiny_prior), lora=[str(tmp_path / "lora.safetensors")]), torch.float32)
    assert stranger in str(error.value)
    assert "\n" not in str(error.value)


def test_a_lora_of_which_the_text_encoder_lacks_a_layer_is_refused(tiny_prior, tmp_path):
    tensors = pair("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", 32, 32)
    tensors |= pair("text_encoder.text_model.encoder.layers.11.self_attn.q_proj", 32, 32)
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(OptionError, match=r"2 of its 4 weights do not fit .*layers\.11"):
        load_text_encoder(resolve(str(tiny_prior), lora=[str(tmp_path / "lora.safetensors")]), torch.float32)


def test_a_dora_is_refused(tiny_prior, tmp_path):
    save_file(
        {**pair(f"unet.{UNET_LAYER}", 32, 16), f"unet.{UNET_LAYER}.dora_scale": torch.ones(16, 1)},
        tmp_path / "dora.safetensors",
    )
    with pytest.raises(OptionError, match="it is a DoRA"):
        load_denoiser(resolve(str(tiny_prior), lora=[str(tmp_path / "dora.safetensors")]), torch.float32)


def test_a_lora_as_kohyas_trainer_writes_it_is_merged(tiny_prior, tmp_path):
    g, name = torch.Generator().manual_seed(3), "lora_unet_" + UNET_LAYER.replace(".", "_")
    down, up = torch.randn(2, 32, generator=g), torch.randn(16, 2, generator=g)
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "kohya.safetensors")
    before = load_denoiser(resolve(str(tiny_prior)), torch.float32).state_dict()[f"{UNET_LAYER}.weight"]
    merged = load_denoiser(resolve(str(tiny_prior), lora=[str(tmp_path / "kohya.safetensors")]), torch.float32)
    after = merged.state_dict()[f"{UNET_LAYER}.weight"]
    torch.testing.assert_close(after, before + up @ down / 2)  # alpha over rank


# Where adapters lie. -------------------------------------------------------------------------------------------------


def test_other_weights_in_an_adapters_folder_are_another_entry(tiny_prior, word, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copy(word[0], folder / "learned_embeds.safetensors")
    before = TextEncoder(resolve(str(tiny_prior), [str(folder)]), CPU, cache_dir=tmp_path / "cache")(["a <blob>"])
    save_file({"<blob>": word[1] + 1}, folder / "learned_embeds.safetensors")
    after = TextEncoder(resolve(str(tiny_prior), [str(folder)]), CPU, cache_dir=tmp_path / "cache")(["a <blob>"])
    assert not torch.allclose(before, after)


def test_a_word_of_another_name_is_another_entry(tiny_prior, word, tmp_path):
    def embedded(entry):
        return TextEncoder(resolve(str(tiny_prior), [entry]), CPU, cache_dir=tmp_path / "cache")(["a zebu"])

    assert not torch.allclose(embedded(word[0]), embedded(f"{word[0]}=zebu"))


def test_a_name_that_ends_in_a_number_is_no_scale_of_an_embedding(tiny_prior, word, tmp_path):
    """The fingerprint used to take what is after the colon for a scale, and so to read nothing."""
    file, cache = tmp_path / "v:2", tmp_path / "cache"
    file.mkdir()
    shutil.copy(word[0], file / "learned_embeds.safetensors")
    before = TextEncoder(resolve(str(tiny_prior), [str(file)]), CPU, cache_dir=cache)(["a <blob>"])
    save_file({"<blob>": word[1] + 1}, file / "learned_embeds.safetensors")
    after = TextEncoder(resolve(str(tiny_prior), [str(file)]), CPU, cache_dir=cache)(["a <blob>"])
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("key, stem", [("textual_inversion", "learned_embeds"), ("lora", "pytorch_lora_weights")])
def test_hub_ids_become_the_files_of_their_snapshot(tiny_prior, tmp_path, monkeypatch, key, stem):
    import huggingface_hub

    asked = []

    def snapshot(hub_id, allow_patterns, local_files_only):
        asked.append((hub_id, allow_patterns))
        if allow_patterns == ["*.safetensors"]:
            save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    (adapter,) = getattr(resolve(str(tiny_prior), **{key: ["owner/name"]}).adapters, key)
    assert asked == []  # nothing is fetched before it is needed
    assert adapter.path == tmp_path / "other.safetensors"
    assert asked == [("owner/name", [f"{stem}.safetensors"]), ("owner/name", ["*.safetensors"])]


def test_a_folder_of_several_weights_is_not_guessed_about(tiny_prior, tmp_path):
    for name in "ab":
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    (adapter,) = resolve(str(tiny_prior), lora=[str(tmp_path)]).adapters.lora
    with pytest.raises(OptionError, match=r"^lora: .* has 2 weight files \(a.safetensors, b.safetensors\); name one"):
        adapter.path  # noqa: B018


def test_the_older_bin_of_diffusers_is_read_as_tensors_alone(tiny_prior, word, tmp_path):
    older = tmp_path / "older"
    older.mkdir()
    torch.save(load_file(word[0]), older / "learned_embeds.bin")
    torch.testing.assert_close(
        embedded_with(tiny_prior, str(older), "a <blob>"), embedded_with(tiny_prior, word[0], "a <blob>")
    )


@pytest.mark.parametrize("key", ["textual_inversion", "lora"])
@pytest.mark.parametrize("name", ["missing.safetensors", "./missing", "~/missing", "a/b/c", "/no/such.safetensors"])
def test_a_missing_file_is_said_to_be_missing_and_not_looked_for(tiny_prior, monkeypatch, key, name):
    import huggingface_hub

    for call in ("snapshot_download", "hf_hub_download", "model_info"):
        monkeypatch.setattr(huggingface_hub, call, lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(OptionError, match=f"^{key}: '{name}' does not exist; expected a .safetensors file"):
        LatentPrior.from_pretrained(str(tiny_prior), device="cpu", **{key: [name]})


def test_a_tilde_is_the_home_folder(tiny_prior, word, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.testing.assert_close(
        embedded_with(tiny_prior, "~/blob.safetensors", "a <blob>"), embedded_with(tiny_prior, word[0], "a <blob>")
    )
