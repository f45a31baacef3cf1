"""Meshes against the truth's: bodies, colours, distances."""

import numpy as np
import pytest
import torch
import trimesh
from latent_prior.evaluate.text_to_3d import measure, surface
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.files import save_mesh
from latent_prior.pocket import renderer
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.palette import COLOURS

KIND = "duck"


def painted(subject):
    """The truth's mesh in the subject's own shaded colours."""
    mesh = surface.truth_mesh(subject.kind).copy()
    points = torch.tensor(np.array(mesh.vertices), dtype=torch.float32)
    normals = renderer.normals(subject.kind, points)
    rgb = torch.tensor(subject.rgb).expand_as(points)
    colours = renderer.shade(subject, rgb, points, normals, surface.FACING * normals)
    mesh.visual.vertex_colors = (colours.numpy() * 255).round().astype(np.uint8)
    return mesh


def measured(subject, path):
    """The figures of a file, without a judge."""
    return measure.measure_mesh(subject, measure.read_mesh(path), judge=None)


@pytest.mark.parametrize("surface_name", ["plain", "striped", "checkered", "golden"])
def test_every_colour_is_named_right_also_when_lighter_or_darker(surface_name):
    colours = ["golden"] if surface_name == "golden" else list(COLOURS)
    # black with white and white with grey are not far from each other
    change = 0.03 if surface_name in ("striped", "checkered") else 0.08
    for colour in colours:
        mean = np.array(surface.truth_mean_colours(KIND, surface_name)[colour])
        for light in (1 - change, 1.0, 1 + change):
            assert surface.nearest_colour((mean * light).clip(0, 1), KIND, surface_name) == colour


def test_the_colour_of_a_painted_truth(tmp_path):
    save_mesh(painted(Subject(KIND, "purple")), tmp_path / "m.ply")
    expected = surface.truth_mean_colours(KIND, "plain")["purple"]
    np.testing.assert_allclose(surface.mean_colour(Asset.read(tmp_path / "m.ply")), expected, atol=3 / 255)


def test_bodies_are_counted_by_place_not_by_vertex():
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
    torn = trimesh.Trimesh(ball.triangles.reshape(-1, 3), np.arange(len(ball.faces) * 3).reshape(-1, 3), process=False)
    assert surface.count_bodies(torn) == 1
    other = torn.copy()
    other.apply_translation((1, 0, 0))
    assert surface.count_bodies(trimesh.util.concatenate([torn, other])) == 2


def test_the_truth_is_one_body_at_no_distance_from_itself():
    assert surface.truth_bodies(KIND) == 1
    spacing = np.sqrt(surface.truth_mesh(KIND).area / surface.SAMPLES)
    assert surface.chamfer_to_truth(surface.truth_mesh(KIND), KIND) < 0.6 * spacing


def test_distance_of_a_grown_ball_is_its_growth():
    grown = trimesh.creation.icosphere(subdivisions=4, radius=0.7)  # the world's sphere has radius 0.6
    assert surface.chamfer_to_truth(grown, "sphere") == pytest.approx(0.1, abs=0.005)


def test_a_mesh_file_is_measured_whatever_its_format(tmp_path):
    subject = Subject(KIND, "turquoise")
    for suffix in ("glb", "ply", "obj"):
        save_mesh(painted(subject), tmp_path / f"m.{suffix}")
        figures = measured(subject, tmp_path / f"m.{suffix}")
        assert figures.loads and figures.one_body and figures.colour_right
        assert figures.chamfer < 0.02
    assert not measured(Subject(KIND, "blue"), tmp_path / "m.glb").colour_right


def test_two_bodies_where_the_truth_is_one(tmp_path):
    stray = trimesh.creation.icosphere(subdivisions=1, radius=0.05)
    stray.apply_translation((0.7, 0.7, 0.7))
    stray.visual.vertex_colors = [0, 0, 0, 255]
    save_mesh(trimesh.util.concatenate([painted(Subject(KIND, "red")), stray]), tmp_path / "m.glb")
    figures = measured(Subject(KIND, "red"), tmp_path / "m.glb")
    assert figures.bodies == 2 and not figures.one_body


def test_a_mesh_that_is_missing_or_broken_is_a_figure_not_an_error(tmp_path):
    (tmp_path / "broken.glb").write_bytes(b"glTF nonsense")
    for path in (None, tmp_path / "nowhere.glb", tmp_path / "broken.glb"):
        figures = measured(Subject(KIND, "red"), path)
        assert not (figures.loads or figures.one_body or figures.colour_right)
