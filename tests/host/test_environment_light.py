"""The environment light: envlight's orientation, and the integrals that its maps stand for."""

import math

import pytest
import torch
from latent_prior import OptionError
from latent_prior.host.threestudio import environment_light
from latent_prior.host.threestudio.environment_light import EnvLight

cv2 = pytest.importorskip("cv2", reason="threestudio's reader of pictures is not installed")

HEIGHT, WIDTH = 128, 256


def sphere():
    """(directions, solid angles) of the pixels of a picture by longitude and colatitude; y is up, the middle is -z."""
    longitude = ((torch.arange(WIDTH) + 0.5) / WIDTH - 0.5) * 2 * math.pi
    colatitude = ((torch.arange(HEIGHT) + 0.5) / HEIGHT * math.pi)[:, None]
    across = colatitude.sin()
    parts = (across * longitude.sin(), colatitude.cos().expand(HEIGHT, WIDTH), -across * longitude.cos())
    return torch.stack(parts, -1), (across * (math.pi / HEIGHT) * (2 * math.pi / WIDTH)).expand(HEIGHT, WIDTH)


def light_of(picture, path, **kwargs):
    path = path / "light.hdr"
    assert cv2.imwrite(str(path), picture.flip(-1).numpy())
    return EnvLight(str(path), **kwargs)


def directions(count=40):
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_light_from_everywhere_is_the_same_everywhere(tmp_path):
    light = light_of(torch.tensor([0.5, 0.25, 2.0]).expand(HEIGHT, WIDTH, 3).contiguous(), tmp_path, scale=3.0)
    wanted = torch.tensor([1.5, 0.75, 6.0]).expand(40, 3)
    torch.testing.assert_close(light(directions()), wanted)
    torch.testing.assert_close(light(directions(), torch.linspace(0, 1, 40)[:, None]), wanted)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """(light, colours, directions, solid angles) of a picture with a patch in each channel, as .hdr keeps it."""
    at, angle = sphere()
    centres = torch.nn.functional.normalize(torch.tensor([[1.0, 0.4, 0.2], [-0.3, 1.0, 0.5], [0.1, -0.6, -1.0]]), dim=1)
    picture = 0.2 + 5 * (8 * (at @ centres.T - 1)).exp()
    folder = tmp_path_factory.mktemp("light")
    light = light_of(picture, folder)
    kept = torch.tensor(cv2.imread(str(folder / "light.hdr"), cv2.IMREAD_UNCHANGED)).flip(-1)
    torch.testing.assert_close(kept, picture, rtol=0, atol=0.05)
    return light, kept.reshape(-1, 3), at.reshape(-1, 3), angle.reshape(-1)


def test_diffuse_light_is_the_mean_over_a_cosine_lobe(patches):
    light, colours, at, angle = patches
    normals = directions()
    lobe = (normals @ at.T).clamp(min=0) * angle / math.pi
    torch.testing.assert_close(light(normals), lobe @ colours, rtol=0.01, atol=0)  # 0.6 % was found


@pytest.mark.parametrize("roughness", environment_light.ROUGHNESSES)
def test_glossy_light_is_the_mean_over_a_ggx_lobe(roughness, patches):
    light, colours, at, angle = patches
    reflected = directions()
    cosine = reflected @ at.T
    squared, half = roughness**4, (1 + cosine) / 2  # the cosine of the half angle, squared
    lobe = squared / (half * (squared - 1) + 1).square() * cosine.clamp(min=0) * angle
    wanted = lobe @ colours / lobe.sum(1, keepdim=True)
    found = light(reflected, torch.full((40, 1), roughness))
    torch.testing.assert_close(found, wanted, rtol=0.015, atol=0)  # 1.1 % was found


def test_between_two_roughnesses_light_is_linear_and_has_gradients(patches):
    light, *_ = patches
    low, high = environment_light.ROUGHNESSES[1:3]
    at = directions()
    ends = [light(at, torch.full((40, 1), r)) for r in (low, high)]
    roughness = torch.full((40, 1), 0.75 * low + 0.25 * high, requires_grad=True)
    found = light(at.requires_grad_(), roughness)
    torch.testing.assert_close(found, 0.75 * ends[0] + 0.25 * ends[1])
    found.sum().backward()
    torch.testing.assert_close(
        roughness.grad, ((ends[1] - ends[0]) / (high - low)).sum(1, keepdim=True), rtol=1e-3, atol=1e-3
    )
    assert at.grad.abs().amax(1).gt(1e-3).float().mean() > 0.9


def test_the_maps_stay_out_of_checkpoints_and_move_with_the_material(tmp_path):
    light = light_of(torch.ones(HEIGHT, WIDTH, 3), tmp_path)
    assert not light.state_dict() and not list(light.parameters())
    assert light.to(torch.float64)(directions().double()).dtype == torch.float64


def test_eight_bits_are_divided_by_255(tmp_path):
    cv2.imwrite(str(tmp_path / "light.png"), torch.full((HEIGHT, WIDTH, 3), 51, dtype=torch.uint8).numpy())
    torch.testing.assert_close(EnvLight(str(tmp_path / "light.png"))(directions()), torch.full((40, 3), 0.2))


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "light.hdr").write_bytes(b"not a picture")
    for path in ("light.hdr", "nothing.hdr"):
        with pytest.raises(OptionError, match="system.material.environment_texture.*expected a picture's path"):
            EnvLight(str(tmp_path / path))
