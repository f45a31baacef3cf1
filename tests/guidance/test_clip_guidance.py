import math

import pytest
import torch
import torch.nn.functional as F
from latent_prior import host
from latent_prior.guidance.augmented_views import draw_views, seen_from
from latent_prior.guidance.clip_guidance import ClipGuidance
from latent_prior.pocket.captions import parse
from latent_prior.pocket.renderer import render
from torch.testing import assert_close

CAMERAS = {"elevation": torch.zeros(2), "azimuth": torch.zeros(2), "camera_distances": torch.ones(2)}
BOTH = {"use_directional": True, "use_text": True}


def make(**changes):
    config = {"prompt": "a golden mug", "source_prompt": "a mug", **changes}
    return ClipGuidance({key: value for key, value in config.items() if value is not None})


def call(guidance, rgb, source_rgb=None, **batch):
    return guidance(rgb, None, **CAMERAS, source_rgb=source_rgb, **batch)


def pictures(prompt):
    azimuth, white = torch.tensor([-30.0, 70.0]), torch.ones(2, 3)
    return render([parse(prompt)] * 2, torch.full((2,), 20.0), azimuth, white, supersample=1).rgb.permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def red():
    """Two views of the red mug, B H W 3."""
    return pictures("a red mug")


@pytest.fixture(scope="module")
def golden():
    """The same two of the golden one."""
    return pictures("a golden mug")


def test_it_is_registered():
    assert host.find("clip-guidance") is ClipGuidance


def test_what_comes_back(red, golden):
    rgb = golden.clone().requires_grad_()
    out = call(make(**BOTH), rgb, red, rays_o=torch.zeros(2, 2, 2, 3), height=64, guidance_eval=True)
    assert set(out) == {"loss_clip_directional", "loss_clip_text"}
    for loss in out.values():
        assert loss.shape == ()
        (slope,) = torch.autograd.grad(loss, rgb, retain_graph=True)
        assert slope.norm() > 0


def test_losses_by_hand(red, golden):
    guidance = make(**BOTH)
    clip = guidance.clip
    now, before = (clip.embed_images(rgb.permute(0, 3, 1, 2)) for rgb in (golden, red))
    target, source = clip.embed_texts(["a golden mug", "a mug"])
    out = call(guidance, golden, red)
    cosine = torch.cosine_similarity(now - before, (target - source)[None])
    assert_close(out["loss_clip_directional"], 1 - cosine.mean())
    angle = torch.arccos(now @ target)
    assert_close(out["loss_clip_text"], (angle**2 / 2).mean(), rtol=1e-4, atol=1e-5)


def test_the_losses_know_the_way(red, golden):
    """From red to golden is what was asked for; to a blue mug, or not at all, is not."""
    guidance = make(**BOTH)
    there, elsewhere, nowhere = (call(guidance, rgb, red) for rgb in (golden, pictures("a blue mug"), red))
    for loss in ("loss_clip_directional", "loss_clip_text"):
        assert there[loss] + 0.1 < elsewhere[loss]
        assert there[loss] + 0.1 < nowhere[loss]
    assert float(nowhere["loss_clip_directional"]) == 1.0


@pytest.mark.parametrize("term", ["directional", "text"])
def test_a_few_steps_on_pixels_lower_the_loss(red, term):
    """The directional term from its source on, where it has no direction yet."""
    guidance = make(**{f"use_{term}": True})
    rgb = red.clone().requires_grad_()
    optimiser = torch.optim.Adam([rgb], lr=0.01)
    losses = []
    for _ in range(12):
        (loss,) = call(guidance, rgb, red).values()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 0.2
    # nor has the first gradient, from no direction at all, made the later steps small
    assert losses[-1] < losses[1] - 0.2


# Switches. -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, set()),
        ({"use_text": True}, {"loss_clip_text"}),
        ({"use_directional": 1.0, "use_text": 0.0}, {"loss_clip_directional"}),
    ],
)
def test_only_what_is_switched_on_is_computed(red, golden, switches, expected):
    guidance = make(**switches)
    calls = []
    guidance.clip.model.vision_model.register_forward_hook(lambda *_: calls.append(1))
    assert set(call(guidance, golden, red)) == expected
    assert len(calls) == len(expected) + ("loss_clip_directional" in expected)


def test_switches_follow_a_schedule(red, golden):
    guidance = make(use_text=[0.0, 1.0, 100])
    assert call(guidance, golden, red) == {}
    guidance.update_step(0, 50)
    assert set(call(guidance, golden, red)) == {"loss_clip_text"}


# Views. --------------------------------------------------------------------------------------------------------------


def test_views_by_hand(red, golden):
    """Three views each; those of the source are the same ones."""
    guidance = make(**BOTH, views=3)
    torch.manual_seed(5)
    out = call(guidance, golden, red)
    torch.manual_seed(5)
    views = draw_views(6)
    seen = [seen_from(rgb.permute(0, 3, 1, 2).repeat_interleave(3, 0), views) for rgb in (golden, red)]
    now, before = (guidance.clip.embed_images(images) for images in seen)
    target, source = guidance.clip.embed_texts(["a golden mug", "a mug"])
    assert_close(
        out["loss_clip_directional"], 1 - torch.cosine_similarity(now - before, (target - source)[None]).mean()
    )
    assert_close(out["loss_clip_text"], (torch.arccos(now @ target) ** 2 / 2).mean(), rtol=1e-4, atol=1e-5)
    # the source's views are the picture's: without a change there is no direction
    assert float(call(guidance, red, red)["loss_clip_directional"]) == 1.0


def test_views_come_from_its_own_generator_where_there_is_one(red, golden):
    guidance = make(use_text=True, views=2)
    guidance.generator = torch.Generator().manual_seed(3)
    state = torch.get_rng_state()
    first = call(guidance, golden)["loss_clip_text"]
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(call(guidance, golden)["loss_clip_text"], first)
    guidance.generator.manual_seed(3)
    assert torch.equal(call(guidance, golden)["loss_clip_text"], first)


def test_one_view_is_the_picture_itself_and_draws_nothing(red, golden):
    state = torch.get_rng_state()
    guidance = make(use_text=True)
    assert torch.equal(call(guidance, golden)["loss_clip_text"], call(guidance, golden)["loss_clip_text"])
    assert torch.equal(torch.get_rng_state(), state)


def test_pictures_of_any_size(golden):
    """Twice as large, every pixel four times, is the same picture once CLIP has it at its own size."""
    guidance = make(use_text=True)
    large = F.interpolate(golden.permute(0, 3, 1, 2), scale_factor=2, mode="nearest").permute(0, 2, 3, 1)
    # bicubic is no box: measured 0.002
    assert_close(call(guidance, large), call(guidance, golden), rtol=0.01, atol=0)


# What is refused. ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"prompt": " "}, r"system\.guidance\.prompt is ' '"),
        ({"views": 0}, r"system\.guidance\.views is 0"),
        ({"source_prompt": None, "use_directional": True}, r"system\.guidance\.source_prompt is ''"),
        ({"source_prompt": None, "use_directional": [0, 1, 100]}, r"system\.guidance\.source_prompt is ''"),
        ({"source_prompt": "a golden mug", "use_directional": 1.0}, "no direction"),
        ({"use_text": [1.0, 2.0]}, r"system\.guidance\.use_text is"),
        ({"clip_name_or_path": "./missing"}, r"system\.guidance\.clip_name_or_path: './missing' does not exist"),
    ],
)
def test_bad_config(wrong, match):
    with pytest.raises(ValueError, match=match) as error:
        make(**wrong)
    assert "\n" not in str(error.value)


def test_a_source_prompt_is_wanted_only_for_the_direction(golden):
    guidance = make(source_prompt=None, use_directional=0.0, use_text=True)
    assert call(guidance, golden)["loss_clip_text"] < math.pi**2 / 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"source_rgb": None},
            r"system\.guidance\.use_directional is True; expected false: this system gives no source",
        ),
        ({"source_rgb": torch.zeros(1, 64, 64, 3)}, "got 1 pictures of the source for 2"),
        ({"rgb_as_latents": True}, r"rgb_as_latents.*system\.space=rgb"),
        ({"rgb": torch.zeros(2, 64, 64, 4), "source_rgb": None}, r"system\.geometry\.n_feature_dims=3"),
        ({"rgb": torch.full((2, 64, 64, 3), torch.nan)}, "diverged: loss_clip_directional = nan"),
    ],
)
def test_bad_calls(red, golden, change, match):
    with pytest.raises(ValueError, match=match) as error:
        call(make(use_directional=True), **{"rgb": golden, "source_rgb": red, **change})
    assert "\n" not in str(error.value)


def test_a_call_may_name_a_prompt_of_its_own(red, golden):
    guidance, other = make(**BOTH), make(**BOTH, prompt="a blue mug")
    expected = call(other, golden, red)
    for _ in range(2):  # the second time from memory
        found = call(guidance, golden, red, prompt="a blue mug")
        for name, value in expected.items():
            assert_close(found[name], value)
    assert call(guidance, golden, red)["loss_clip_text"] < found["loss_clip_text"]
