"""Fields against slow loops and closed forms."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from latent_prior.host.embedded.geometry import ImplicitVolume, VolumeGrid
from omegaconf import OmegaConf

SMALL = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 4, "per_level_scale": 1.5}


def volume(**config):
    torch.manual_seed(0)
    geometry = VolumeGrid({"grid_size": [4, 5, 6], **config})
    with torch.no_grad():
        geometry.grid.normal_()
    return geometry


def implicit(**config):
    torch.manual_seed(0)
    geometry = ImplicitVolume({"pos_encoding_config": SMALL, **config})
    with torch.no_grad():
        geometry.encoding.encoding.encoding.params.normal_()
    return geometry


def slow_trilinear(grid, point, radius):
    """Voxel centres half a voxel inside the box, nothing outside; the grid's last axis is x."""
    sizes = grid.shape[1:][::-1]
    position = [((p / radius + 1) * size - 1) / 2 for p, size in zip(point.tolist(), sizes, strict=True)]
    total = torch.zeros(len(grid), dtype=torch.float64)
    for corner in range(8):
        index = [math.floor(p) + (corner >> axis & 1) for axis, p in enumerate(position)]
        if all(0 <= i < size for i, size in zip(index, sizes, strict=True)):
            weight = math.prod(1 - abs(p - i) for p, i in zip(position, index, strict=True))
            total += weight * grid[:, index[2], index[1], index[0]].double()
    return total


@pytest.mark.parametrize("count", [30, 31])  # the kernel's two rows share an even number only
def test_volume_grid_against_a_loop(count):
    geometry = volume(radius=1.5, n_feature_dims=2)
    points = 3.2 * torch.rand(count, 3) - 1.6
    out = geometry(points)
    for i, point in enumerate(points):
        values = slow_trilinear(geometry.grid[0].detach(), point.double(), 1.5)
        density = math.log1p(math.exp(values[0] + 5 * (1 - point.norm().item() / 0.5)))
        assert out["density"][i].item() == pytest.approx(density, rel=1e-4, abs=1e-6)
        torch.testing.assert_close(out["features"][i].double(), values[1:], atol=1e-5, rtol=0)


def test_volume_grid_starts_as_the_blob():
    geometry = VolumeGrid({"grid_size": [8, 8, 8]})
    points = torch.rand(20, 3) * 2 - 1
    expected = F.softplus(5 * (1 - points.norm(dim=-1, keepdim=True) / 0.5))
    torch.testing.assert_close(geometry(points)["density"], expected)
    assert (geometry(points)["features"] == 0).all()
    assert set(geometry.state_dict()) == {"grid", "bbox", "density_scale"}
    assert [name for name, _ in geometry.named_parameters()] == ["grid"]


def test_a_numeric_bias_brings_a_trained_scale():
    geometry = volume(density_bias=-1.0)
    assert {name for name, _ in geometry.named_parameters()} == {"grid", "density_scale"}
    with torch.no_grad():
        geometry.density_scale.fill_(math.log(3.0))
    points = torch.rand(10, 3) - 0.5
    raw = geometry.interpolate(points, geometry.grid)[:, :1]
    torch.testing.assert_close(geometry.forward_density(points), F.softplus(3 * raw - 1))


@pytest.mark.parametrize("build", [volume, implicit])
def test_the_parts_agree_with_the_whole(build):
    geometry = build(density_bias=0.5)
    points = torch.rand(2, 7, 3) - 0.5
    out = geometry(points)
    assert out["density"].shape == (2, 7, 1) and out["features"].shape == (2, 7, 3)
    torch.testing.assert_close(geometry.forward_density(points), out["density"])
    torch.testing.assert_close(geometry.export(points)["features"], out["features"])


@pytest.mark.parametrize("build", [volume, implicit])
def test_normals_of_the_blob_point_outwards(build):
    blob = "blob" if build is volume else "blob_magic3d"
    geometry = build(density_bias=blob, density_blob_scale=1000.0, density_activation="none")
    directions = F.normalize(torch.randn(20, 3), dim=-1)
    out = geometry(0.3 * directions, output_normal=True)
    assert (out["normal"] * directions).sum(-1).min() > 0.99
    assert torch.equal(out["normal"], out["shading_normal"])


@pytest.mark.parametrize("build", [volume, implicit])
def test_without_a_type_of_normals_there_are_none(build):
    with pytest.raises(ValueError, match="normal_type is None"):
        build(normal_type=None)(torch.rand(5, 3), output_normal=True)


def test_implicit_volume_is_networks_of_the_encoding():
    geometry = implicit(density_bias="blob_dreamfusion", density_blob_scale=5.0, density_blob_std=0.2)
    points = torch.rand(9, 3) - 0.5
    encoded = geometry.encoding((points + 1) / 2)
    blob = 5 * torch.exp(-points.square().sum(-1, keepdim=True) / (2 * 0.2**2))
    out = geometry(points)
    torch.testing.assert_close(out["density"], F.softplus(geometry.density_network(encoded) + blob))
    torch.testing.assert_close(out["features"], geometry.feature_network(encoded))
    assert set(out) == {"density", "features"}


def test_the_seed_decides_the_field():
    points = torch.rand(5, 3)
    fields = []
    for _ in range(2):
        torch.manual_seed(7)
        fields.append(ImplicitVolume({"pos_encoding_config": SMALL})(points))
    assert all(torch.equal(fields[0][key], fields[1][key]) for key in fields[0])


@pytest.mark.parametrize("build", [volume, implicit])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("density_bias", "cone"),
        ("density_activation", "softpluss"),
        ("normal_type", "exact"),
        ("radius", 0.0),
    ],
)
def test_bad_config_names_its_key(build, key, value):
    with pytest.raises(ValueError, match=f"{key} is"):
        build(**{key: value})


@pytest.mark.parametrize("place", ["system.geometry", "system.geometry.field"])
@pytest.mark.parametrize("kind", [VolumeGrid, ImplicitVolume])
def test_in_a_config_the_key_is_named_with_its_place(place, kind):
    cfg = OmegaConf.create()
    OmegaConf.update(cfg, place, {"radius": 0.0})
    with pytest.raises(ValueError, match=rf"^{re.escape(place)}\.radius is 0\.0"):
        kind(OmegaConf.select(cfg, place))


@pytest.mark.parametrize("size", [[8, 8], [8, 8, 0], [8, 8, 8.5], 8])
def test_grid_size_is_checked(size):
    with pytest.raises(ValueError, match="grid_size is"):
        VolumeGrid({"grid_size": size})
