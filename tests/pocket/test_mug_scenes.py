"""What a z of the pocket StyleGAN means."""

import colorsys
import math

import pytest
import torch
from latent_prior.pocket import cameras
from latent_prior.pocket.captions import Subject, parse
from latent_prior.pocket.mug_scenes import BACKGROUND_RANGE, scenes, truth
from latent_prior.pocket.renderer import render


def z_of(*entries: float) -> torch.Tensor:
    """A z of unit mean square that begins with these entries."""
    z = torch.zeros(1, 128)
    z[0, : len(entries)] = torch.tensor(entries)
    z[0, -1] = math.sqrt(128 - z.square().sum().item())
    return z


def test_scene_is_read_off_z_as_documented():
    s = scenes(z_of(0.5, -0.5, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    assert s.azimuth.item() == pytest.approx(135.0, abs=1e-3)
    assert s.elevation.item() == pytest.approx(sum(cameras.EYE_LEVEL) / 2, abs=1e-3)
    assert s.background.item() == pytest.approx(sum(BACKGROUND_RANGE) / 2, abs=1e-5)
    assert s.paint[0].tolist() == pytest.approx(colorsys.hsv_to_rgb(0.25, 0.725, 0.725), abs=1e-5)


def test_the_length_of_z_and_its_other_entries_say_nothing():
    z = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    other = z.clone()
    other[:, 8:] = other[:, 8:].flip(1)
    for changed in (z * 3, other):
        for name in ("elevation", "azimuth", "paint", "background"):
            torch.testing.assert_close(getattr(scenes(z), name), getattr(scenes(changed), name), rtol=1e-4, atol=1e-4)


def test_scenes_spread_over_their_ranges():
    s = scenes(torch.randn(4000, 128, generator=torch.Generator().manual_seed(1)))
    for values, (low, high) in ((s.elevation, cameras.EYE_LEVEL), (s.background, BACKGROUND_RANGE)):
        quarters = torch.histc(values, 4, low, high) / len(values)
        torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.03)
    around = torch.histc(s.azimuth, 8, -180, 180) / len(s.azimuth)
    torch.testing.assert_close(around, torch.full((8,), 0.125), rtol=0, atol=0.03)


def test_truth_of_a_target_has_its_colour_surface_and_kind_from_the_same_camera():
    z = torch.randn(2, 128, generator=torch.Generator().manual_seed(2))
    s = scenes(z)
    backgrounds = s.background[:, None].expand(-1, 3)
    target = parse("a striped green jug")
    expected = render([target] * 2, s.elevation, s.azimuth, backgrounds, size=16).rgb
    torch.testing.assert_close(truth(z, target, size=16), expected.clamp(0, 1))
    own = render([Subject("mug", "blue")] * 2, s.elevation, s.azimuth, backgrounds, size=16, paint=s.paint).rgb
    torch.testing.assert_close(truth(z, size=16), own.clamp(0, 1))
