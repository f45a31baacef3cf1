"""Prompts by view and Perp-Neg, with embeddings that are easy to tell apart."""

import math

import pytest
import torch
from latent_prior.host.embedded.prompts import PromptProcessor


def embedding(prompt):
    """A made-up embedding of 2 tokens x 3, different for every prompt."""
    generator = torch.Generator().manual_seed(sum(ord(c) * (i + 1) for i, c in enumerate(prompt)))
    return torch.randn(2, 3, generator=generator)


class ToyPrompts(PromptProcessor):
    def prepare_text_embeddings(self):
        pass

    def load_from_cache(self, prompt):
        return embedding(prompt)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("LATENT_PRIOR_DEVICE", "cpu")


def cameras(*angles):
    """(elevation, azimuth, distance) of cameras given as (elevation, azimuth) in degrees."""
    elevation, azimuth = torch.tensor(angles, dtype=torch.float32).T
    return elevation, azimuth, torch.ones(len(angles))


def test_wording():
    assert ToyPrompts({"prompt": "a mug"}).prompts_vd == [
        "a mug, side view",
        "a mug, front view",
        "a mug, back view",
        "a mug, overhead view",
    ]
    assert ToyPrompts(
        {"prompt": "a mug", "view_dependent_prompt_front": True, "prompt_back": "its handle"}
    ).prompts_vd == [
        "side view of a mug",
        "front view of a mug",
        "its handle",
        "overhead view of a mug",
    ]


@pytest.mark.parametrize(
    "angle, view",
    [
        ((0, 0), "front"),
        ((0, 44.9), "front"),
        ((0, 315.1), "front"),
        ((0, 45), "side"),
        ((0, -90), "side"),
        ((0, 135), "side"),
        ((0, 135.1), "back"),
        ((0, 180), "back"),
        ((0, 540), "back"),
        ((0, -170), "back"),
        ((60, 0), "front"),
        ((60.1, 0), "overhead"),
        ((80, 180), "overhead"),
    ],
)
def test_directions_by_angle(angle, view):
    out = ToyPrompts({"prompt": "a mug", "negative_prompt": "ugly"})()
    rows = out.get_text_embeddings(*cameras(angle))
    torch.testing.assert_close(rows[0], embedding(f"a mug, {view} view"))
    torch.testing.assert_close(rows[1], embedding("ugly"))


def test_rows_are_conditional_first():
    out = ToyPrompts({"prompt": "a mug"})()
    rows = out.get_text_embeddings(*cameras((0, 0), (0, 180), (70, 0)))
    assert rows.shape == (6, 2, 3)
    expected = [f"a mug, {view} view" for view in ("front", "back", "overhead")] + [""] * 3
    torch.testing.assert_close(rows, torch.stack([embedding(prompt) for prompt in expected]))
    plain = out.get_text_embeddings(*cameras((0, 0), (0, 180)), view_dependent_prompting=False)
    torch.testing.assert_close(plain, torch.stack([embedding(prompt) for prompt in ("a mug", "a mug", "", "")]))


def test_perp_neg_by_hand():
    cfg = {"prompt": "x", "use_perp_neg": True, "perp_neg_f_sb": [1, 0.5, -0.606], "perp_neg_f_fsb": [2, 0.3, 0.1]}
    cfg |= {"perp_neg_f_fs": [4, 0.5, -2.426], "perp_neg_f_sf": [3, 0.7, -1.0]}
    out = ToyPrompts(cfg)()
    assert out.use_perp_neg
    side, front, back, overhead = (embedding(f"x, {view} view") for view in ("side", "front", "back", "overhead"))
    empty = embedding("")
    angles = [(0, 30), (0, -120), (75, 10)]
    rows, weights = out.get_text_embeddings_perp_neg(*cameras(*angles))
    r, s = 1 - 30 / 90, 2 - 120 / 90

    def decay(a, b, c, x):
        return -(a * math.exp(-b * x) + c)

    positives = [r * front + (1 - r) * side, s * side + (1 - s) * back, overhead]
    negatives = [front, side, side, front, empty, empty]
    torch.testing.assert_close(rows, torch.stack(positives + [empty] * 3 + negatives))
    expected = [
        [decay(4, 0.5, -2.426, r), decay(3, 0.7, -1.0, 1 - r)],
        [decay(1, 0.5, -0.606, s), decay(2, 0.3, 0.1, s)],
        [0.0, 0.0],
    ]
    torch.testing.assert_close(weights, torch.tensor(expected))
    with pytest.raises(ValueError, match="needs view_dependent_prompting"):
        out.get_text_embeddings_perp_neg(*cameras(*angles), view_dependent_prompting=False)


@pytest.mark.parametrize(
    "cfg, message",
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": "lib:mug"}, "prompt library"),
        ({"prompt": "x", "use_prompt_debiasing": True}, "unknown config key 'use_prompt_debiasing'"),
    ],
)
def test_bad_prompts_are_refused(cfg, message):
    with pytest.raises(ValueError, match=message):
        ToyPrompts(cfg)
