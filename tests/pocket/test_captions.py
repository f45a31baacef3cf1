"""Captions, the hold-out list and the picture sets."""

import json
from collections import Counter

import pytest
import torch
from latent_prior.pocket import captions
from latent_prior.pocket.captions import Subject, every_subject, is_held_out, parse, view_word
from latent_prior.pocket.pictures import draw_shard, picture_set
from latent_prior.pocket.training.clip import write_tokenizer


def test_caption_and_parse_are_inverse():
    for subject in every_subject():
        assert parse(subject.caption) == subject
        assert parse(f"{subject.caption}, back view") == subject
    assert Subject("mug", "orange").caption == "an orange mug"
    assert Subject("ice cream", "golden", "golden").caption == "a golden ice cream"


@pytest.mark.parametrize(
    "prompt", ["A RED Mug", "red mug", "the  red mug", "a red mug, side view", "a red mug ,overhead view", "an red mug"]
)
def test_articles_views_case_and_spaces_do_not_matter(prompt):
    assert parse(prompt) == Subject("mug", "red")


NO_SUBJECT = {
    "part of a word": [
        "a red boathouse",
        "a red firebird",
        "a red icecream",
        "a darkred mug",
        "two red mugs",
        "red mugs",
    ],
    "one word more": [
        "a blue glass mug",
        "a red mug house",
        "a red mug and a house",
        "a red mug on a table",
        "a shiny red mug",
        "a a red mug",
        "a red mug, on a table",
        "a red mug, a blue house",
    ],
    "two of a sort": ["a red blue mug", "a striped checkered red mug", "a golden striped mug", "a golden red mug"],
    "none of a sort": ["a mug", "a striped mug", "mug", "a red", "red", "a", "", ", side view", "a red zebra"],
    "another order": ["a mug red", "a red striped mug", "a wine red glass"],
}


@pytest.mark.parametrize("prompt", [prompt for prompts in NO_SUBJECT.values() for prompt in prompts])
def test_unknown_subjects_are_refused(prompt):
    with pytest.raises(ValueError, match="pocket world"):
        parse(prompt)


def test_holdout_file_is_what_the_seed_draws():
    assert json.loads(captions.HOLDOUT_FILE.read_text()) == captions.draw_holdout()


def test_holdout_is_large_and_even_enough():
    colour_kind, surface_kind = captions.holdout()
    assert len(colour_kind) >= 0.1 * len(captions.KINDS) * len(captions.COLOURS)
    assert len(surface_kind) >= 0.1 * len(captions.KINDS) * 3
    assert set(Counter(k for _, k in colour_kind).values()) == {2}
    assert set(Counter(c for c, _ in colour_kind).values()) == {4}


def test_view_words_follow_threestudios_thresholds():
    assert [view_word(10, a) for a in (0, 44, 46, 134, 136, 180, -44, -100, -170, 359)] == [
        f"{v} view" for v in ("front", "front", "side", "side", "back", "back", "front", "side", "back", "front")
    ]
    assert view_word(61, 0) == "overhead view" and view_word(60, 0) == "front view"


def test_training_pictures_show_no_held_out_pair_and_tests_show_only_those():
    assert not any(map(is_held_out, draw_shard(1, False, 8, 300).subjects))
    assert all(map(is_held_out, draw_shard(1, True, 8, 50).subjects))


def test_picture_set_is_resumable_and_reproducible(tmp_path, monkeypatch):
    monkeypatch.setattr("latent_prior.pocket.pictures.SHARD", 6)
    monkeypatch.setattr("latent_prior.pocket.pictures.SHARD", 6)
    whole = picture_set(tmp_path / "a", 18, 7, False, size=16)
    picture_set(tmp_path / "b", 6, 7, False, size=16)
    (tmp_path / "b" / "left.partial").write_bytes(b"of a killed run")
    again = picture_set(tmp_path / "b", 18, 7, False, size=16)
    torch.testing.assert_close(whole.images, again.images)
    assert whole.subjects == again.subjects and whole.views == again.views and len(whole) == 18


def test_every_word_of_the_world_is_one_token(tmp_path):
    tokenizer = write_tokenizer(tmp_path)
    for subject in every_subject():
        for view in captions.VIEWS:
            words = f"{subject.caption} , {view}".split()
            assert tokenizer.tokenize(f"{subject.caption}, {view}") == [w + "</w>" for w in words]
    assert len(tokenizer.tokenize("zebra")) > 1
