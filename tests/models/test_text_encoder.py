import logging
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from latent_prior.models import text_encoder as module
from latent_prior.models import text_towers
from latent_prior.models.checkpoint import resolve
from latent_prior.models.text_encoder import TextEncoder
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_checkpoints import GEOMETRIES, write_xl_checkpoint
from torch.testing import assert_close

CPU = torch.device("cpu")
PROMPTS = ["a red mug", "", "a blue duck in a pond"]  # the last is longer than the shortest length


@pytest.fixture
def no_loading(monkeypatch):
    """Fails the test where the text tower is loaded after this was called."""
    return lambda: monkeypatch.setattr(
        text_towers, "load_text_encoder", lambda *_: pytest.fail("loaded the text tower")
    )


def test_agrees_with_the_pipeline(folder, geometry):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    found = TextEncoder(resolve(str(folder)), CPU)(PROMPTS)
    assert found.shape == (3, geometry.max_length, geometry.text_width)
    for row, prompt in enumerate(PROMPTS):
        expected, _ = pipeline.encode_prompt(prompt, CPU, 1, do_classifier_free_guidance=False)
        assert_close(found[row : row + 1], expected)


def test_prompts_differ(pocket_like):
    encoder = TextEncoder(resolve(str(pocket_like)), CPU)
    red, blue = encoder(["red", "blue"])
    assert (red - blue).abs().max() > 1e-3


def test_memory_cache(pocket_like, no_loading):
    encoder = TextEncoder(resolve(str(pocket_like)), CPU)
    first = encoder(PROMPTS)
    encoder.unload()
    no_loading()
    assert torch.equal(encoder(PROMPTS[::-1]), first.flip(0))


def test_disk_cache(pocket_like, tmp_path, no_loading):
    first = TextEncoder(resolve(str(pocket_like)), CPU, cache_dir=tmp_path)(PROMPTS)
    assert len(list(tmp_path.iterdir())) == len(PROMPTS)
    no_loading()
    assert torch.equal(TextEncoder(resolve(str(pocket_like)), CPU, cache_dir=tmp_path)(PROMPTS), first)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-5], lambda data: b"\xff" * len(data)])
def test_corrupt_entry_is_computed_anew(pocket_like, tmp_path, damage, caplog):
    first = TextEncoder(resolve(str(pocket_like)), CPU, cache_dir=tmp_path)(["a mug"])
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(TextEncoder(resolve(str(pocket_like)), CPU, cache_dir=tmp_path)(["a mug"]), first)
    assert "unreadable" in caplog.text
    assert entry.read_bytes() == whole


def test_other_weights_under_the_same_path_are_another_entry(pocket_like, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(pocket_like, folder)
    before = TextEncoder(resolve(str(folder)), CPU, cache_dir=tmp_path / "cache")(["a mug"])
    file = folder / "text_encoder" / "model.safetensors"
    tensors = {name: tensor + 0.1 for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    after = TextEncoder(resolve(str(folder)), CPU, cache_dir=tmp_path / "cache")(["a mug"])
    assert not torch.allclose(before, after)


def test_single_file(single_file, tmp_path, no_loading):
    file, folder = single_file
    expected = TextEncoder(resolve(str(folder)), CPU)(PROMPTS)
    assert_close(TextEncoder(resolve(str(file)), CPU, cache_dir=tmp_path)(PROMPTS), expected)
    no_loading()
    assert_close(TextEncoder(resolve(str(file)), CPU, cache_dir=tmp_path)(PROMPTS), expected)


def test_long_prompts_are_cut_with_a_notice(pocket_like, caplog):
    encoder = TextEncoder(resolve(str(pocket_like)), CPU)
    with caplog.at_level(logging.WARNING, text_towers.__name__):
        long = encoder(["a very long prompt of more than sixteen letters"])
    assert long.shape[1] == 16
    assert "prompt cut by 25 of its 41 tokens: 'a very long" in caplog.text


VIEWS = ("side", "front", "back", "overhead")


def test_a_long_prompt_keeps_the_words_of_its_view(folders, caplog):
    """A letter is a token here, of 77: ", overhead view" takes 13, and the two ends 2."""
    encoder = TextEncoder(resolve(str(folders[GEOMETRIES["stable"]])), CPU)
    words = [f"word{i}" for i in range(200)]
    with caplog.at_level(logging.WARNING, text_towers.__name__):
        found = encoder([f"{' '.join(words)}, {view} view" for view in VIEWS])
    notices = [record.getMessage().partition(":")[0] for record in caplog.records]
    kept = 12
    for row, view in enumerate(VIEWS):
        cut, longer = (f"{' '.join(words[:count])}, {view} view" for count in (kept, kept + 1))
        tokenizer = encoder._towers.towers["text_encoder"].tokenizer
        assert [len(tokenizer(prompt).input_ids) > 77 for prompt in (cut, longer)] == [False, True]
        assert_close(found[row : row + 1], encoder([cut]))
        assert all((found[row] - other).abs().max() > 1e-3 for other in found[row + 1 :])
    assert len(notices) == 1 and " tokens before the words of its view" in notices[0]


def test_a_prompt_without_spaces_is_cut_before_its_view_as_well(pocket_like):
    encoder = TextEncoder(resolve(str(pocket_like)), CPU)
    found = encoder(["x" * 300 + f", {view} view" for view in VIEWS])
    assert_close(found, encoder(["xxxxx, side view", "xxxx, front view", "xxxxx, back view", "x, overhead view"]))


def test_a_long_prompt_keeps_the_words_of_its_camera(folders):
    encoder = TextEncoder(resolve(str(folders[GEOMETRIES["stable"]])), CPU)
    camera = ", back view, <azimuth-180> <elevation+20>"
    found = encoder(["word " * 200 + "end" + camera])
    cuts = [" ".join(["word"] * count) + camera for count in range(1, 20)]
    longest = [cut for cut in cuts if len(encoder._towers.towers["text_encoder"].tokenizer(cut).input_ids) <= 77][-1]
    assert_close(found, encoder([longest]))


def test_a_prompt_that_fits_is_left_alone(pocket_like, caplog):
    encoder = TextEncoder(resolve(str(pocket_like)), CPU)
    with caplog.at_level(logging.WARNING, text_towers.__name__):
        encoder(["a mug, back view"])  # 14 letters and the two ends
    assert not caplog.records


def test_the_cut_is_said_once_for_two_text_encoders(tmp_path, caplog):
    encoder = TextEncoder(resolve(str(write_xl_checkpoint(tmp_path / "xl"))), CPU)
    with caplog.at_level(logging.WARNING, text_towers.__name__):
        side, back = encoder(["a word " * 50 + "end, side view", "a word " * 50 + "end, back view"])
    assert (side - back).abs().max() > 1e-3
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(30, "read-only")])
def test_a_cache_that_cannot_be_written_is_done_without(pocket_like, tmp_path, monkeypatch, caplog, error):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr(Path, "mkdir", refused)
    encoder = TextEncoder(resolve(str(pocket_like)), CPU, cache_dir=tmp_path / "cache")
    with caplog.at_level(logging.WARNING, text_towers.__name__):
        found = encoder(PROMPTS[:2])
    assert_close(found, TextEncoder(resolve(str(pocket_like)), CPU)(PROMPTS[:2]))
    (record,) = caplog.records
    assert f"cannot write to {tmp_path / 'cache'}" in record.getMessage()


def test_a_file_in_the_place_of_the_cache_is_done_without(pocket_like, tmp_path, caplog):
    (tmp_path / "cache").write_text("")
    with caplog.at_level(logging.WARNING, text_towers.__name__):
        TextEncoder(resolve(str(pocket_like)), CPU, cache_dir=tmp_path / "cache" / "below")(PROMPTS[:2])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [SafetensorError("I/O error: read-only"), OSError(28, "No space left on device")])
def test_entries_that_cannot_be_written_are_done_without(pocket_like, tmp_path, monkeypatch, caplog, error):
    def refused(*_):
        raise error

    monkeypatch.setattr(module, "save_file", refused)
    with caplog.at_level(logging.WARNING, text_towers.__name__):
        TextEncoder(resolve(str(pocket_like)), CPU, cache_dir=tmp_path)(PROMPTS[:2])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("prompts", ["a mug", []])
def test_anything_but_a_list_of_prompts(pocket_like, prompts):
    with pytest.raises(ValueError, match="list"):
        TextEncoder(resolve(str(pocket_like)), CPU)(prompts)
