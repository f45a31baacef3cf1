"""The exporter as a system uses it: on either host the outputs are `save_file` calls."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_prior import host
from latent_prior.generators.mesh_exporter import VertexColorMeshExporter
from latent_prior.generators.mesh_io import load_mesh


@pytest.fixture
def scene():
    """(geometry, material, background) of a ball of radius 0.5 whose features are constant."""

    def build(features=(2.0, -2.0, 0.0), scale=300.0, **geometry_config):
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
    exporter = VertexColorMeshExporter({"fmt": ["glb", "obj", "ply"], "save_name": "ball"}, **scene())
    assert save(exporter(), tmp_path) == ["ball.glb", "ball.obj", "ball.mtl", "ball.ply"]
    color = torch.sigmoid(torch.tensor([2.0, -2.0, 0.0])).numpy()
    for name in ("ball.glb", "ball.obj", "ball.ply"):
        mesh = load_mesh(tmp_path / name)
        assert mesh.is_watertight and mesh.body_count == 1
        assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(0.5, abs=0.03)
        np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3].mean(axis=0) / 255, color, atol=0.012)


def test_formats_may_come_as_one_string(scene):
    assert VertexColorMeshExporter({"fmt": "glb, ply"}, **scene()).formats == ["glb", "ply"]
    with pytest.raises(ValueError, match="exporter.fmt"):
        VertexColorMeshExporter({"fmt": "stl"}, **scene())
    with pytest.raises(ValueError, match="min_component_fraction"):
        VertexColorMeshExporter({"min_component_fraction": 2.0}, **scene())
    with pytest.raises(ValueError, match="exporter.texture_size is 0"):
        VertexColorMeshExporter({"texture_size": 0}, **scene())


def test_thresholds(scene):
    parts = scene(isosurface_threshold=120.0)
    own = VertexColorMeshExporter({"isosurface_threshold": 60.0}, **parts).extract()
    geometrys = VertexColorMeshExporter({"isosurface_threshold": None}, **parts).extract()
    # softplus(300 (1 - r / 0.5)) = s  at  r = 0.5 (1 - s / 300)
    for result, value in ((own, 60.0), (geometrys, 120.0)):
        assert result.threshold == value
        assert np.linalg.norm(result.mesh.vertices, axis=1).mean() == pytest.approx(0.5 - value / 600, abs=2e-3)
    with pytest.raises(ValueError, match="isosurface_threshold is 'otsu'"):
        VertexColorMeshExporter({"isosurface_threshold": "otsu"}, **parts).extract()
    with pytest.raises(ValueError, match="exporter.isosurface_threshold is 0.0, expected 'auto' or a number above 0"):
        VertexColorMeshExporter({"isosurface_threshold": 0.0}, **parts).extract()
    with pytest.raises(ValueError, match="geometry.isosurface_threshold is -1.0"):
        VertexColorMeshExporter({"isosurface_threshold": None}, **scene(isosurface_threshold=-1.0)).extract()
    with pytest.raises(ValueError, match="isosurface_resolution is 0"):
        VertexColorMeshExporter({"isosurface_resolution": 0}, **parts).extract()


def test_empty_field(scene):
    with pytest.raises(ValueError, match="empty"):
        VertexColorMeshExporter({}, **scene(scale=0.0, density_bias=-20.0))()
    with pytest.raises(ValueError, match="geometry.isosurface"):
        VertexColorMeshExporter({}, **scene(isosurface=False))()


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


def test_texture_and_its_time_limit(scene, tmp_path, monkeypatch):
    pytest.importorskip("xatlas")
    config = {"fmt": ["obj", "ply"], "texture": True, "texture_size": 64, "max_faces": 200, "texture_timeout": 120.0}
    assert save(VertexColorMeshExporter(config, **scene())(), tmp_path) == [
        "model.obj",
        "model.mtl",
        "model.png",
        "model.ply",
    ]
    warnings = []
    monkeypatch.setattr(host, "warn", warnings.append)
    exporter = VertexColorMeshExporter({**config, "texture_timeout": 1e-3}, **scene())
    assert save(exporter(), tmp_path) == ["model.obj", "model.mtl", "model.ply"]
    assert "texture_timeout" in warnings[0]
