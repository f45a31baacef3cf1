"""Winding numbers against closed forms and slow loops; orientation of pieces that are wound the wrong way."""

import math

import numpy as np
import pytest
import torch
import trimesh
from latent_prior.meshes.winding import winding_number, wound_outwards


def winding(mesh: trimesh.Trimesh, points) -> torch.Tensor:
    where = torch.as_tensor(np.asarray(points), dtype=torch.float64).view(-1, 3)
    return winding_number(where, torch.tensor(mesh.vertices), torch.tensor(mesh.faces))


def ball(centre=(0, 0, 0), radius=1.0, subdivisions=2) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius).apply_translation(centre)


def bowl(count=64) -> trimesh.Trimesh:
    """The half of a ball of radius 1 below z = 0, open at the top."""
    mesh = trimesh.creation.uv_sphere(1.0, [count, count])
    mesh.update_faces(mesh.triangles_center[:, 2] < 0)
    return mesh


def flipped(mesh: trimesh.Trimesh, faces=slice(None)) -> trimesh.Trimesh:
    changed = mesh.faces.copy()
    changed[faces] = changed[faces][:, ::-1]
    return trimesh.Trimesh(mesh.vertices, changed, process=False)


def joined(*meshes: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.util.concatenate(meshes)


def slow(mesh: trimesh.Trimesh, point: np.ndarray) -> float:
    """The area of each face projected onto the unit sphere around the point: by its angles (Girard)."""
    total = 0.0
    for face in mesh.triangles:
        a, b, c = ((corner - point) / np.linalg.norm(corner - point) for corner in face)
        angles = []
        for p, q, r in ((a, b, c), (b, c, a), (c, a, b)):
            u, v = np.cross(p, q), np.cross(p, r)
            angles.append(math.acos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1)))
        total += math.copysign(sum(angles) - math.pi, np.linalg.det([a, b, c]))
    return total / (4 * math.pi)


def crossings(mesh: trimesh.Trimesh, point: np.ndarray) -> int:
    """How many faces lie above the point, along z."""
    count = 0
    for corners in mesh.triangles:
        try:
            weights = np.linalg.solve(np.vstack([corners[:, :2].T, np.ones(3)]), [*point[:2], 1])
        except np.linalg.LinAlgError:  # the face is vertical
            continue
        count += bool((weights >= 0).all() and weights @ corners[:, 2] > point[2])
    return count


def test_closed_solids_against_the_parity_of_crossings():
    g = np.random.default_rng(0)
    for mesh in (ball(subdivisions=1), trimesh.creation.torus(0.7, 0.3, 8, 8), trimesh.creation.box((1, 0.3, 1.2))):
        points = g.uniform(-1, 1, (60, 3))
        expected = torch.tensor([crossings(mesh, point) % 2 for point in points]).double()
        assert 0 < expected.mean() < 1
        torch.testing.assert_close(winding(mesh, points), expected, atol=1e-9, rtol=0)


def test_single_precision_is_enough():
    mesh, points = ball(subdivisions=3), torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    points = points[(points.norm(dim=1) - 1).abs() > 0.02]
    found = winding_number(points, torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces))
    torch.testing.assert_close(found, (points.norm(dim=1) < 1).float(), atol=2e-4, rtol=0)


def test_any_mesh_against_a_slow_loop():
    g = np.random.default_rng(1)
    mesh = trimesh.Trimesh(g.normal(size=(9, 3)), g.integers(0, 9, (12, 3)), process=False)
    mesh.update_faces(mesh.nondegenerate_faces())
    points = g.normal(size=(20, 3))
    torch.testing.assert_close(winding(mesh, points), torch.tensor([slow(mesh, p) for p in points]).double())


@pytest.mark.parametrize("height", [-3.0, -0.5, 0.3, 1.0, 4.0])
def test_an_open_bowl_against_the_solid_angle_of_its_opening(height):
    """On the axis, the bowl and the disc over its opening enclose the point or not; the disc is a cone's solid angle."""
    cone = math.copysign((1 - abs(height) / math.hypot(1, height)) / 2, height)
    expected = (1.0 if -1 < height < 0 else 0.0) + cone
    assert winding(bowl(), [0, 0, height]).item() == pytest.approx(expected, abs=2e-3)


def test_moving_and_scaling_both_changes_nothing():
    mesh, points = bowl(8), np.random.default_rng(2).uniform(-2, 2, (50, 3))
    moved = mesh.copy().apply_scale(7).apply_translation([30, -4, 9])
    torch.testing.assert_close(winding(moved, points * 7 + [30, -4, 9]), winding(mesh, points))
    torch.testing.assert_close(winding(flipped(mesh), points), -winding(mesh, points))


def test_it_adds_up_over_pieces():
    pieces = ball((0.4, 0, 0), 0.8), trimesh.creation.box((1, 1, 1)), bowl(8)
    points = np.random.default_rng(3).uniform(-1, 1, (50, 3))
    torch.testing.assert_close(winding(joined(*pieces), points), sum(winding(piece, points) for piece in pieces))


def test_every_piece_is_wound_outwards():
    box, far = trimesh.creation.box((1, 1, 1)), ball((3, 0, 0), 0.5)
    some = np.random.default_rng(4).random(len(box.faces)) < 0.5
    sheet = trimesh.Trimesh([[0, 0, 5], [1, 0, 5], [0, 1, 5]], [[0, 1, 2]])
    cases = {
        "right already": (joined(box, far), joined(box, far)),
        "one of two": (joined(box, far), joined(box, flipped(far))),
        "both": (joined(box, far), joined(flipped(box), flipped(far))),
        "some faces of one": (box, flipped(box, some)),
        "overlapping": (joined(box, ball((0.5, 0, 0), 0.5)), joined(flipped(box), ball((0.5, 0, 0), 0.5))),
        "open": (bowl(8), flipped(bowl(8))),
        "flat": (sheet, sheet),
        "flat the other way": (flipped(sheet), flipped(sheet)),
        "a cavity, which is filled": (joined(box, ball((0, 0, 0), 0.3)), joined(box, flipped(ball((0, 0, 0), 0.3)))),
    }
    for case, (expected, given) in cases.items():
        before = given.faces.copy()
        found = wound_outwards(given)
        np.testing.assert_allclose(found.face_normals, expected.face_normals, atol=1e-9, err_msg=case)
        np.testing.assert_array_equal(given.faces, before, err_msg=f"{case}: the given mesh changed")
