"""Textual Inversion and LoRA on random checkpoints: what the files say is what the networks do."""

import pytest
import torch
from latent_prior.models.adapters import lora_scale
from latent_prior.models.checkpoint import resolve
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.loading import load_text_encoder, load_unet
from latent_prior.models.text_encoder import TextEncoder
from safetensors.torch import save_file

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
    plain = load_unet(resolve(str(tiny_prior)), torch.float32)
    file, change = lora_file(tmp_path / "unet.safetensors", plain, "unet", layer)
    merged = load_unet(resolve(str(tiny_prior), lora=[f"{file}:{scale}" if scale != 1 else file]), torch.float32)
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


@pytest.mark.parametrize("key", ["textual_inversion", "lora"])
def test_a_missing_file_is_named_with_its_key(tiny_prior, tmp_path, key):
    with pytest.raises(ValueError, match=f"system.guidance.{key}: cannot load"):
        prior = LatentPrior.from_pretrained(str(tiny_prior), device="cpu", **{key: [str(tmp_path / "no.safetensors")]})
        prior.text_encoder(["a red mug"])


def test_adapters_below_home_are_found(tiny_prior, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    adapters = resolve(str(tiny_prior), ["~/word.safetensors"], ["~/style.safetensors:0.5", "owner/name"]).adapters
    assert adapters.textual_inversion == ("/somewhere/word.safetensors",)
    assert adapters.lora == ("/somewhere/style.safetensors:0.5", "owner/name")
