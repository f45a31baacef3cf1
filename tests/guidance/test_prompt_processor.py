import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from latent_prior import host
from latent_prior.guidance import prompt_processor as module
from latent_prior.models.checkpoint import resolve
from latent_prior.models.text_encoder import TextEncoder
from torch.testing import assert_close


def embed(folder, *prompts):
    return TextEncoder(resolve(str(folder)), torch.device("cpu"))(prompts)


def test_it_is_registered():
    assert host.find("latent-prior-prompt-processor") is module.LatentPriorPromptProcessor


def test_embeddings(make_processor, folder):
    out = make_processor(negative_prompt="ugly")()
    views = [f"a red mug, {name} view" for name in ("side", "front", "back", "overhead")]
    assert_close(out.text_embeddings, embed(folder, "a red mug"))
    assert_close(out.uncond_text_embeddings, embed(folder, "ugly"))
    assert_close(out.text_embeddings_vd, embed(folder, *views))
    assert_close(out.uncond_text_embeddings_vd, embed(folder, *["ugly"] * 4))
    assert out.prompt == "a red mug"


def test_prompts_by_hand(make_processor, folder):
    out = make_processor(prompt_back="the back of a mug")()
    assert_close(out.text_embeddings_vd[2:3], embed(folder, "the back of a mug"))


def test_rows_by_camera(make_processor):
    out = make_processor()()
    angles = [torch.tensor([0.0, 0.0]), torch.tensor([90.0, 180.0]), torch.tensor([1.0, 1.0])]
    rows = out.get_text_embeddings(*angles, True)
    assert_close(rows[:2], out.text_embeddings_vd[[0, 2]])
    assert_close(rows[2:], out.uncond_text_embeddings_vd[:2])


def test_no_process_and_one_loading(make_processor, monkeypatch):
    import torch.multiprocessing
    from latent_prior.models import text_towers

    loaded = []
    load = text_towers.load_text_encoder
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda *_: pytest.fail("spawned"))
    monkeypatch.setattr(text_towers, "load_text_encoder", lambda *args: loaded.append(1) or load(*args))
    make_processor()
    assert loaded == [1]
    make_processor()  # from the cache on disk
    assert loaded == [1]
    make_processor(use_cache=False)
    assert loaded == [1, 1]


def test_the_cache_lies_where_threestudios_does(make_processor):
    make_processor()
    assert any((Path.cwd() / ".threestudio_cache" / "text_embeddings").iterdir())


def test_a_working_folder_that_cannot_be_written_is_done_without(make_processor, folder, monkeypatch, caplog):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    for target, call in ((Path, "mkdir"), (os, "makedirs"), (os, "mkdir")):
        monkeypatch.setattr(target, call, refused)
    with caplog.at_level(logging.WARNING, "latent_prior.models.text_encoder"):
        out = make_processor(prompt="a mug")()
    assert_close(out.text_embeddings, embed(folder, "a mug"))
    assert sum("cannot write to .threestudio_cache" in record.getMessage() for record in caplog.records) == 1


def test_a_long_prompt_keeps_its_view_words(make_processor, folder, geometry):
    words = [letter for letter in "abcdefghijklmnopqrstuvwxyz" * 8][:200]
    out = make_processor(prompt=" ".join(words))()
    names = ("side", "front", "back", "overhead")
    # a letter is a token here; the two ends, the comma and "view" are seven
    cut = [f"{' '.join(words[: geometry.max_length - 7 - len(name)])}, {name} view" for name in names]
    assert_close(out.text_embeddings_vd, embed(folder, *cut))
    for row in range(4):
        assert all((out.text_embeddings_vd[row] - out.text_embeddings_vd[i]).abs().max() > 1e-3 for i in range(row))


def test_no_cache(make_processor):
    make_processor(use_cache=False)
    assert not (Path.cwd() / ".threestudio_cache").exists()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"prompt": ""}, r"system\.prompt_processor\.prompt is empty"),
        ({"prompt": "   "}, r"system\.prompt_processor\.prompt is empty"),
        ({"spawn": True}, r"system\.prompt_processor\.spawn"),
        (
            {"pretrained_model_name_or_path": "./missing"},
            r"system\.prompt_processor\.pretrained_model_name_or_path: .*does not exist",
        ),
        ({"lora": ["missing.safetensors"]}, r"system\.prompt_processor\.lora: .*does not exist"),
        ({"lora": ["a.safetensors:nan"]}, r"system\.prompt_processor\.lora is .*a finite scale"),
        ({"textual_inversion": ["~/missing"]}, r"system\.prompt_processor\.textual_inversion: .*does not exist"),
    ],
)
def test_bad_config_leaves_nothing_behind(make_processor, wrong, match):
    with pytest.raises(ValueError, match=match) as error:
        make_processor(**wrong)
    assert "\n" not in str(error.value)
    assert list(Path.cwd().iterdir()) == []


def test_a_checkpoint_that_knows_cameras_is_told_them(make_processor, folder, tmp_path):
    words = {"azimuth": {"first": -180, "last": 90, "step": 90}, "elevation": {"first": 0, "last": 80, "step": 40}}
    knowing = tmp_path / "knowing"
    shutil.copytree(folder, knowing)
    (knowing / "latent_prior.json").write_text(json.dumps({"camera_words": words}))
    settings = {"pretrained_model_name_or_path": str(knowing), "negative_prompt": "ugly"}
    out = make_processor(**settings)()
    assert len(out.text_embeddings_vd) == 4 + 4 * 3
    angles = [torch.tensor([10.0, 75.0, 30.0]), torch.tensor([170.0, 20.0, -80.0]), torch.ones(3)]  # elevation, azimuth
    said = [
        "a red mug, back view, <azimuth-180> <elevation+00>",
        "a red mug, overhead view, <azimuth+000> <elevation+80>",
        "a red mug, side view, <azimuth-090> <elevation+40>",
    ]
    rows = out.get_text_embeddings(*angles, True)
    assert_close(rows, torch.cat([embed(knowing, *said), embed(knowing, *["ugly"] * 3)]))
    by_hand = make_processor(prompt_back="from behind", **settings)()
    assert_close(
        by_hand.get_text_embeddings(*angles, True)[:1],
        embed(knowing, "from behind, <azimuth-180> <elevation+00>"),
    )
    assert len(make_processor(use_perp_neg=True, **settings)().text_embeddings_vd) == 4
