"""The exporter as a system uses it: on either host the outputs are `save_file` calls."""

import shutil
from pathlib import Path

import latent_prior.registration  # noqa: F401
import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError, host
from latent_prior.meshes import texture
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.exporter import VertexColorMeshExporter
from latent_prior.meshes.files import WORLD_TO_Y_UP, load_mesh


@pytest.fixture
def scene():
    """(geometry, material, background) of a ball of radius 0.5 whose features are constant; with `bar`, one on top."""

    def build(features=(2.0, -2.0, 0.0), scale=300.0, bar=False, **geometry_config):
        geometry = host.find("volume-grid")(
            {
                "grid_size": [24, 24, 24],
                "n_feature_dims": len(features),
                "density_blob_scale": scale,
                "isosurface_resolution": 40,
                **geometry_config,
            }
        )
        with torch.no_grad():
            geometry.grid[0, 1:] = torch.tensor(features)[:, None, None, None]
            if bar:  # from the ball up to z = 0.9
                geometry.grid[0, 0, 12:23, 10:14, 10:14] = 1e4
        latents = len(features) != 3
        material = host.find("no-material")(
            {"n_output_dims": len(features), "color_activation": "none" if latents else "sigmoid"}
        )
        background = host.find("solid-color-background")({})
        return {"geometry": geometry, "material": material, "background": background}

    return build


def save(outputs, folder):
    """What threestudio's system does with the outputs (save_file copies src_path)."""
    for output in outputs:
        assert output.save_type == "file" and set(output.params) == {"src_path"}
        shutil.copyfile(output.params["src_path"], Path(folder, output.save_name))
    return [output.save_name for output in outputs]


def test_all_formats_with_true_colours(scene, tmp_path):
    plain = {"fmt": ["glb", "obj", "ply"], "save_name": "ball", "texture": False}
    exporter = VertexColorMeshExporter(plain, **scene())
    assert save(exporter(), tmp_path) == ["ball.glb", "ball.mtl", "ball.obj", "ball.ply"]
    color = torch.sigmoid(torch.tensor([2.0, -2.0, 0.0])).numpy()
    for name in ("ball.glb", "ball.obj", "ball.ply"):
        mesh = load_mesh(tmp_path / name)
        assert mesh.is_watertight and mesh.body_count == 1
        assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(0.5, abs=0.03)
        np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3].mean(axis=0) / 255, color, atol=0.012)


def test_formats_may_come_as_one_string(scene):
    assert VertexColorMeshExporter({"fmt": "GLB, ply,glb"}, **scene()).formats == ["glb", "ply"]
    assert VertexColorMeshExporter({"fmt": ["Obj", "STL"]}, **scene()).formats == ["obj", "stl"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fmt": "off"}, "system.exporter.fmt is 'off'; expected some of glb, obj, ply, stl"),
        ({"fmt": []}, "system.exporter.fmt is"),
        ({"save_name": "../model"}, "system.exporter.save_name is '../model'"),
        ({"save_name": ""}, "system.exporter.save_name is ''"),
        ({"up": "x"}, "system.exporter.up is 'x'"),
        ({"up": "z"}, "system.exporter.fmt is glb, which is always y up"),
        ({"glb_for": "blender"}, "system.exporter.glb_for is 'blender'; expected one of viewers, trimesh"),
        ({"min_component_fraction": 2.0}, "system.exporter.min_component_fraction"),
        ({"smoothing": -1.0}, "system.exporter.smoothing is -1.0"),
        ({"max_faces": 3}, "system.exporter.max_faces is 3"),
        ({"texture_size": 0}, "system.exporter.texture_size is 0"),
        ({"isosurface_threshold": "otsu"}, "system.exporter.isosurface_threshold is 'otsu'"),
        (
            {"isosurface_threshold": 0.0},
            "system.exporter.isosurface_threshold is 0.0; expected 'auto' or a number above 0",
        ),
        ({"isosurface_resolution": 0}, "system.exporter.isosurface_resolution is 0"),
    ],
)
def test_bad_settings_are_refused_before_training(scene, config, message):
    with pytest.raises(OptionError, match=message):
        VertexColorMeshExporter(config, **scene())


@pytest.mark.parametrize(
    ("key", "value"), [("isosurface", False), ("isosurface_threshold", -1.0), ("isosurface_resolution", 2)]
)
def test_the_geometrys_bad_settings_name_the_geometry(scene, key, value):
    with pytest.raises(OptionError, match=f"system.geometry.{key} is"):
        VertexColorMeshExporter({}, **scene(**{key: value}))


def test_the_geometrys_isosurface_keys_hold_unless_the_exporter_has_its_own(scene):
    parts = scene(isosurface_threshold=120.0, isosurface_resolution=24)
    geometrys = VertexColorMeshExporter({}, **parts).extract()
    own = VertexColorMeshExporter({"isosurface_threshold": 60.0, "isosurface_resolution": 48}, **parts).extract()
    automatic = VertexColorMeshExporter({"isosurface_threshold": "auto"}, **parts).extract()
    # softplus(300 (1 - r / 0.5)) = s  at  r = 0.5 (1 - s / 300)
    for result, value in ((own, 60.0), (geometrys, 120.0)):
        assert result.threshold == value
        assert np.linalg.norm(result.mesh.vertices, axis=1).mean() == pytest.approx(0.5 - value / 600, abs=4e-3)
    assert automatic.threshold not in (60.0, 120.0)
    assert own.step < 0.7 * geometrys.step


def test_the_axis_that_is_up(scene, tmp_path):
    parts = scene(bar=True)
    for up, expected in ((None, {"obj": 1, "ply": 2, "stl": 2}), ("y", dict.fromkeys(("obj", "ply", "stl"), 1))):
        settings = {"fmt": ["glb", "obj", "ply", "stl"], "up": up, "texture": False}
        exporter = VertexColorMeshExporter(settings, **parts)
        save(exporter(), tmp_path)
        for name, axis in {"glb": 1, **expected}.items():
            bounds = trimesh.load(tmp_path / f"model.{name}", force="mesh").bounds
            assert bounds[1].argmax() == axis, (name, up)
            assert load_mesh(tmp_path / f"model.{name}").bounds[1].argmax() == 2


def test_empty_field(scene):
    with pytest.raises(ValueError, match="empty"):
        VertexColorMeshExporter({}, **scene(scale=0.0, density_bias=-20.0))()


def test_latents_need_a_way_to_colours(scene):
    parts = scene(features=(0.2, -0.2, 0.0, 1.0))
    with pytest.raises(ValueError, match="exporter.latent_to_rgb"):
        VertexColorMeshExporter({}, **parts).extract()
    matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.5]]
    for wrong in ([[1.0, 0.0, 0.0], [0.0]], [1.0, 2.0, 3.0], [["a", "b", "c"]]):
        with pytest.raises(ValueError, match="exporter.latent_to_rgb is .*expected rows of three numbers"):
            VertexColorMeshExporter({"latent_to_rgb": wrong}, **parts)
    linear = VertexColorMeshExporter({"latent_to_rgb": matrix}, **parts).extract()
    np.testing.assert_array_equal(np.unique(linear.mesh.visual.vertex_colors, axis=0), [[153, 102, 191, 255]])
    exporter = VertexColorMeshExporter({}, **parts)
    exporter.to_rgb = lambda latents: torch.stack([latents[:, 3], latents[:, 0], 0 * latents[:, 0]], dim=-1)
    colors = exporter.extract().mesh.visual.vertex_colors
    np.testing.assert_array_equal(np.unique(colors, axis=0), [[255, 51, 0, 255]])


def test_a_texture_is_written_whether_xatlas_succeeds_or_not(scene, tmp_path, monkeypatch):
    config = {"fmt": ["obj", "ply"], "texture": True, "texture_size": 64, "max_faces": 200, "texture_timeout": 120.0}
    files = ["model.png", "model.mtl", "model.obj", "model.ply"]
    assert save(VertexColorMeshExporter(config, **scene())(), tmp_path) == files
    warnings = []
    monkeypatch.setattr(host, "warn", warnings.append)
    late = VertexColorMeshExporter({**config, "texture_timeout": 1e-3}, **scene())
    assert save(late(), tmp_path) == files
    assert "no atlas by xatlas: it takes longer than 0.001 s" in warnings[0]
    monkeypatch.setattr(texture, "UNWRAP", "raise MemoryError('no room for the atlas')")
    assert save(VertexColorMeshExporter({**config, "fmt": "glb"}, **scene())(), tmp_path) == ["model.glb"]
    assert "no room for the atlas" in warnings[1]
    colours = load_mesh(tmp_path / "model.glb").visual.vertex_colors
    assert np.ptp(colours, axis=0).max() <= 1  # the ball has one colour, so no texel is left out


@pytest.fixture
def distances():
    """(geometry, material, background) of a sphere of signed distances, whose colour is its place."""

    def build(geometry_type="sdf-grid", **settings):
        small = {"levels": [8, 24], "feature_size": 24} if geometry_type == "sdf-grid" else {}
        geometry = host.find(geometry_type)(small | {"radius": 1.0, "isosurface_resolution": 32} | settings)
        if geometry_type == "sdf-grid":
            centres = (torch.arange(24) + 0.5) / 12 - 1
            z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
            with torch.no_grad():
                geometry.features.copy_(2 * torch.stack([x, y, z])[None])
        background = host.find("solid-color-background")({})
        return {"geometry": geometry, "material": host.find("no-material")({}), "background": background}

    return build


def test_a_field_of_distances_is_cut_at_zero_and_textured(distances, tmp_path):
    exporter = VertexColorMeshExporter({"texture_size": 128, "max_faces": 2000}, **distances(sphere=0.6))
    assert save(exporter(), tmp_path) == ["model.glb"]
    asset = Asset.read(tmp_path / "model.glb")
    points, faces = asset.joined()
    world = points @ WORLD_TO_Y_UP[:3, :3]
    assert np.linalg.norm(world, axis=1) == pytest.approx(0.6, abs=0.01)
    assert asset.parts[0].uv is not None
    middles = world[faces].mean(axis=1)
    colours = asset.colours_at(np.arange(len(faces)), np.full((len(faces), 3), 1 / 3))
    np.testing.assert_allclose(colours, 1 / (1 + np.exp(-2 * middles)), atol=0.03)


def test_matter_that_no_picture_shows_is_no_part_of_the_mesh(distances, scene, tmp_path):
    """A beam from the body into a corner of the box, which a renderer of the ball in it never draws."""
    along = torch.arange(24)
    far = {}
    for kind, parts in (("distances", distances(sphere=0.6)), ("densities", scene())):
        geometry = parts["geometry"]
        with torch.no_grad():
            if kind == "distances":
                geometry.levels[-1][0, 0, along, along, along] = 1e3
            else:
                geometry.grid[0, 0, along, along, along] = 1e4
        for bounds in ("box", "sphere"):
            settings = {"fmt": "ply", "bounds": bounds, "isosurface_resolution": 48, "min_component_fraction": 1.0}
            exporter = VertexColorMeshExporter(settings, **parts)
            save(exporter(), tmp_path)
            far[kind, bounds] = np.linalg.norm(load_mesh(tmp_path / "model.ply").vertices, axis=1).max()
    radius = float(geometry.bbox[1].min())
    assert far["distances", "box"] > 1.3 * radius and far["densities", "box"] > 1.3 * radius
    assert far["distances", "sphere"] < 1.01 * radius and far["densities", "sphere"] < 1.05 * radius


def test_an_implicit_field_of_distances_is_cut_where_asked(distances, tmp_path):
    grid = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8}
    parts = distances("implicit-sdf", sdf_bias="sphere", sdf_bias_params=0.5, pos_encoding_config=grid)
    exporter = VertexColorMeshExporter({"fmt": "ply", "isosurface_threshold": 0.1}, **parts)
    save(exporter(), tmp_path)
    assert np.linalg.norm(load_mesh(tmp_path / "model.ply").vertices, axis=1) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bounds": "cube"}, "bounds is 'cube'; expected one of box, sphere"),
        ({"isosurface_threshold": "auto"}, "isosurface_threshold is 'auto'; expected a distance, usually 0"),
        ({"smoothing": 1.0}, "smoothing is 1.0; expected 0, since .*lambda_curvature"),
    ],
)
def test_what_makes_no_sense_for_distances_is_refused(distances, config, message):
    with pytest.raises(OptionError, match=f"system.exporter.{message}"):
        VertexColorMeshExporter(config, **distances())
