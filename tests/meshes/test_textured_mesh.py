"""The geometry of a given mesh: where it lies, its own colours, what its field adds, and what it refuses."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError
from latent_prior.meshes.base_colour import BaseColour
from latent_prior.meshes.textured_mesh import TexturedMesh
from meshes.scenes import three_nodes
from torch.testing import assert_close

FIELD = {"grid_size": [4, 4, 4], "n_feature_dims": 3}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.glb"
    path.write_bytes(three_nodes().to_glb())
    return path


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    path = tmp_path_factory.mktemp("grey") / "ball.stl"
    trimesh.creation.icosphere(2, 3.0).export(path)
    return path


def textured(mesh, **config) -> TexturedMesh:
    torch.manual_seed(0)
    geometry = TexturedMesh({"mesh": str(mesh), "field": FIELD, **config})
    torch.nn.init.normal_(geometry.field.grid)
    return geometry


def middles(geometry):
    """The middle of every face: points, faces, weights."""
    faces = torch.arange(len(geometry.t_pos_idx))
    weights = torch.full((len(faces), 3), 1 / 3)
    return geometry.v_pos[geometry.t_pos_idx.long()].mean(dim=1), faces, weights


def test_it_fits_the_ball_and_its_normals_point_outwards(grey):
    geometry = textured(grey, radius=0.6)
    mesh = geometry.isosurface()
    assert_close(mesh.v_pos.norm(dim=-1), torch.full((len(mesh.v_pos),), 0.6), rtol=0, atol=1e-5)
    assert ((mesh.v_nrm * mesh.v_pos).sum(-1) > 0.59).all()


def test_features_are_the_fields_where_training_starts_from_grey(grey):
    geometry = textured(grey)
    points, faces, weights = middles(geometry)
    assert_close(geometry.features_at(points, faces, weights), geometry.field.export(points=points)["features"])
    assert not geometry.has_colours


def test_a_texture_is_where_training_starts(scene):
    geometry = textured(scene, start="texture")
    assert geometry.has_colours
    points, faces, weights = middles(geometry)
    own = geometry.own_at(faces, weights)
    assert_close(geometry.features_at(points, faces, weights), own + geometry.field.export(points=points)["features"])
    # the scene's steel: its factor in linear light, as display values
    steel = [part for part in geometry.asset.parts if part.colour.picture is None and part.material is not None][0]
    light = steel.colour.factor[:3]
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    index = [part is steel for part in geometry.asset.parts].index(True)
    assert_close(
        torch.sigmoid(own[geometry.part_of_face == index][0]),
        torch.tensor(shown, dtype=torch.float32).clamp(0.02, 0.98),
    )


def test_own_colours_are_read_once_for_a_picture(scene, monkeypatch):
    geometry = textured(scene, start="texture")
    points, faces, weights = middles(geometry)
    asked, at = [], BaseColour.at
    monkeypatch.setattr(BaseColour, "at", lambda self, *a: asked.append(self) or at(self, *a))
    geometry.features_at(points, faces, weights)
    own = geometry.own_at(faces, weights)
    assert len(asked) == len(geometry.asset.parts)
    assert_close(geometry.own_at(faces.flip(0), weights), own.flip(0))
    assert len(asked) == 2 * len(geometry.asset.parts)


def test_parts_that_are_not_named_keep_their_colours(scene):
    geometry = textured(scene, parts=["lamp"])
    points, faces, weights = middles(geometry)
    features, own = geometry.features_at(points, faces, weights), geometry.own_at(faces, weights)
    chosen = geometry.is_textured[geometry.part_of_face.long()] > 0
    assert 0 < chosen.sum() < len(chosen)
    assert_close(features[~chosen], own[~chosen])
    assert_close(features[chosen], geometry.field.export(points=points)["features"][chosen])
    features.sum().backward()
    alone = textured(scene, parts="lamp")
    alone.field.export(points=points[chosen])["features"].sum().backward()
    assert_close(geometry.field.grid.grad, alone.field.grid.grad)


def test_what_was_seen_is_kept_in_checkpoints(grey):
    geometry = textured(grey)
    points, faces, weights = middles(geometry)
    upper = points[:, 2] > 0.1
    geometry.eval().features_at(points, faces, weights)
    assert not geometry.was_seen(points, faces).any()
    geometry.train().features_at(points[upper], faces[upper], weights[upper])
    other = textured(grey)
    other.load_state_dict(geometry.state_dict())
    assert other.was_seen(points[upper], faces[upper]).all()
    assert not other.was_seen(points[points[:, 2] < 0], faces[points[:, 2] < 0]).any()


def test_the_other_side_of_a_thin_wall_was_not_seen(tmp_path):
    plate, weight = trimesh.creation.box((2, 2, 0.001)), trimesh.creation.box((0.1, 0.1, 0.1))
    weight.apply_translation([0, 0, -1.23])  # without it the border of two cells would lie in the plate
    trimesh.util.concatenate([plate, weight]).export(tmp_path / "plate.stl")
    geometry = textured(tmp_path / "plate.stl")
    points, faces, weights = middles(geometry)
    across = torch.linalg.cross(*(geometry.v_pos[geometry.t_pos_idx.long()].diff(dim=1).unbind(dim=1)))
    above, below = (across[:, 2] * sign > 0.1 * across.norm(dim=1).amax() for sign in (1, -1))
    assert above.sum() == below.sum() == 2
    geometry.train().features_at(points[above], faces[above], weights[above])
    assert geometry.was_seen(points[above], faces[above]).all()
    assert not geometry.was_seen(points[above] - torch.tensor([0, 0, 1e-4]), faces[below]).any()


def test_a_checkpoint_is_of_one_mesh(grey, tmp_path):
    trimesh.creation.box().export(tmp_path / "other.stl")
    with pytest.raises(
        OptionError, match="system.geometry.mesh is .*other.stl'; expected the mesh that the checkpoint"
    ):
        textured(tmp_path / "other.stl").load_state_dict(textured(grey).state_dict())


def test_a_checkpoint_is_of_the_colours_that_it_started_from(tmp_path):
    """The same box in two colours: they count where they are the start, or stay on other parts."""
    for name, factor in (("red", 0.25), ("blue", 0.5)):
        document = three_nodes()
        document.json["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"][0] = factor
        (tmp_path / f"{name}.glb").write_bytes(document.to_glb())
    for settings, refused in (({"start": "texture"}, True), ({"parts": ["lamp"]}, True), ({}, False)):
        red, same, blue = (textured(tmp_path / f"{name}.glb", **settings) for name in ("red", "red", "blue"))
        same.load_state_dict(red.state_dict())
        with pytest.raises(OptionError, match="blue.glb'; expected the mesh that the") if refused else nullcontext():
            blue.load_state_dict(red.state_dict())


def test_bad_input_names_its_key(scene, grey, tmp_path):
    latents = {"field": FIELD | {"n_feature_dims": 4}}
    for given, message in [
        ({"mesh": ""}, "system.geometry.mesh is ''; expected a mesh file"),
        ({"mesh": str(tmp_path / "no.glb")}, "system.geometry.mesh: there is no file"),
        ({"start": "red"}, "system.geometry.start is 'red'; expected one of grey, texture"),
        ({"start": "texture"}, "system.geometry.start is 'texture'; expected grey, since .* has no colours"),
        ({"up": "w"}, "system.geometry.up is 'w'; expected one of x, -x"),
        ({"radius": 0.0}, "system.geometry.radius is 0.0; expected a positive length"),
        ({"parts": 3}, "system.geometry.parts is 3; expected names of nodes or meshes"),
        ({"parts": ["Door"]}, "system.geometry.parts is 'Door'; expected names of nodes or meshes in the file"),
        ({"field_type": "volume"}, "system.geometry.field_type: unknown type 'volume'"),
        ({"mesh": str(scene), "start": "texture", **latents}, "system.geometry.field.n_feature_dims is 4; expected 3"),
        ({"mesh": str(scene), "parts": ["lamp"], **latents}, "system.geometry.field.n_feature_dims is 4; expected 3"),
    ]:
        with pytest.raises(OptionError, match=message):
            TexturedMesh({"mesh": str(grey), "field": FIELD, **given})
