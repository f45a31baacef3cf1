"""Baking: the written file shows what the renderer shows, and what was never seen takes its neighbours' colours."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError, host
from latent_prior.meshes import layout, texture_exporter
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.files import linear_to_srgb
from latent_prior.meshes.mesh_exporter import TEXEL
from latent_prior.meshes.texture_exporter import TexturedMeshExporter, filled
from latent_prior.meshes.textured_mesh import TexturedMesh
from meshes.scenes import three_nodes
from PIL import Image

FIELD = {"grid_size": [6, 6, 6], "n_feature_dims": 3, "radius": 0.8}


def exporter_of(mesh, settings=None, **geometry) -> TexturedMeshExporter:
    torch.manual_seed(0)
    textured = TexturedMesh({"mesh": str(mesh), "field": FIELD, **geometry})
    torch.nn.init.normal_(textured.field.grid)
    parts = {"material": host.find("no-material")({}), "background": host.find("solid-color-background")({})}
    return TexturedMeshExporter({"texture_size": 256, **(settings or {})}, geometry=textured, **parts)


ALIVE = []  # the files live as long as their exporter


def written(exporter) -> dict[str, Path]:
    ALIVE.append(exporter)
    return {output.save_name: Path(output.params["src_path"]) for output in exporter()}


def colours(asset: Asset, count=2000):
    """Display colours of a file at random places, and these in the frame of training, faces and weights."""
    draw = np.random.default_rng(0)
    faces = draw.integers(0, sum(len(part.faces) for part in asset.parts), count)
    weights = draw.dirichlet(np.ones(3), count)
    ends = np.cumsum([len(part.faces) for part in asset.parts])
    which = np.searchsorted(ends, faces, side="right")
    shown, points = np.zeros((2, count, 3))
    for index, part in enumerate(asset.parts):
        own = which == index
        corners = part.faces[faces[own] - (ends[index] - len(part.faces))]
        shown[own] = linear_to_srgb(part.colour.at(corners, weights[own])[:, :3])
        points[own] = (weights[own][..., None] * part.vertices[corners]).sum(axis=1)
    return shown, torch.tensor(points, dtype=torch.float32), torch.tensor(faces), torch.tensor(weights).float()


@pytest.mark.parametrize("suffix", ["stl", "glb"])
def test_the_file_has_the_fields_colours_where_they_are(suffix, tmp_path):
    mesh = tmp_path / f"ball.{suffix}"
    trimesh.creation.icosphere(2, 5.0).export(mesh)
    exporter = exporter_of(mesh)
    files = written(exporter)
    assert list(files) == ["model_texture.png", "model.glb"]
    assert Image.open(files["model_texture.png"]).size == (256, 256)
    after = Asset.read(files["model.glb"])
    shown, points, faces, weights = colours(after)
    geometry = exporter.geometry
    world = torch.tensor(geometry.asset.world(points.numpy()), dtype=torch.float32)
    expected = torch.sigmoid(geometry.features_at(world, faces, weights)).detach().numpy()
    assert np.abs(shown - expected).mean() < 0.01 and np.abs(shown - expected).max() < 0.15
    np.testing.assert_allclose(
        after.parts[0].vertices.min(axis=0), geometry.asset.parts[0].vertices.min(axis=0), atol=1e-6
    )


def test_other_parts_stay_as_they_are(tmp_path):
    (tmp_path / "scene.glb").write_bytes(three_nodes().to_glb())
    before = Asset.read(tmp_path / "scene.glb")
    exporter = exporter_of(tmp_path / "scene.glb", parts=["lamp"])
    after = Asset.read(written(exporter)["model.glb"])
    assert [part.name for part in after.parts] == [part.name for part in before.parts]
    pairs = list(zip(before.parts, after.parts, strict=True))
    chosen = [part.selected for part in exporter.geometry.asset.parts]
    for (old, new), painted in zip(pairs, chosen, strict=True):
        if not painted:
            np.testing.assert_array_equal(old.vertices, new.vertices)
            corners, middle = old.faces[:2], np.full((2, 3), 1 / 3)
            np.testing.assert_array_equal(old.colour.at(corners, middle), new.colour.at(corners, middle))
        else:
            assert new.colour.picture is not None
    assert 0 < sum(chosen) < len(chosen)


def test_formats_and_their_files(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.obj")
    files = written(exporter_of(tmp_path / "box.obj", {"fmt": "glb,obj,ply", "save_name": "box", "texture_size": 64}))
    assert set(files) == {"box.glb", "box.obj", "box.mtl", "box.png", "box.ply", "box_texture.png"}
    ply = trimesh.load(files["box.ply"], process=False)
    assert len(np.unique(np.asarray(ply.visual.vertex_colors), axis=0)) > 4


def test_latents_are_exported_through_a_map(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.stl")
    field = FIELD | {"n_feature_dims": 4}
    exporter = exporter_of(tmp_path / "box.stl", field=field)
    exporter._parts = (
        exporter.geometry,
        host.find("no-material")({"n_output_dims": 4, "color_activation": "none"}),
        None,
    )
    with pytest.raises(OptionError, match="the field has 4 channels, which are latents"):
        exporter()
    exporter.to_rgb = lambda latents: torch.sigmoid(latents[:, 1:])
    shown, points, *_ = colours(Asset.read(written(exporter)["model.glb"]))
    world = torch.tensor(exporter.geometry.asset.world(points.numpy()), dtype=torch.float32)
    expected = torch.sigmoid(exporter.geometry.field.export(points=world)["features"][:, 1:]).detach().numpy()
    assert np.abs(shown - expected).mean() < 0.02


def test_unseen_places_take_the_colour_of_seen_ones_on_their_side(tmp_path, capsys):
    """A thin plate, seen from above but for a hole in the middle, and from below: red above, blue below."""
    plate = trimesh.creation.box((2, 2, 0.02))
    plate.subdivide().subdivide().subdivide().export(tmp_path / "plate.stl")
    exporter = exporter_of(tmp_path / "plate.stl", {"texture_size": 128})
    geometry = exporter.geometry

    def features_at(points, faces, weights):
        hole = points[:, :2].norm(dim=-1, keepdim=True) < 0.2
        colour = torch.where(points[:, 2:] > 0, torch.tensor([9.0, -9, -9]), torch.tensor([-9.0, -9, 9]))
        return torch.where(hole & (points[:, 2:] > 0), torch.tensor([-9.0, 9, -9]), colour)

    geometry.features_at = features_at
    geometry.was_seen = lambda points, faces: (points[:, :2].norm(dim=-1) >= 0.2) | (points[:, 2] <= 0)
    shown, points, *_ = colours(Asset.read(written(exporter)["model.glb"]))
    world = geometry.asset.world(points.numpy())
    flat = np.abs(world[:, :2]).max(axis=1) < 0.5
    above = world[flat, 2] > 0
    assert (shown[flat][above] > [0.9, -1, -1]).all() and (shown[flat][above] < [2, 0.1, 0.1]).all()
    assert (shown[flat][~above] > [-1, -1, 0.9]).all()


def test_filling_is_the_mean_by_distance():
    points, normals = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]), np.tile([0.0, 0, 1], (3, 1))
    colours = np.array([[1.0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 1]])
    found = filled(colours, np.array([True, False, True]), points, normals)
    np.testing.assert_allclose(found, [[1, 0, 0], [2 / 3, 0, 1 / 3], [0, 0, 1]], atol=1e-6)
    np.testing.assert_array_equal(filled(colours, np.zeros(3, bool), points, normals), colours)


def test_the_memory_that_is_checked_for_is_what_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "BAND", 1 << 13)
    monkeypatch.setattr(texture_exporter, "CHUNK", 1 << 13)
    trimesh.creation.icosphere(3).export(tmp_path / "ball.stl")
    exporter = exporter_of(tmp_path / "ball.stl", {"texture_size": 512})
    exporter.geometry.seen[: len(exporter.geometry.seen) // 2] = True
    tracemalloc.start()
    try:
        written(exporter)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 < peak / (4 * TEXEL * 512**2) < 1.3


def test_bad_settings_are_refused_before_training(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.stl")
    for settings, message in [
        ({"fmt": "stl"}, "system.exporter.fmt is 'stl'; expected some of glb, obj, ply"),
        ({"texture_size": 0}, "system.exporter.texture_size is 0; expected a positive number"),
        ({"texture_size": 10**7}, "system.exporter.texture_size=10000000: needs"),
        ({"save_name": "../x"}, "system.exporter.save_name is '../x'; expected a file's name"),
    ]:
        with pytest.raises(OptionError, match=message):
            exporter_of(tmp_path / "box.stl", settings)
