"""Which triangle a pixel sees, against a loop over pixels and triangles, and where ties decide."""

import math

import pytest
import torch
from latent_prior.rasteriser import visibility
from reference.clip_meshes import random_mesh
from reference.rasteriser import visible


def visible_triangles(pos, *rest):
    """In one view."""
    return visibility.visible_triangles(pos[None], *rest)[0]


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_it_is_that_of_a_loop_on_random_meshes(first):
    covered = ties = 0
    for seed in range(first, first + 50):
        pos, tri, height, width = random_mesh(seed)
        found = visible_triangles(pos, tri, height, width).flatten().tolist()
        wanted = visible(pos.numpy(), tri.numpy(), height, width)
        for pixel, (face, (_, _, allowed)) in enumerate(zip(found, wanted, strict=True)):
            assert face in allowed, f"mesh {seed}, pixel {pixel}: {face} is not among {allowed}"
        covered += sum(face >= 0 for face in found)
        ties += sum(len(allowed) > 1 for *_, allowed in wanted)
    assert covered > 400 and ties < 0.05 * covered


def test_it_does_not_depend_on_how_the_work_is_split(monkeypatch):
    meshes = [random_mesh(seed) for seed in range(12)]
    whole = [visible_triangles(*mesh) for mesh in meshes]
    monkeypatch.setattr(visibility, "PIXELS_AT_ONCE", 5)
    for mesh, wanted in zip(meshes, whole, strict=True):
        torch.testing.assert_close(visible_triangles(*mesh), wanted)


def test_views_do_not_depend_on_each_other():
    views = 0
    for seed in range(40):
        pos, *rest = random_mesh(seed)
        poses = torch.stack([pos, pos.flip(0), pos * torch.tensor([-1, 1, 1, 1]), pos * torch.tensor([1, 1, 1, -1])])
        found = visibility.visible_triangles(poses, *rest)
        torch.testing.assert_close(found, torch.stack([visible_triangles(pos, *rest) for pos in poses]))
        views += len({tuple(view.flatten().tolist()) for view in found})
    assert views > 80  # different ones


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spokes", [8, 16])
def test_a_fan_whose_spokes_pass_through_pixel_centres_has_no_hole(spokes, dtype):
    size, hub = 9, torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    angle = torch.arange(spokes) * (2 * math.pi / spokes)
    rim = torch.stack([angle.cos() * 2, angle.sin() * 2, torch.zeros(spokes), torch.ones(spokes)], 1)
    w = torch.linspace(0.3, 3, spokes + 1)[:, None]  # seen in perspective
    pos = (torch.cat([hub, rim]) * w).to(dtype)
    k = torch.arange(spokes)
    tri = torch.stack([torch.zeros_like(k), k + 1, (k + 1) % spokes + 1], 1).int()
    for turned in (tri, tri.flip(1), torch.where(k[:, None] % 2 == 0, tri, tri.flip(1))):
        assert (visible_triangles(pos, turned, size, size) >= 0).all()


def test_a_grid_with_corners_and_edges_at_pixel_centres_has_no_hole():
    size = 8
    at = (torch.arange(size) * 2 + 1) / size - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    pos = torch.stack([x, y, 0 * x, torch.ones_like(x)], -1).reshape(-1, 4)
    corner = torch.arange(size * size).reshape(size, size)
    a, b, c, d = (part.reshape(-1) for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    tri = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]).int()
    found = visible_triangles(pos, tri, size, size)
    assert (found >= 0).all()
    assert found[3, 3] == min(f for f, face in enumerate(tri.tolist()) if 3 * size + 3 in face)  # the lowest of a tie


def test_what_is_degenerate_or_not_a_number_covers_nothing():
    pos = torch.tensor([[-9.0, -9, 0, 1], [9, 9, 0, 1], [0, 0, 0, 1], [-9, 9, 0, 1], [torch.nan, 0, 0, 1]])
    for face in ([0, 1, 2], [0, 0, 3], [0, 3, 0], [1, 3, 3], [2, 2, 2], [0, 3, 4], [4, 4, 4]):
        assert (visible_triangles(pos, torch.tensor([face]).int(), 9, 9) == -1).all(), face
    assert (visible_triangles(pos, torch.zeros(0, 3).int(), 9, 9) == -1).all()
    assert (visible_triangles(pos, torch.tensor([[0, 1, 3]]).int(), 9, 9) == 0).sum() == 45  # the diagonal included


def test_depth_is_clipped_at_both_ends():
    pos = torch.tensor([[-4.0, -1, -2, 1], [4, -1, 2, 1], [-4, 1, -2, 1], [4, 1, 2, 1]])  # z = x / 2
    tri = torch.tensor([[0, 1, 3], [0, 3, 2]]).int()
    assert (visible_triangles(pos, tri, 3, 5) >= 0).all()
    pos[:, 2] *= 4  # z = 2 x: only |x| <= 1/2 is left
    assert (visible_triangles(pos, tri, 3, 5)[1] >= 0).tolist() == [False, True, True, True, False]
