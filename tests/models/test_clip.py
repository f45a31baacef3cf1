import logging
import os
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from latent_prior.models.clip import Clip
from latent_prior.pocket.captions import parse
from latent_prior.pocket.renderer import render
from latent_prior.pocket.training.clip import text_embeddings, tokens_of
from latent_prior.prior import structure_loss
from PIL import Image
from tiny_checkpoints import write_clip
from torch.testing import assert_close
from transformers import CLIPImageProcessorPil, CLIPModel

TEXTS = ["a cat", "a somewhat longer text"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def clip(folder):
    return Clip.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def pocket():
    return Clip.from_pretrained("pocket")


@pytest.fixture
def photographs():
    """Three pictures of 24 pixels in bytes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 24, 24), generator=generator, dtype=torch.uint8)


def pictures(prompt, azimuths=(-120.0, -20.0, 60.0, 150.0)):
    count = len(azimuths)
    elevation, white = torch.full((count,), 20.0), torch.ones(count, 3)
    picture = render([parse(prompt)] * count, elevation, torch.tensor(azimuths), white, supersample=1)
    return picture.rgb.clamp(0, 1)


def own_image_features(folder, photographs):
    """Unit embeddings by transformers alone."""
    images = [Image.fromarray(photograph.permute(1, 2, 0).numpy()) for photograph in photographs]
    values = CLIPImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        features = CLIPModel.from_pretrained(folder, dtype=torch.float32).get_image_features(pixel_values=values)
    return F.normalize(getattr(features, "pooler_output", features), dim=-1)


# Embeddings. ---------------------------------------------------------------------------------------------------------


def test_pictures_are_embedded_as_transformers_does(clip, folder, photographs):
    found = clip.embed_images(photographs / 255)
    assert_close(found.norm(dim=-1), torch.ones(3))
    assert_close(found, own_image_features(folder, photographs), rtol=1e-4, atol=1e-5)
    # the oracle can tell: another normalisation shows
    assert (clip.embed_images(photographs / 255 * 0.9) - found).norm(dim=-1).min() > 1e-2


def test_larger_pictures_are_resized_as_pillow_does(clip, folder, photographs):
    """Pillow rounds to bytes on the way; measured 2e-3."""
    coarse = F.interpolate(photographs / 255, (40, 60), mode="bilinear", align_corners=False)
    large = (coarse * 255).round().byte()
    found, expected = clip.embed_images(large / 255), own_image_features(folder, large)
    assert (found - expected).norm(dim=-1).max() < 5e-3
    subsampled = F.interpolate(large / 255, (24, 24), mode="bicubic", align_corners=False)
    assert (clip.embed_images(subsampled) - expected).norm(dim=-1).min() > 2e-2


def test_a_folder_without_preprocessing_gets_openais(clip, folder, photographs, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    found = Clip.from_pretrained(str(bare)).embed_images(photographs / 255)
    assert torch.equal(found, clip.embed_images(photographs / 255))


def test_texts_are_embedded_as_transformers_does(clip, folder):
    tokens = clip.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        features = CLIPModel.from_pretrained(folder, dtype=torch.float32).get_text_features(**tokens)
    expected = F.normalize(getattr(features, "pooler_output", features), dim=-1)
    found = clip.embed_texts(TEXTS)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # padding is not seen
    assert_close(clip.embed_texts(TEXTS[:1]), found[:1], rtol=1e-4, atol=1e-5)


def test_a_long_text_is_cut_with_a_notice(clip, caplog):
    with caplog.at_level(logging.WARNING):
        found = clip.embed_texts(["x" * 50, "x" * 60])
    notices = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert notices == ["text cut from 52 to 30 tokens", "text cut from 62 to 30 tokens"]
    assert_close(found[0], found[1])


@pytest.mark.parametrize("wrong", ["a cat", []])
def test_texts_come_as_a_list(clip, wrong):
    with pytest.raises(ValueError, match="expected a list of at least one"):
        clip.embed_texts(wrong)


def test_gradient_against_finite_differences(clip):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 3, 32, 20, generator=generator, requires_grad=True)  # resized on the way
    direction, cotangent = torch.randn(images.shape, generator=generator), torch.randn(1, 12, generator=generator)
    (slope,) = torch.autograd.grad((clip.embed_images(images) * cotangent).sum(), images)
    with torch.no_grad():
        ahead, behind = (clip.embed_images(images + h * direction) for h in (1e-3, -1e-3))
    expected = ((ahead - behind) * cotangent).sum() / 2e-3
    assert_close((slope * direction).sum(), expected, rtol=5e-3, atol=1e-4)


def test_weights_are_frozen_in_evaluation_mode_and_float32(pocket):
    assert not pocket.model.training
    assert {(p.requires_grad, p.dtype) for p in pocket.model.parameters()} == {(False, torch.float32)}


# Patches. ------------------------------------------------------------------------------------------------------------


def test_patches_come_row_by_row_without_the_class_token(tmp_path):
    """Without layers a token depends on its own patch alone."""
    flat = Clip.from_pretrained(str(write_clip(tmp_path / "flat", layers=0)))
    images = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    changed = images.clone()
    changed[:, :, 0:8, 16:24] += 0.3  # row 0, column 2
    before, after = flat.patch_features(images), flat.patch_features(changed)
    assert before.shape == (1, 9, 16)
    assert torch.nonzero((before != after).any(-1)[0]).flatten().tolist() == [2]


def test_patch_features_are_the_last_hidden_state(clip, photographs):
    images, processor = photographs / 255, CLIPImageProcessorPil()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (processor.image_mean, processor.image_std))
    with torch.no_grad():
        expected = clip.model.vision_model(pixel_values=(images - mean) / std).last_hidden_state
    assert_close(clip.patch_features(images), expected[:, 1:])


def test_self_similarity_against_the_loop(clip, photographs):
    images = photographs[:2] / 255
    features, found = clip.patch_features(images), clip.self_similarity(images)
    expected = torch.zeros(2, 9, 9)
    for b in range(2):
        for i in range(9):
            for j in range(9):
                expected[b, i, j] = torch.cosine_similarity(features[b, i], features[b, j], dim=0)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_structure_tells_shape_more_than_colour(pocket):
    red, blue, house = (pocket.self_similarity(pictures(p)) for p in ("a red mug", "a blue mug", "a red house"))
    assert structure_loss(red, blue) < structure_loss(red, house)


# The pocket's own. ---------------------------------------------------------------------------------------------------


def test_pocket_embeddings_are_those_it_was_trained_with(pocket):
    images, texts = pictures("a red mug"), ["a red mug", "a striped blue house, back view"]
    with torch.no_grad():  # trained on pixels in [-1, 1]
        seen = pocket.model.get_image_features(pixel_values=images * 2 - 1)
    assert_close(pocket.embed_images(images), F.normalize(getattr(seen, "pooler_output", seen), dim=-1))
    expected = text_embeddings(pocket.model, tokens_of(pocket.tokenizer, texts))
    assert_close(pocket.embed_texts(texts), expected, rtol=1e-4, atol=1e-5)


def test_pocket_tells_a_red_mug_from_a_blue_house(pocket):
    mug, house = pocket.embed_texts(["a red mug", "a blue house"])
    for prompt, near, far in [("a red mug", mug, house), ("a blue house", house, mug)]:
        embeddings = pocket.embed_images(pictures(prompt))
        assert (embeddings @ near > embeddings @ far + 0.2).all()


# What cannot be loaded. ----------------------------------------------------------------------------------------------


def refused(name, match):
    with pytest.raises(ValueError, match=match) as error:
        Clip.from_pretrained(str(name))
    assert str(error.value).startswith("clip_name_or_path: ")
    assert "\n" not in str(error.value)


def test_what_is_not_there():
    refused("./missing", "does not exist")
    refused("tests/missing.folder/x", "does not exist")
    refused("no such thing", "does not exist")
    refused("~/missing", "does not exist")
    refused("owner/missing.safetensors", "does not exist")


def test_a_file_is_no_clip(folder):
    refused(folder / "model.safetensors", "is a file; expected 'pocket', a folder or a hub id")


def test_a_folder_of_half_precision_alone(clip, folder, photographs, tmp_path):
    half = shutil.copytree(folder, tmp_path / "half")
    (half / "model.safetensors").rename(half / "model.fp16.safetensors")
    found = Clip.from_pretrained(str(half)).embed_images(photographs / 255)
    assert torch.equal(found, clip.embed_images(photographs / 255))


def test_a_folder_that_is_no_clip(folder, tmp_path, pocket_like):
    refused(tmp_path, "neither vocab.json nor tokenizer.json")
    text_alone = shutil.copytree(pocket_like / "text_encoder", tmp_path / "text")
    shutil.copytree(pocket_like / "tokenizer", text_alone, dirs_exist_ok=True)
    refused(text_alone, "model_type is 'clip_text_model'; expected 'clip'")


def test_a_corrupt_folder(folder, tmp_path):
    cut = shutil.copytree(folder, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    refused(cut, "cannot read")
    (cut / "config.json").write_text("{")
    refused(cut, "cannot read")


def test_a_tensor_that_is_missing(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    lacking = shutil.copytree(folder, tmp_path / "lacking")
    tensors = load_file(lacking / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    refused(lacking, "lacks 1 of its tensors, for example 'visual_projection.weight'")


def pickled(folder, target, content):
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(content, target / "pytorch_model.bin")
    return target


def test_pickled_weights_are_read_as_tensors_alone(clip, folder, photographs, tmp_path):
    good = pickled(folder, tmp_path / "good", clip.model.state_dict())
    found = Clip.from_pretrained(str(good)).embed_images(photographs / 255)
    assert torch.equal(found, clip.embed_images(photographs / 255))

    class Mischief:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "done"),)

    bad = pickled(folder, tmp_path / "bad", {**clip.model.state_dict(), "extra": Mischief()})
    refused(bad, "cannot read")
    assert not (tmp_path / "done").exists()
    # the mischief would have worked
    pickle.loads(pickle.dumps(Mischief()))
    assert (tmp_path / "done").exists()


# The hub. ------------------------------------------------------------------------------------------------------------


def test_offline_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    refused("nobody/nothing-of-this-name", "HF_HUB_OFFLINE is set")


def test_unreachable_hub(monkeypatch):
    import huggingface_hub

    def unreachable(*_, local_files_only, **__):
        assert not local_files_only
        raise ConnectionError("no route\nto host")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    refused("nobody/nothing", "no route to host")


@pytest.mark.parametrize("safe", [True, False])
def test_pickled_weights_are_fetched_only_where_there_are_no_others(monkeypatch, clip, folder, tmp_path, safe):
    import fnmatch

    import huggingface_hub

    asked = []
    snapshot = folder if safe else pickled(folder, tmp_path / "snapshot", clip.model.state_dict())

    def download(hub_id, allow_patterns, local_files_only):
        asked.append(allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert Clip.from_pretrained("owner/name").image_size == 24
    assert len(asked) == (1 if safe else 4)  # the plain weights, two half-precision variants, and then pickled ones
    wanted = {
        name: any(fnmatch.fnmatch(name, pattern) for patterns in asked for pattern in patterns)
        for name in (
            "model.safetensors",
            "vocab.json",
            "merges.txt",
            "open_clip_model.safetensors",
            "pytorch_model.bin",
        )
    }
    assert wanted == {
        "model.safetensors": True,
        "vocab.json": True,
        "merges.txt": True,
        "open_clip_model.safetensors": False,
        "pytorch_model.bin": not safe,
    }
