"""Silhouettes of meshes whose triangles are smaller than a pixel: areas, their derivatives, inner silhouettes, odd meshes.

The oracles are closed forms, coverage counted on a picture eight times finer, and the same surface in large triangles.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trimesh
from latent_prior import rasteriser
from latent_prior.rasteriser import silhouettes
from reference.clip_meshes import seen
from scipy.spatial import ConvexHull

CONTEXT = rasteriser.RasterizeCudaContext()
SIZE = 64
FINER = 8


def picture(pos, tri, shade=None, size=SIZE, blended=True):
    """A mesh in the shades of its triangles, white without any, on black."""
    rast, _ = rasteriser.rasterize(CONTEXT, pos[None], tri, (size, size))
    number = rast[..., 3:].long()
    color = (number > 0).double() if shade is None else F.pad(shade, (1, 0))[number]
    return (rasteriser.antialias(color, rast, pos[None], tri) if blended else color)[0, ..., 0]


def supersampled(pos, tri, shade=None, size=SIZE):
    fine = picture(pos, tri, shade, FINER * size, blended=False)
    return F.avg_pool2d(fine[None], FINER)[0]


def disc(rings, around):
    """(points V 3, triangles, area) of a polygon of radius 1: a fan, or rings around one."""
    radius, angle = (torch.arange(1, rings + 1) / rings).double(), torch.arange(around).double() * 2 * math.pi / around
    points = (radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], 1)).reshape(-1, 2)
    index = torch.arange(rings * around).reshape(rings, around) + 1
    fan = torch.stack([torch.zeros_like(index[0]), index[0], index[0].roll(-1)], 1)
    a, b, c, d = index[:-1], index[:-1].roll(-1, 1), index[1:].roll(-1, 1), index[1:]
    tri = torch.cat([fan, *(torch.stack(corners, -1).reshape(-1, 3) for corners in ((a, d, c), (a, c, b)))])
    return F.pad(points, (0, 1, 1, 0)), tri.int(), around / 2 * math.sin(2 * math.pi / around)


def solid(mesh):
    return torch.tensor(np.array(mesh.vertices)), torch.tensor(np.array(mesh.faces)).int()


def flat(points):
    """Clip coordinates of points seen straight on from infinity."""
    return F.pad(points, (0, 1), value=1.0)


def perspective(points):
    return seen(points, [0.3])[0]


def derivative(area, at):
    """An area, and its derivative by a number."""
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    found = area(x)
    return found.item(), torch.autograd.grad(found, x)[0].item()


def difference(area, at, step=0.02):
    return ((area(at + step) - area(at - step)) / (2 * step)).item()


# Straight borders are exact in each row or column; where these take over from each other, at 45 degrees, and at corners
# up to half a pixel is lost or won. A circle has eight such places, whose errors are independent.
AREA = 1.0  # pixels, of some 1500; measured: up to 0.4


@pytest.mark.parametrize(
    "rings, around", [(1, 8), (1, 20), (1, 100), (1, 1000), (1, 10_000), (5, 40), (20, 100), (39, 260)]
)
def test_a_disc_has_its_area_however_it_is_divided(rings, around):
    points, tri, area = disc(rings, around)
    shift = torch.tensor([0.013, 0.021, 0.0], dtype=torch.float64)

    def covered(radius, render=picture):
        return render(flat(points * radius + shift), tri).sum()

    found, slope = derivative(covered, 0.7)
    assert found == pytest.approx(area * (SIZE / 2 * 0.7) ** 2, abs=AREA)
    assert slope == pytest.approx(2 * area * (SIZE / 2) ** 2 * 0.7, rel=0.1)


def test_a_fan_of_so_many_needles_that_some_ways_end_loses_little():
    """20,000 of them are 140 to a pixel of the outline, of which a way at 45 degrees would have to cross 70."""
    points, tri, area = disc(1, 20_000)
    found, slope = derivative(lambda radius: picture(flat(points * radius), tri).sum(), 0.7)
    assert found == pytest.approx(area * (SIZE / 2 * 0.7) ** 2, rel=0.005)
    assert slope == pytest.approx(2 * area * (SIZE / 2) ** 2 * 0.7, rel=0.15)


@pytest.mark.parametrize("subdivisions", range(2, 7))
def test_a_sphere_covers_the_hull_of_its_corners(subdivisions):
    points, tri = solid(trimesh.creation.icosphere(subdivisions))
    corners = perspective(0.9 * points)
    outline = ConvexHull((corners[:, :2] / corners[:, 3:]).numpy() * SIZE / 2)

    def covered(radius, render=picture):
        return render(perspective(points * radius), tri).sum()

    found, slope = derivative(covered, 0.9)
    assert found == pytest.approx(outline.volume, abs=AREA)  # in the plane the "volume" is the area
    assert slope == pytest.approx(difference(lambda radius: covered(radius, supersampled), 0.9), rel=0.1)


def half_sphere():
    sphere = latitudes(40)
    return solid(trimesh.Trimesh(sphere.vertices, sphere.faces[sphere.triangles_center[:, 1] < 0.3], process=False))


SOLIDS = {
    "sphere": lambda: solid(trimesh.creation.icosphere(4)),
    "torus": lambda: solid(trimesh.creation.torus(0.7, 0.25, 80, 48)),
    "sphere with a hole": half_sphere,
    "box": lambda: solid(trimesh.creation.box((1.1, 0.8, 0.9)).subdivide_to_size(0.05)),
    "sphere of latitudes, with triangles without area at the poles": lambda: solid(latitudes(40)),
}


def latitudes(rows):
    latitude, longitude = np.linspace(0, np.pi, rows + 1)[:, None], np.arange(2 * rows) * np.pi / rows
    axis = np.stack(np.broadcast_arrays(np.sin(latitude), np.cos(latitude), 0), -1)
    points = axis[..., [0, 1, 2]] * np.stack([np.cos(longitude), np.ones(2 * rows), np.zeros(2 * rows)], -1)
    points[..., 2] = np.sin(latitude) * np.sin(longitude)
    index = np.arange((rows + 1) * 2 * rows).reshape(rows + 1, -1)
    a, b, c, d = index[:-1], np.roll(index[:-1], -1, 1), np.roll(index[1:], -1, 1), index[1:]
    faces = np.concatenate([np.stack(corners, -1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))])
    return trimesh.Trimesh(points.reshape(-1, 3), faces, process=False)


@pytest.mark.parametrize("name", SOLIDS)
def test_pictures_are_nearly_those_of_eight_times_finer_ones(name):
    points, tri = SOLIDS[name]()
    pos = perspective(0.9 * points)
    depth = (pos[:, 3] - 3)[tri.long()].mean(1)  # of the middle of each triangle: it jumps at inner silhouettes
    for colors in (None, 0.5 + depth / 4):
        fine = supersampled(pos, tri, colors)
        errors = [(picture(pos, tri, colors, blended=blended) - fine).abs().mean() for blended in (True, False)]
        assert errors[0] < 0.3 * errors[1]  # measured: up to 0.26, much of it the triangles' flat shades


@pytest.mark.parametrize("name", SOLIDS)
def test_a_half_visible_solid_changes_its_area_by_moving(name):
    points, tri = SOLIDS[name]()
    at = perspective(0.9 * points)

    def covered(x, render=picture):
        return render(at + x * at[:, 3:] * torch.eye(4, dtype=at.dtype)[0], tri).sum()

    _, slope = derivative(covered, 0.93)
    wanted = difference(lambda x: covered(x, supersampled), 0.93)
    assert wanted < -500 and slope == pytest.approx(wanted, rel=0.1)


def grid(left, right, bottom, top, columns, rows, w):
    """A rectangle of the screen, tilted in depth by its corners' w, as two triangles, and in many."""
    corners = torch.tensor(
        [[left, bottom, 0, 1], [right, bottom, 0, 1], [left, top, 0, 1], [right, top, 0, 1]]
    ).double()
    corners *= torch.tensor(w)[:, None]
    x, y = (torch.linspace(0, 1, count + 1).double() for count in (columns, rows))
    weights = torch.einsum("ri,cj->rcij", torch.stack([1 - y, y], 1), torch.stack([1 - x, x], 1)).reshape(-1, 4)
    index = torch.arange(len(weights)).reshape(rows + 1, columns + 1)
    a, b, c, d = (part.reshape(-1) for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return corners, weights, torch.cat([torch.stack([a, b, d], 1), torch.stack([a, d, c], 1)]).int()


@pytest.mark.parametrize("w", [(1.0, 1.0, 1.0, 1.0), (0.7, 2.0, 0.7, 2.0)])
@pytest.mark.parametrize("columns, rows", [(2, 3), (40, 30), (64, 64), (300, 7)])
def test_a_rectangle_does_not_show_how_it_is_divided(w, columns, rows):
    """Values and gradients; in the second picture lines of the grid run through the pixels' centres."""
    for size, (left, right, bottom, top) in ((16, (-0.513, 0.471, -0.62, 0.33)), (17, (-0.5, 0.5, -0.25, 0.5))):
        weight = torch.rand(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        results = []
        for count in ((1, 1), (columns, rows)):
            corners, weights, tri = grid(left, right, bottom, top, *count, w)
            corners.requires_grad_()
            found = picture(weights @ corners, tri, size=size)
            results.append((found.detach(), *torch.autograd.grad((found * weight).sum(), corners)))
        assert ((results[0][0] > 0) & (results[0][0] < 1)).sum() > 10
        for coarse, fine in zip(*results, strict=True):
            torch.testing.assert_close(fine, coarse, rtol=1e-9, atol=1e-9)


def test_a_sphere_in_front_of_a_plane_is_blended_with_it_and_moves_alone():
    sphere, ball = solid(trimesh.creation.icosphere(5))
    _, weights, plane = grid(-9, 9, -9, 9, 200, 200, (1.0,) * 4)
    wall = weights @ torch.tensor([[-9, -9, -1], [9, -9, -1], [-9, 9, -1], [9, 9, -1.0]], dtype=torch.float64)
    tri = torch.cat([ball, plane + len(sphere)])
    shade = torch.cat([torch.full((len(ball),), 0.9), torch.full((len(plane),), 0.3)]).double()
    size = 0.7

    def sum_of(radius, render=picture):
        return render(perspective(torch.cat([sphere * radius, wall])), tri, shade).sum()

    pos = perspective(torch.cat([sphere * size, wall])).requires_grad_()
    found = picture(pos, tri, shade)
    fine = supersampled(pos.detach(), tri, shade)
    errors = [(picture(pos, tri, shade, blended=blended) - fine).abs().mean().item() for blended in (True, False)]
    assert errors[0] < 0.2 * errors[1]
    pure = (F.max_pool2d(fine[None], 3, 1, 1) == -F.max_pool2d(-fine[None], 3, 1, 1))[0]  # with all its neighbours
    assert pure.sum() > 1000
    torch.testing.assert_close(found[pure], fine[pure])

    (gradient,) = torch.autograd.grad(found.sum(), pos)
    assert gradient[: len(sphere)].abs().sum() > 0 and (gradient[len(sphere) :] == 0).all()
    assert derivative(sum_of, size)[1] == pytest.approx(difference(lambda x: sum_of(x, supersampled), size), rel=0.1)


def test_a_way_over_too_many_triangles_ends_without_a_silhouette(monkeypatch):
    corners, weights, tri = grid(-0.513, 0.471, -0.62, 0.33, 8 * 20, 1, (1.0,) * 4)  # 40 edges to a pixel
    middle = slice(3, 5), slice(None)  # rows that only the left and the right border cross
    assert (picture(weights @ corners, tri, size=8)[middle] % 1 > 0).sum() == 4
    monkeypatch.setattr(silhouettes, "MAX_STEPS", 3)
    assert (picture(weights @ corners, tri, size=8)[middle] % 1 > 0).sum() == 0
