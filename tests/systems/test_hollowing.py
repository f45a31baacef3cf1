"""Proposals against closed forms, the decision under toy priors, and the pocket prior's on solids that are known."""

import math
from types import SimpleNamespace

import latent_prior.registration  # noqa: F401
import numpy as np
import pytest
import torch
from latent_prior import OptionError, host
from latent_prior.pocket import solids
from latent_prior.pocket.captions import parse
from latent_prior.systems import hollowing
from latent_prior.systems.hollowing import HollowingConfig, proposals

RADIUS = 0.85


def grid(distance, size=48):
    """Distances as sdf-grid has them."""
    centres = ((torch.arange(size) + 0.5) / size * 2 - 1) * RADIUS
    z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
    return distance(torch.stack([x, y, z], dim=-1)).float()[None, None]


def cylinder(radius=0.5, half=0.6):
    return grid(lambda p: torch.maximum(p[..., :2].norm(dim=-1) - radius, p[..., 2].abs() - half))


def volume(distances):
    return (distances < 0).sum().item() * (2 * RADIUS / distances.shape[-1]) ** 3


def test_a_cylinder_is_proposed_with_its_walls_and_floor():
    found = proposals(cylinder(), RADIUS, HollowingConfig(step=0, walls=[0.15], depths=[0.5, 1.0]))
    assert [p.name for p in found] == ["as it is", "hollow by 50%, walls of 0.15", "hollow by 100%, walls of 0.15"]
    assert torch.equal(found[0].distances, cylinder())
    whole = volume(cylinder())
    for proposal, depth in zip(found[1:], (0.6, 1.2 - 0.15), strict=True):
        taken = whole - volume(proposal.distances)
        assert taken == pytest.approx(math.pi * 0.35**2 * depth, rel=0.1)
    # above the floor a wall of about 0.15 is left, and nothing in the middle
    deep = found[2].distances[0, 0]
    assert (deep[30, 24] < 0).float().diff().abs().sum() == 4  # out, wall, air, wall, out
    assert (deep[:, 24, 24] < 0).sum() * 2 * RADIUS / 48 == pytest.approx(0.15, abs=0.04)


def test_what_is_thin_stays_whole():
    assert len(proposals(cylinder(radius=0.1), RADIUS, HollowingConfig(step=0))) == 1
    empty = grid(lambda p: torch.ones(p.shape[:-1]))
    assert len(proposals(empty, RADIUS, HollowingConfig(step=0))) == 1


def test_a_goblet_keeps_its_floor_stem_and_foot():
    def goblet(p):
        away, z = p[..., :2].norm(dim=-1), p[..., 2]
        bowl = torch.maximum(away - 0.45, (z - 0.3).abs() - 0.35)
        stem, foot = torch.maximum(away - 0.1, z.abs() - 0.6), torch.maximum(away - 0.4, (z + 0.65).abs() - 0.1)
        return torch.minimum(bowl, torch.minimum(stem, foot))

    body = grid(goblet)
    for proposal in proposals(body, RADIUS, HollowingConfig(step=0))[1:]:
        gone = (body < 0) & (proposal.distances >= 0)
        lowest = torch.nonzero(gone[0, 0])[:, 0].min().item()
        height = (lowest + 0.5) / 48 * 2 * RADIUS - RADIUS
        assert height > -0.05 + 0.05  # the bowl's floor begins at -0.05, and voxels are 0.035 wide


def test_a_dent_is_not_proposed():
    def lid_with_knob(p):
        away, z = p[..., :2].norm(dim=-1), p[..., 2]
        body, knob = (
            torch.maximum(away - 0.5, (z + 0.15).abs() - 0.45),
            torch.maximum(away - 0.15, (z - 0.3).abs() - 0.3),
        )
        return torch.minimum(body, knob)

    cfg = HollowingConfig(step=0, walls=[0.08], depths=[0.2, 1.0])
    found = proposals(grid(lid_with_knob), RADIUS, cfg)  # 0.2: the knob alone, a hundredth of the whole
    assert [p.name for p in found] == ["as it is", "hollow by 100%, walls of 0.08"]


class Prior:
    """A guidance whose error is that of one pixel value against another."""

    def __init__(self, likes, describes_clay=True):
        self.likes, self.describes_clay, self.asked = likes, describes_clay, 0

    def denoising_error(self, rgb, prompt_utils, elevation, azimuth, camera_distances, prompted):
        assert rgb.shape == (8, 16, 16, 3) and prompt_utils == "a cup" and elevation.min() >= 30
        if not prompted:
            return torch.full((8,), 9.0 if self.describes_clay else 0.0)
        self.asked += 1
        return (rgb - self.likes).square().mean(dim=(1, 2, 3)) + 1


def field():
    geometry = host.find("sdf-grid")({"levels": [8, 48], "radius": RADIUS, "feature_size": 4})
    geometry.reshape(cylinder())
    return geometry


BATCH = {"camera_distances": torch.full((2,), 3.0), "fovy": torch.full((2,), 0.63), "height": 16, "width": 16}


def test_reshaping_gives_the_field_those_distances():
    torch.testing.assert_close(field().distances(), cylinder(), atol=1e-5, rtol=0)


def test_a_surface_that_comes_to_light_has_the_colours_of_the_others():
    geometry = host.find("sdf-grid")({"levels": [8, 48], "radius": RADIUS, "feature_size": 48})
    geometry.reshape(cylinder())
    outside = cylinder()[0, 0] > -0.05
    with torch.no_grad():
        geometry.features[:] = -9.0  # deep inside
        geometry.features[0][:, outside] = 2.0
    geometry.reshape(proposals(geometry.distances(), RADIUS, HollowingConfig(step=0))[3].distances)
    points = torch.tensor([[0.0, 0.0, -0.5], [0.42, 0.0, 0.3], [0.0, -0.42, 0.0]])  # floor and walls of the hollow
    assert geometry.forward_sdf(points).abs().max() < 0.06
    assert geometry.export(points)["features"].min() > 0


def decided(likes, describes_clay=True, **settings):
    geometry, prior = field(), Prior(likes, describes_clay)
    cfg = HollowingConfig(step=0, least_gain=0.0, **settings)
    done = hollowing.hollow(cfg, geometry, prior, "a cup", BATCH, torch.ones(3))
    return done, volume(geometry.distances()) / volume(cylinder()), prior.asked


def test_the_likelier_body_is_taken():
    done, left, asked = decided(likes=0.0)  # what is dark
    assert done.startswith("hollow by") and "error falls by" in done
    assert left < 0.8 and asked == 7 * len(hollowing.TONES)
    assert decided(likes=1.0)[:2] == (None, 1.0)  # what is bright: the lid
    assert decided(likes=0.0, walls=[0.12], depths=[1.0])[2] == 2 * len(hollowing.TONES)


def test_a_prompt_that_does_not_describe_clay_decides_nothing():
    assert decided(likes=0.0, describes_clay=False)[:2] == (None, 1.0)


def test_a_gain_that_is_too_small_changes_nothing():
    geometry = field()
    cfg = HollowingConfig(step=0, least_gain=0.9)
    assert hollowing.hollow(cfg, geometry, Prior(0.0), "a cup", BATCH, torch.ones(3)) is None
    torch.testing.assert_close(geometry.distances(), cylinder(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": -1}, "system.hollowing.step is -1"),
        ({"step": 3}, "system.hollowing.step is 3; expected at least 9"),
        ({"step": 9, "walls": []}, "system.hollowing.walls"),
        ({"step": 9, "walls": [-0.1]}, "system.hollowing.walls"),
        ({"step": 9, "depths": [1.5]}, "system.hollowing.depths"),
        ({"step": 9, "least_gain": 1.0}, "system.hollowing.least_gain"),
    ],
)
def test_bad_settings_are_named(settings, message):
    geometry = host.find("sdf-grid")({"levels": [4, 8], "level_steps": [0, 5], "level_fade": 4})
    with pytest.raises(OptionError, match=message):
        hollowing.check(HollowingConfig(**settings), geometry, "latent-prior-guidance", "rgb")


def test_what_cannot_hollow_is_named():
    geometry = host.find("sdf-grid")({"levels": [4, 8]})
    good = HollowingConfig(step=0)
    hollowing.check(good, geometry, "latent-prior-guidance", "rgb")
    hollowing.check(HollowingConfig(), SimpleNamespace(), "any", "latent")
    for others in ((geometry, "clip-guidance", "rgb"), (geometry, "latent-prior-guidance", "latent")):
        with pytest.raises(OptionError, match="expected null, without latent-prior-guidance"):
            hollowing.check(good, *others)
    with pytest.raises(OptionError, match="has no grid of distances: choose sdf-grid"):
        hollowing.check(good, host.find("volume-grid")({"grid_size": [4, 4, 4]}), "latent-prior-guidance", "rgb")


@pytest.mark.slow
@pytest.mark.parametrize(
    "caption", ["a green mug", "a yellow wine glass", "a pink cylinder", "a red chair", "a striped pink sphere"]
)
def test_the_pocket_prior_knows_what_is_hollow(caption):
    """The true solids, vessels filled to the brim."""
    subject = parse(caption)
    body = grid(lambda p: solids.signed_distance(subject.kind, p), size=64)
    if subject.kind in ("mug", "wine glass"):
        filled = np.stack([_filled(layer) for layer in (body[0, 0] < 0).numpy()])
        inside, outside = (hollowing.distance_transform_edt(mask) for mask in (filled, ~filled))
        body = torch.tensor((outside - inside) * (2 * RADIUS / 64), dtype=torch.float32)[None, None]
    geometry = host.find("sdf-grid")({"levels": [8, 64], "radius": RADIUS, "feature_size": 4})
    geometry.reshape(body)
    guidance = host.find("latent-prior-guidance")({"trainer_max_steps": 1})
    prompts = host.find("latent-prior-prompt-processor")({"prompt": caption, "use_cache": False})()
    batch = BATCH | {"height": 64, "width": 64}
    done = hollowing.hollow(HollowingConfig(step=0), geometry, guidance, prompts, batch, torch.tensor(subject.rgb))
    assert (done is not None) == (subject.kind in ("mug", "wine glass"))


def _filled(layer):
    from scipy.ndimage import binary_fill_holes

    return binary_fill_holes(layer)
