"""Colours and orchestration of field_to_mesh, on fields whose colours are known."""

import numpy as np
import pytest
import torch
from latent_prior.meshes.mesh import field_to_mesh, linear_latents_to_rgb, surface_colors


def test_red_ball_in_blue_fog_comes_out_red(fields, unit_box):
    ball = fields.ball(0.5, peak=80.0, width=0.04)

    def density(points):
        return ball(points) + 0.3  # fog everywhere, which the threshold must not mistake for the body

    def color(points):
        core = ball(points) > 1
        return torch.where(core, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.0, 0.0, 1.0]))

    result = field_to_mesh(density, color, unit_box, resolution=48, threshold=30.0)
    colors = result.mesh.visual.vertex_colors[:, :3] / 255
    assert np.abs(colors - [0.9, 0.1, 0.1]).max() < 0.05  # at the isosurface itself it is no better mixed
    assert result.mesh.is_watertight and result.mesh.body_count == 1


def test_surface_colors_against_a_fine_quadrature(fields):
    # one ray down the x axis, colours changing along it; the reference is the same integral with 200000 samples
    density = fields.ball(0.5, peak=60.0, width=0.05)

    def color(points):
        return torch.stack([points[:, 0], 1 - points[:, 0], 0.3 + 0 * points[:, 0]], dim=-1)

    step, threshold = 0.03, 20.0
    found = surface_colors(
        torch.tensor([[0.5, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), density, color, threshold, step
    )
    depth = min(max(4 / threshold, 3 * step), 12 * step)
    count = 200_000
    width = (step + depth) / count
    x = 0.5 + step - width * (torch.arange(count, dtype=torch.float64) + 0.5)
    points = torch.stack([x, 0 * x, 0 * x], dim=-1)
    optical = (60 * ((0.5 - x) / 0.05 / 2 + 0.5).clamp(0, 1)) * width
    weight = torch.exp(-(optical.cumsum(0) - optical)) * (1 - torch.exp(-optical))
    expected = (weight[:, None] * color(points)).sum(0) / weight.sum()
    torch.testing.assert_close(found[0].double(), expected, atol=3e-3, rtol=0)


def test_a_two_coloured_ball_keeps_its_sides(fields, unit_box):
    def color(points):
        return torch.where(points[:, :1] > 0, torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.5, 1.0]))

    mesh = field_to_mesh(fields.ball(), color, unit_box, resolution=32).mesh
    colors, x = mesh.visual.vertex_colors[:, :3] / 255, mesh.vertices[:, 0]
    np.testing.assert_allclose(colors[x > 0.1], [[1.0, 0.502, 0.0]] * (x > 0.1).sum(), atol=0.004)
    np.testing.assert_allclose(colors[x < -0.1], [[0.0, 0.502, 1.0]] * (x < -0.1).sum(), atol=0.004)


def test_coarse_to_fine_spends_the_samples_on_the_object(fields, unit_box):
    density = fields.ball(0.2, (0.3, 0.3, 0.3), peak=10.0, width=0.1)
    coarse = field_to_mesh(density, None, unit_box, 48, threshold=5.0, coarse_to_fine=False)
    fine = field_to_mesh(density, None, unit_box, 48, threshold=5.0, coarse_to_fine=True)
    assert fine.step < coarse.step / 2
    for result, tolerance in ((coarse, 0.01), (fine, 0.002)):
        distance = np.linalg.norm(result.mesh.vertices - 0.3, axis=1)
        assert np.abs(distance - 0.2).max() < tolerance


def test_a_joint_too_thin_for_the_coarse_look_still_joins(fields, unit_box):
    def rod(points):  # its radius is 0.025; the coarse grid's lines pass it at 0.032
        return 200.0 * ((points[:, 1:].norm(dim=-1, keepdim=True) < 0.025) & (points[:, :1].abs() < 0.5))

    density = fields.sum(fields.ball(0.3, (-0.5, 0.0, 0.0)), fields.ball(0.2, (0.5, 0.0, 0.0)), rod)
    mesh = field_to_mesh(density, None, unit_box, 64, threshold=100.0, min_fraction=1.0).mesh
    np.testing.assert_allclose(mesh.bounds[:, 0], [-0.8, 0.7], atol=0.02)
    assert mesh.body_count == 1 and mesh.is_watertight


def test_max_faces_and_threshold_are_heeded(fields, unit_box):
    result = field_to_mesh(
        fields.ball(peak=10.0, width=0.1), fields.plain(0.2, 0.4, 0.6), unit_box, 40, threshold=5.0, max_faces=500
    )
    assert result.threshold == 5.0
    assert len(result.mesh.faces) <= 500
    np.testing.assert_array_equal(np.unique(result.mesh.visual.vertex_colors, axis=0), [[51, 102, 153, 255]])


def test_an_empty_field_is_an_error(unit_box):
    with pytest.raises(ValueError, match="empty"):
        field_to_mesh(lambda p: 0 * p[:, :1], None, unit_box, 32)
    with pytest.raises(ValueError, match="Lower system.exporter.isosurface_threshold"):
        field_to_mesh(lambda p: 0 * p[:, :1], None, unit_box, 32, threshold=1.0)


def test_linear_map_of_latents():
    matrix = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.5], [0.5, 0.0, 0.0]])
    latents = torch.tensor([[0.2, -0.1, 1.0, 0.4], [9.0, -9.0, 0.0, 0.0]])
    expected = torch.tensor([[0.7, 0.4, 0.75], [1.0, 0.0, 0.5]])
    torch.testing.assert_close(linear_latents_to_rgb(matrix)(latents), expected)
    with pytest.raises(ValueError, match="latent_to_rgb"):
        linear_latents_to_rgb(matrix[:3])(latents)
    with pytest.raises(ValueError, match="latent_to_rgb"):
        linear_latents_to_rgb(matrix.T)
