"""Faults and measures of meshes that are known: spheres, shells, boxes, lids."""

import numpy as np
import pytest
import trimesh
from latent_prior.evaluate.text_to_3d import solid, surface


def ball(radius, at=(0.0, 0.0, 0.0), fineness=3):
    mesh = trimesh.creation.icosphere(subdivisions=fineness, radius=radius)
    mesh.apply_translation(at)
    return mesh


def both(*meshes):
    return trimesh.util.concatenate(meshes)


def test_a_larger_ball_has_its_area_and_volume():
    figures = solid.figures(ball(0.66, fineness=5), "sphere")  # the world's has radius 0.6
    assert figures.area == pytest.approx(1.1**2, rel=0.01) and figures.volume == pytest.approx(1.1**3, rel=0.01)
    assert max(figures.normals_to, figures.normals_from) < 3
    assert figures.watertight and figures.crossings == figures.hidden == 0 and figures.hollow is None


def test_normals_are_compared_both_ways():
    corners = [[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]]
    flat = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]])
    rough = trimesh.Trimesh(*_sawtooth())
    to, back = solid.normal_errors(rough, flat)
    assert 40 < to < 50 and 40 < back < 50  # teeth of 45 degrees
    assert max(solid.normal_errors(flat, flat.copy())) < 1e-6


def _sawtooth(teeth=40):
    """A strip in the unit square of which every face stands at 45 degrees."""
    x = np.linspace(-0.5, 0.5, 2 * teeth + 1)
    z = np.where(np.arange(len(x)) % 2, 0.5 / teeth, 0.0)
    front, rear = np.stack([x, 0 * x - 0.5, z], 1), np.stack([x, 0 * x + 0.5, z], 1)
    i, n = np.arange(2 * teeth), len(x)
    faces = np.concatenate([np.stack([i, i + 1, i + n], 1), np.stack([i + 1, i + n + 1, i + n], 1)])
    return np.concatenate([front, rear]), faces


def test_faces_that_pass_through_one_another_are_counted():
    assert solid.crossings(ball(0.5)) == 0
    assert solid.crossings(both(ball(0.3), ball(0.3, (0.7, 0, 0)))) == 0
    assert solid.crossings(both(ball(0.3), ball(0.3, (0.3, 0, 0)))) > 20
    needle = trimesh.Trimesh([[0.05, 0.02, -1], [0.05, 0.02, 1], [0.06, 0.02, 1]], [[0, 1, 2]], process=False)
    plate = trimesh.Trimesh([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    assert solid.crossings(both(needle, plate)) == 1
    for mesh in map(surface.truth_mesh, ("mug", "chair")):
        assert solid.crossings(mesh) == 0


def test_a_piece_inside_of_another_is_hidden():
    assert solid.hidden_pieces(ball(0.5)) == 0
    assert solid.hidden_pieces(both(ball(0.5), ball(0.2))) == 1
    assert solid.hidden_pieces(both(ball(0.3), ball(0.2, (0.6, 0, 0)))) == 0
    open_below = ball(0.5)
    open_below.update_faces(open_below.triangles_center[:, 2] > -0.2)
    assert solid.hidden_pieces(both(open_below, ball(0.2))) == 0  # seen from below


def test_the_thinnest_wall():
    outside, inside = ball(0.5, fineness=4), ball(0.44, fineness=4)
    inside.invert()
    assert solid.thinnest_wall(both(outside, inside)) == pytest.approx(0.06, abs=0.005)
    assert solid.thinnest_wall(trimesh.creation.box((1.0, 0.8, 0.1))) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("kind", list(solid.HOLLOW))
def test_a_hollow_is_as_deep_as_the_truths_and_a_lid_takes_it_away(kind):
    truth = surface.truth_mesh(kind)
    assert solid.figures(truth, kind).hollow == pytest.approx(1, abs=1e-3)
    lid = trimesh.creation.cylinder(radius=0.5, height=0.02)
    lid.apply_translation((0, 0, truth.vertices[:, 2].max()))
    assert solid.hollow_depth(both(truth, lid), kind) / solid.hollow_depth(truth, kind) < 0.1
    assert solid.hollow_depth(truth.convex_hull, kind) / solid.hollow_depth(truth, kind) < 0.4
