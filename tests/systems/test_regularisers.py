"""Regularisers against closed forms and slow loops."""

import math
from types import SimpleNamespace

import pytest
import torch
from latent_prior import OptionError
from latent_prior.systems import regularisers


def test_closed_forms():
    half = torch.full((2, 3, 3, 1), 0.5)
    torch.testing.assert_close(regularisers.sparsity(half), torch.tensor(math.sqrt(0.26)))
    torch.testing.assert_close(regularisers.opaque(half), torch.tensor(math.log(2)))
    weights = torch.tensor([[0.0], [0.1], [0.9]])
    expected = (math.log(2) + math.log(10)) / 3
    torch.testing.assert_close(regularisers.emptiness(weights, 10.0), torch.tensor(expected))


def test_opaque_is_least_at_the_ends_and_finite_there():
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 2, 1).requires_grad_()
    value = regularisers.opaque(ends)
    value.backward()
    assert value < 0.01 and torch.isfinite(ends.grad).all()


def test_orientation_counts_only_what_faces_away():
    directions = torch.tensor([[1.0, 0, 0]] * 3)
    normals = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0], [0.6, 0.8, 0]])
    weights = torch.tensor([[0.5], [0.25], [1.0]])
    torch.testing.assert_close(regularisers.orientation(weights, normals, directions), torch.tensor((0.25 + 0.36) / 3))


def test_total_variation_against_a_loop():
    grid = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    means = []
    for axis in (2, 3, 4):
        n = grid.shape[axis]
        steps = [grid.select(axis, i + 1) - grid.select(axis, i) for i in range(n - 1)]
        means.append(torch.stack(steps).square().mean())
    torch.testing.assert_close(regularisers.total_variation(grid), sum(means) / 3)


def test_total_variations_own_gradient():
    grid = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.autograd.gradcheck(regularisers.total_variation, grid.requires_grad_())


def test_density_and_features_are_smoothed_apart():
    grid = torch.randn(1, 4, 3, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    opacity = {"opacity": torch.zeros(1, 1, 1, 1)}
    for name, touched in (("tv_density", [True, False, False, False]), ("tv_features", [False, True, True, True])):
        (gradient,) = torch.autograd.grad(regularisers.TERMS[name](opacity, SimpleNamespace(grid=grid), 10.0), grid)
        assert [bool(gradient[0, channel].any()) for channel in range(4)] == touched


def distance_grid(distance, size=24, half=1.0):
    """Distances at the centres of voxels, axes z, y, x, and their spacing."""
    centres = (torch.arange(size) + 0.5) / size * 2 * half - half
    z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
    return distance(torch.stack([x, y, z], dim=-1))[None, None], 2 * half / size


def test_stencils_against_a_loop():
    grid, spacing = torch.randn(1, 1, 4, 5, 6, generator=torch.Generator().manual_seed(0)), 0.3
    around = regularisers.voxel_stencil(grid, spacing)
    field, slopes, bends = grid[0, 0], [], []
    for z in range(1, 3):
        for y in range(1, 4):
            for x in range(1, 5):
                here = field[z, y, x]
                after = torch.stack([field[z + 1, y, x], field[z, y + 1, x], field[z, y, x + 1]])
                before = torch.stack([field[z - 1, y, x], field[z, y - 1, x], field[z, y, x - 1]])
                slopes.append((((after - here) / spacing).norm() - 1).square())
                if abs(here) < regularisers.BAND:
                    bends.append(((after + before).sum() - 6 * here).abs() / spacing)
    assert len(bends) > 0
    torch.testing.assert_close(regularisers.eikonal(around), torch.stack(slopes).mean())
    torch.testing.assert_close(regularisers.curvature(around), torch.stack(bends).mean())


def test_a_ball_bends_by_twice_its_curvature_and_a_plane_does_not():
    ball, spacing = distance_grid(lambda p: p.norm(dim=-1) - 0.5, size=48)
    around = regularisers.voxel_stencil(ball, spacing)
    assert regularisers.curvature(around) == pytest.approx(2 / 0.5 * spacing, rel=0.05)
    assert regularisers.eikonal(around) < 1e-3
    plane = regularisers.voxel_stencil(*distance_grid(lambda p: p @ torch.tensor([0.6, 0.0, 0.8])))
    assert regularisers.curvature(plane) < 1e-4 and regularisers.eikonal(plane) < 1e-6
    steep = regularisers.voxel_stencil(*distance_grid(lambda p: 3 * p[..., 0]))
    assert regularisers.eikonal(steep) == pytest.approx(4, rel=1e-4)


def test_fields_without_voxels_are_looked_at_near_their_surface():
    def distance(points):
        return points.norm(dim=-1, keepdim=True) - 0.5

    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = {"points": points, "sdf": distance(points)}
    geometry = SimpleNamespace(forward_sdf=distance)
    expected = 2 / 0.5 * regularisers.STENCIL_STEP
    assert regularisers.TERMS["curvature"](out, geometry, 10.0) == pytest.approx(expected, rel=0.05)
    assert regularisers.TERMS["eikonal"](out, geometry, 10.0) < 1e-2
    far = {"points": points[:3] + 9, "sdf": distance(points[:3] + 9)}  # none is near: no surface to smooth
    assert all(torch.isfinite(regularisers.TERMS[name](far, geometry, 10.0)) for name in ("curvature", "eikonal"))


def test_what_is_missing_is_named():
    for name, message in (
        ("tv_density", "lambda_tv_density.*volume-grid"),
        ("emptiness", "lambda_emptiness needs weights"),
        ("orient", "lambda_orient needs normal"),
        ("eikonal", "lambda_eikonal needs points"),
    ):
        with pytest.raises(OptionError, match=message):
            regularisers.TERMS[name]({"opacity": torch.zeros(1, 1, 1, 1)}, SimpleNamespace(), 10.0)


def test_shape_of_a_constant_density():
    """-log(1 - exp(-density T)) inside and density T outside, each weighted by 1 - exp(-d^2 / (2 sigma^2))."""
    optical, sigma = 0.7, 0.2
    density = torch.full((4,), optical / regularisers.THICKNESS, dtype=torch.float64)
    inside = torch.tensor([True, True, False, False])
    distance = torch.tensor([0.1, 0.5, 0.1, 0.5], dtype=torch.float64)
    near, far = (1 - math.exp(-((d / sigma) ** 2) / 2) for d in (0.1, 0.5))
    expected = (near + far) * (optical - math.log(1 - math.exp(-optical))) / 4
    found = regularisers.shape(density, inside, distance, sigma)
    torch.testing.assert_close(found.item(), expected, rtol=1e-5, atol=0)


def test_shape_pulls_density_up_inside_and_down_outside_but_not_at_the_surface():
    """Also where there is no density at all; the pull is finite there."""
    inside = torch.tensor([True, False] * 3)
    distance = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0, 0.0])
    density = torch.tensor([5.0, 5.0, 0.0, 0.0, 5.0, 5.0], requires_grad=True)
    value = regularisers.shape(density, inside, distance, 0.1)
    (gradient,) = torch.autograd.grad(value, density)
    assert gradient.sign().tolist() == [-1, 1, -1, 1, 0, 0] and torch.isfinite(value) and gradient.isfinite().all()
    full = regularisers.shape(torch.tensor([1e4, 0.0]), inside[:2], distance[:2], 0.1)
    torch.testing.assert_close(full, torch.tensor(0.0), atol=2e-6, rtol=0)
