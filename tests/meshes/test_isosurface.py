"""Surfaces against spheres, whose volume, area and distance are known."""

import math

import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError
from latent_prior.meshes import isosurface
from scipy import ndimage


def test_sphere_has_its_volume_area_and_place(fields, unit_box):
    # 40 points an axis: step 0.051; the ramp of +-0.1 spans four steps, so linear interpolation is fair
    density = fields.ball(radius=0.6, center=(0.1, -0.05, 0.2), peak=10.0, width=0.1)
    grid = isosurface.sample_field(density, unit_box, resolution=40)
    mesh = isosurface.extract_surface(grid, threshold=5.0)
    distance = np.linalg.norm(mesh.vertices - [0.1, -0.05, 0.2], axis=1)
    assert np.abs(distance - 0.6).max() < 2e-3  # measured 8e-4
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)  # positive: normals point outwards
    assert mesh.area == pytest.approx(4 * math.pi * 0.6**2, rel=0.01)
    # Hausdorff the other way: every point of the sphere has a vertex within about a step
    normal = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    truth = 0.6 * normal.numpy() + [0.1, -0.05, 0.2]
    nearest = np.linalg.norm(truth[:, None] - mesh.vertices[None], axis=-1).min(axis=1)
    assert nearest.max() < grid.step


def test_sampling_in_slabs_is_the_same_as_at_once(fields):
    box = torch.tensor([[-1.0, -0.5, -0.2], [1.0, 0.6, 0.3]])
    whole = isosurface.sample_field(fields.ball(), box, resolution=21)
    slabs = isosurface.sample_field(fields.ball(), box, resolution=21, chunk=1)
    assert whole.values.shape == (21, 12, 6)
    np.testing.assert_array_equal(whole.values, slabs.values)
    point = whole.origin + whole.step * np.array([9, 4, 2])
    expected = fields.ball()(torch.tensor(point[None], dtype=torch.float32)).item()
    assert whole.values[9, 4, 2] == pytest.approx(expected, abs=1e-3)


def test_surface_closes_at_the_border(unit_box):
    grid = isosurface.sample_field(lambda p: torch.full_like(p[:, :1], 3.0), unit_box, resolution=8)
    mesh = isosurface.extract_surface(grid, threshold=1.0)
    assert mesh.is_watertight
    assert mesh.volume > 8  # the whole box, and the part of a step by which padding rounds it off


def test_automatic_threshold_reproduces_the_rendered_silhouette(unit_box):
    # an exponential fog without any surface of its own: sigma = a exp(-r / s)
    a, s = 400.0, 0.08
    grid = isosurface.sample_field(lambda p: a * torch.exp(-p.norm(dim=-1, keepdim=True) / s), unit_box, 81)
    along = np.linspace(-1, 1, 4001)
    impact = np.linspace(0.05, 0.9, 400)
    optical = (a * np.exp(-np.hypot(impact[:, None], along) / s)).sum(axis=1) * (along[1] - along[0])
    radius = impact[(1 - np.exp(-optical)) > 0.5].max()  # where the rendered disc ends
    mesh = isosurface.extract_surface(grid, isosurface.automatic_threshold(grid))
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(radius, abs=grid.step)


def test_automatic_threshold_does_not_mind_the_scale_of_a_sharp_field(fields, unit_box):
    for peak in (30.0, 3000.0):
        grid = isosurface.sample_field(fields.ball(peak=peak, width=0.03), unit_box, 48)
        threshold = isosurface.automatic_threshold(grid)
        assert 0 < threshold < peak
        mesh = isosurface.extract_surface(grid, threshold)
        # the density fades from 0.47 to 0.53, and what is rendered ends somewhere there
        assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(0.5, abs=0.03 + grid.step / 2)


def test_an_empty_field_is_an_error_that_says_what_to_change(unit_box):
    grid = isosurface.sample_field(lambda p: torch.full_like(p[:, :1], 0.01), unit_box, 16)
    with pytest.raises(ValueError, match=r"empty.*trainer\.max_steps.*isosurface_threshold"):
        isosurface.automatic_threshold(grid)
    with pytest.raises(ValueError, match=r"Lower system.exporter\.isosurface_threshold"):
        isosurface.extract_surface(grid, threshold=0.5)


def test_a_diverged_field_is_an_error(unit_box):
    with pytest.raises(ValueError, match="not finite"):
        isosurface.sample_field(lambda p: p[:, :1] / 0.0, unit_box, 8)


def test_floaters_go_and_large_pieces_stay(fields, unit_box):
    density = fields.sum(
        fields.ball(0.4, (-0.4, 0.0, 0.0)), fields.ball(0.3, (0.5, 0.0, 0.0)), fields.ball(0.1, (0.0, 0.8, 0.8))
    )
    grid = isosurface.sample_field(density, unit_box, 48)
    pieces = [isosurface.extract_surface(grid, 100.0, min_fraction=fraction).body_count for fraction in (0.0, 0.1, 1.0)]
    assert pieces == [3, 2, 1]


def test_simplify_leaves_no_slivers(monkeypatch):
    ball = trimesh.creation.icosphere(subdivisions=2)
    flap = np.array([[0, 1, 2], [0, 2, 1]]) + len(ball.vertices)
    corners = np.array([[3.0, 0, 0], [3.0, 1, 0], [3.0, 0, 1]])
    collapsed = np.concatenate([ball.vertices, corners]), np.concatenate([ball.faces, flap])
    monkeypatch.setattr(isosurface.fast_simplification, "simplify", lambda *args, **kwargs: collapsed)
    mesh = isosurface.simplify(ball.subdivide(), 400)
    assert len(mesh.faces) == len(ball.faces) and len(mesh.vertices) == len(ball.vertices)


def test_simplify_keeps_the_bodies_there_were(monkeypatch):
    ball, crumb = trimesh.creation.icosphere(subdivisions=2), trimesh.creation.icosphere(subdivisions=0)
    two = trimesh.util.concatenate([ball, ball.copy().apply_translation([5, 0, 0])])
    three = trimesh.util.concatenate([crumb.apply_translation([9, 0, 0]), two])
    monkeypatch.setattr(
        isosurface.fast_simplification, "simplify", lambda *args, **kwargs: (three.vertices, three.faces)
    )
    mesh = isosurface.simplify(two.subdivide(), 700)
    assert mesh.body_count == 2 and len(mesh.faces) == 2 * len(ball.faces)


@pytest.mark.parametrize("smoothing", [1.0, 2.0])
def test_smoothing_takes_the_noise_and_leaves_the_surface(fields, unit_box, smoothing):
    grid = isosurface.sample_field(fields.ball(0.6), unit_box, 64)
    rough = isosurface.FieldGrid(
        grid.values * np.random.default_rng(0).lognormal(0, 1, grid.values.shape).astype(np.float32),
        grid.origin,
        grid.step,
    )
    before, after = (isosurface.extract_surface(rough, 100.0, 1.0, True, blur) for blur in (0.0, smoothing))
    sphere = 4 * np.pi * 0.6**2
    assert before.area > 1.2 * sphere and after.area == pytest.approx(sphere, rel=0.1)
    radii = np.linalg.norm(after.vertices, axis=1)
    assert radii.mean() == pytest.approx(0.6, abs=grid.step) and radii.std() < grid.step / 2
    assert after.body_count == 1 and after.is_watertight


def test_smoothing_leaves_a_flat_surface_where_it_is(fields, unit_box):
    """Also where it meets the grid's border, and whatever the density inside."""
    grid = isosurface.sample_field(lambda points: 1000.0 * (points[:, :1] < 0.1), unit_box, 41)
    flat = isosurface.extract_surface(grid, 100.0, smoothing=2.0)
    inner = np.abs(flat.vertices[:, 1:]).max(axis=1) < 0.9
    face = flat.vertices[inner & (flat.vertices[:, 0] > 0)]
    np.testing.assert_allclose(face[:, 0], 0.1, atol=grid.step)


def test_smoothing_spares_what_is_thinner_than_the_blur(fields, unit_box):
    grid = isosurface.sample_field(fields.ball(0.05), unit_box, 41)
    assert isosurface.extract_surface(grid, 100.0, smoothing=5.0).body_count == 1


def shell(opening: float, n: int = 48) -> np.ndarray:
    """A hollow ball of outer radius 20 voxels, inner 14, with a round opening of that radius through its top."""
    x, y, z = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 3, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    return np.where((r < 20) & (r > 14) & ~((np.hypot(x, y) < opening) & (z > 0)), 1.0, 0.0)


def grid_of(values, **options):
    """Values as samples at distances of one."""
    return isosurface.FieldGrid(values, np.zeros(3), 1.0, **options)


@pytest.mark.parametrize("opening", [0.0, 1.0, 3.0])
def test_cavities_behind_pinholes_are_filled(opening):
    mask = isosurface.solid_mask(grid_of(shell(opening)), 0.5, 0.0, fill_cavities=True)
    centre = np.array(mask.shape) // 2
    x, y, z = np.meshgrid(*[np.arange(48) - 23.5] * 3, indexing="ij")
    inside = (np.sqrt(x**2 + y**2 + z**2) <= 14) & (z < 7)  # but for a dimple under the opening
    assert mask[tuple(centre)]
    assert mask[inside].all()
    assert not mask[np.sqrt(x**2 + y**2 + z**2) >= 20].any()


def test_what_is_open_stays_open():
    open_bowl = shell(8.0)
    np.testing.assert_array_equal(
        isosurface.solid_mask(grid_of(open_bowl), 0.5, 0.0, fill_cavities=True), open_bowl > 0.5
    )


def test_cavities_are_filled(fields, unit_box):
    shell = fields.sum(fields.ball(0.6), lambda p: -fields.ball(0.3)(p))
    grid = isosurface.sample_field(lambda p: shell(p).clamp(min=0), unit_box, 48)
    hollow = isosurface.extract_surface(grid, 100.0)
    solid = isosurface.extract_surface(grid, 100.0, fill_cavities=True)
    assert hollow.volume == pytest.approx(4 / 3 * math.pi * (0.6**3 - 0.3**3), rel=0.05)
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.05)
    assert solid.body_count == 1


def test_solid_mask_against_labels(unit_box):
    noise = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    mask = isosurface.solid_mask(grid_of(noise), 0.75, min_fraction=0.5, fill_cavities=False)
    labels, count = ndimage.label(noise > 0.75)
    sizes = [int((labels == label).sum()) for label in range(1, count + 1)]
    expected = np.isin(labels, [label for label in range(1, count + 1) if sizes[label - 1] >= 0.5 * max(sizes)])
    np.testing.assert_array_equal(mask, expected)


def test_simplify_keeps_the_shape(fields, unit_box):
    grid = isosurface.sample_field(fields.ball(0.6, peak=10.0, width=0.1), unit_box, 40)
    mesh = isosurface.extract_surface(grid, 5.0)
    small = isosurface.simplify(mesh, 600)
    assert len(small.faces) <= 600 < len(mesh.faces)
    assert small.is_watertight
    assert small.volume == pytest.approx(mesh.volume, rel=0.02)
    with pytest.raises(ValueError, match="max_faces"):
        isosurface.simplify(mesh, 2)


@pytest.mark.parametrize(("opening", "max_faces"), [(0.4, 2500), (0.45, 3000)])
def test_simplify_keeps_a_sharp_tip_whole(opening, max_faces):
    def cone(p):
        across = (p[:, :2].norm(dim=-1) - (p[:, 2] + 0.6) * opening) / math.hypot(1, opening)
        return -torch.maximum(across, p[:, 2] - 0.6)[:, None]

    box = torch.tensor([[-0.8367] * 3, [0.8367] * 3])
    mesh = isosurface.extract_surface(isosurface.sample_field(cone, box, 64, is_depth=True), 0.0)
    small = isosurface.simplify(mesh, max_faces)
    assert mesh.is_watertight and len(small.faces) <= max_faces
    assert small.is_watertight


def depth_grid(depth, resolution=48):
    """Depths below a surface, sampled in the box from -1 to 1."""
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return isosurface.sample_field(depth, box, resolution, is_depth=True)


def test_a_surface_of_depths_lies_at_zero_to_a_fraction_of_a_voxel():
    mesh = isosurface.extract_surface(depth_grid(lambda p: 0.6 - p.norm(dim=-1, keepdim=True)), 0.0)
    away = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(away - 0.6).max() < 0.002  # voxels are 0.043 wide
    assert mesh.is_watertight and mesh.volume > 0


def test_bodies_that_reach_the_border_are_closed_there():
    mesh = isosurface.extract_surface(depth_grid(lambda p: 0.2 - p[:, 2:]), 0.0)
    assert mesh.is_watertight and mesh.bounds[1][2] == pytest.approx(0.2, abs=0.002)


def test_of_depths_closed_cavities_are_filled_and_pinholes_are_not():
    def bottle(opening):
        def depth(p):
            away = p.norm(dim=-1, keepdim=True)
            wall = torch.minimum(0.6 - away, away - 0.4)
            return torch.where(p[:, 2:] > 0, torch.minimum(wall, p[:, :2].norm(dim=-1, keepdim=True) - opening), wall)

        return isosurface.extract_surface(depth_grid(depth, 64), 0.0, fill_cavities=True)

    ball = 4 / 3 * np.pi * 0.6**3
    assert bottle(0.0).volume == pytest.approx(ball, rel=0.03)
    assert bottle(0.08).volume < 0.8 * ball


def test_floaters_of_depths_are_dropped():
    centres = torch.tensor([[-0.4, 0.0, 0.0], [0.7, 0.0, 0.0]])
    radii = torch.tensor([0.4, 0.1])
    grid = depth_grid(lambda p: (radii - (p[:, None] - centres).norm(dim=-1)).amax(dim=1, keepdim=True))
    assert isosurface.extract_surface(grid, 0.0).body_count == 2
    assert isosurface.extract_surface(grid, 0.0, min_fraction=1.0).body_count == 1


def test_depths_without_an_inside_are_refused():
    with pytest.raises(OptionError, match="the field has no inside: its smallest distance is 0.2"):
        isosurface.extract_surface(depth_grid(lambda p: -0.2 - p.norm(dim=-1, keepdim=True), 49), 0.0)
