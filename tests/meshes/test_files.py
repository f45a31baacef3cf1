"""Files against what was written, and GLB against glTF's own conventions."""

import json
import os
import struct

import numpy as np
import pytest
import trimesh
from latent_prior.meshes import texture
from latent_prior.meshes.files import linear_to_srgb, load_mesh, newest_mesh, save_mesh, srgb_to_linear
from latent_prior.meshes.texture import bake, unwrap
from PIL import EpsImagePlugin, Image


@pytest.fixture(scope="module")
def colored():
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    mesh.apply_scale([1.0, 0.7, 1.4])
    rng = np.random.default_rng(0)
    colors = np.concatenate([rng.integers(0, 256, (len(mesh.vertices), 3)), np.full((len(mesh.vertices), 1), 255)], 1)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colors.astype(np.uint8))
    return mesh


def test_the_srgb_curve():
    value = np.linspace(0, 1, 101)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(value)), value, atol=1e-6)
    assert srgb_to_linear(np.array(0.5)) == pytest.approx(0.21404, abs=1e-5)  # IEC 61966-2-1


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("glb", {}),
        ("glb", {"glb_for": "trimesh"}),
        *((suffix, {"up": up}) for suffix in ("obj", "ply", "stl") for up in (None, "y", "z")),
    ],
)
def test_round_trip(colored, tmp_path, suffix, options):
    files = save_mesh(colored, tmp_path / f"m.{suffix}", **options)
    assert all(path.is_file() for path in files)
    loaded = load_mesh(files[0])
    assert loaded.is_watertight and loaded.volume == pytest.approx(colored.volume)
    if suffix == "stl":  # without colours, and each triangle's corners apart
        np.testing.assert_allclose(loaded.bounds, colored.bounds, atol=1e-6)
        assert len(loaded.vertices) == len(colored.vertices)
        return
    np.testing.assert_allclose(loaded.vertices, colored.vertices, atol=1e-6)
    np.testing.assert_array_equal(loaded.faces, colored.faces)
    np.testing.assert_array_equal(loaded.visual.vertex_colors, colored.visual.vertex_colors)


@pytest.mark.parametrize(("suffix", "usual"), [("obj", "y"), ("ply", "z"), ("stl", "z")])
def test_what_other_programs_find_on_top(colored, tmp_path, suffix, usual):
    """The tallest axis of the body is up; its front, the world's +x, is +z where y is up."""
    for up in (None, "y", "z"):
        (path, *_) = save_mesh(colored, tmp_path / f"m.{suffix}", up=up)
        read = trimesh.load(path, force="mesh", process=False)
        axes = [1, 2, 0] if (up or usual) == "y" else [0, 1, 2]
        np.testing.assert_allclose(read.bounds, colored.bounds[:, axes], atol=1e-6)
        assert read.volume > 0


def _glb_tree(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[12:16])
    return json.loads(data[20 : 20 + length]), data[20 + length + 8 :]


def test_glb_is_what_the_standard_says(colored, tmp_path):
    white = colored.copy()
    white.visual.vertex_colors = np.tile(np.array([188, 188, 188, 255], np.uint8), (len(white.vertices), 1))
    (path,) = save_mesh(white, tmp_path / "m.glb")
    tree, blob = _glb_tree(path)
    primitive = tree["meshes"][0]["primitives"][0]
    factors = tree["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert factors == {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    accessor = tree["accessors"][primitive["attributes"]["COLOR_0"]]
    # unsigned shorts, four a vertex, so that each vertex's begin at a multiple of four bytes
    assert (accessor["componentType"], accessor["normalized"], accessor["type"]) == (5123, True, "VEC4")
    view = tree["bufferViews"][accessor["bufferView"]]
    assert view["byteOffset"] % 4 == 0 and view["byteLength"] == 8 * len(white.vertices) and "byteStride" not in view
    values = np.frombuffer(blob[view["byteOffset"] :], "<u2", 4 * accessor["count"])
    half = round(65535 * ((188 / 255 + 0.055) / 1.055) ** 2.4)  # about half the light
    np.testing.assert_array_equal(values.reshape(-1, 4), [[half, half, half, 65535]] * len(white.vertices))
    assert accessor["min"] == accessor["max"] == [half, half, half, 65535]
    # y up, front towards +z: the tallest axis in the world (z) is y in the file, the world's front (x) is z
    low, high = (np.array(tree["accessors"][primitive["attributes"]["POSITION"]][key]) for key in ("min", "max"))
    np.testing.assert_allclose(high - low, colored.extents[[1, 2, 0]], atol=1e-6)


def test_every_display_value_survives_linear_light(tmp_path):
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    points = np.stack([np.arange(256), np.arange(256) % 2, np.arange(256) % 3], axis=1).astype(float)
    mesh = trimesh.Trimesh(points, np.arange(255).reshape(-1, 3), vertex_colors=levels, process=False)
    (path,) = save_mesh(mesh, tmp_path / "m.glb")
    tree, blob = _glb_tree(path)
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    dtype = {5121: "<u1", 5123: "<u2"}[accessor["componentType"]]
    start = tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
    stored = np.frombuffer(blob[start:], dtype, 4 * 256).reshape(-1, 4)[:, :3] / np.iinfo(dtype).max
    assert np.abs(linear_to_srgb(stored) * 255 - levels).max() < 0.03  # measured 0.025 levels; 6.4 with 8 bits
    np.testing.assert_array_equal(load_mesh(path).visual.vertex_colors[:, :3], levels)


def test_for_trimesh_plain_trimesh_reads_the_colours(colored, tmp_path):
    save_mesh(colored, tmp_path / "m.glb", glb_for="trimesh")
    mesh = trimesh.load(tmp_path / "m.glb", force="mesh", process=False)
    np.testing.assert_array_equal(mesh.visual.vertex_colors, colored.visual.vertex_colors)


def test_obj_names_its_material(colored, tmp_path):
    obj, mtl = save_mesh(colored, tmp_path / "m.obj")
    assert "mtllib m.mtl" in obj.read_text() and "usemtl surface" in obj.read_text()
    mean = [float(value) for value in mtl.read_text().split("Kd ")[1].split("\n")[0].split()]
    np.testing.assert_allclose(mean, colored.visual.vertex_colors[:, :3].mean(axis=0) / 255, atol=1e-6)


def test_bad_arguments(colored, tmp_path):
    for name, options in (
        ("m.off", {}),
        ("m.glb", {"glb_for": "blender"}),
        ("m.obj", {"up": "x"}),
        ("m.glb", {"up": "z"}),  # the standard says y
    ):
        with pytest.raises(ValueError, match=f"cannot write {name}"):
            save_mesh(colored, tmp_path / name, **options)
    with pytest.raises(ValueError, match="no mesh file"):
        load_mesh(tmp_path / "nothing.glb")


def test_baked_texture_shows_the_colour_of_the_place(colored, tmp_path):
    atlas = unwrap(colored.vertices, colored.faces, size=256, timeout=120)
    baked = bake(colored, atlas, lambda points, normals: points / 2 + 0.5, size=256)
    for suffix, up in (("glb", None), ("obj", None), ("obj", "z")):
        files = save_mesh(baked, tmp_path / f"t.{suffix}", up=up)
        assert len(files) == (1 if suffix == "glb" else 3)
        loaded = load_mesh(files[0])
        error = np.abs(loaded.visual.vertex_colors[:, :3] / 255 - (loaded.vertices / 2 + 0.5))
        assert error.max() < 0.02  # a texel is about 0.01 wide on the surface


def test_a_texture_leaves_no_seams_in_the_shading(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    baked = bake(
        ball, unwrap(ball.vertices, ball.faces, size=64, timeout=120), lambda points, normals: points / 2 + 0.5, size=64
    )
    assert len(baked.vertices) > len(ball.vertices)  # cut, and each side of a cut has the whole surface's normal
    (path,) = save_mesh(baked, tmp_path / "t.glb")
    tree, blob = _glb_tree(path)
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
    start = tree["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
    normals = np.frombuffer(blob[start : start + 12 * accessor["count"]], dtype="<f4").reshape(-1, 3)
    truth = (baked.vertices / np.linalg.norm(baked.vertices, axis=1, keepdims=True))[:, [1, 2, 0]]
    np.testing.assert_allclose(normals, truth, atol=0.02)  # measured 0.009; 0.16 from the cut mesh's own faces


def test_an_atlas_that_takes_too_long_is_given_up(colored):
    with pytest.raises(TimeoutError, match="longer than 0.001 s"):
        unwrap(colored.vertices, colored.faces, size=256, timeout=1e-3)


@pytest.mark.parametrize(
    ("script", "said"),
    [("import no_such_package", "No module named 'no_such_package'"), ("import os; os._exit(3)", "ended with code 3")],
)
def test_an_atlas_that_fails_says_why(colored, monkeypatch, script, said):
    monkeypatch.setattr(texture, "UNWRAP", script)
    with pytest.raises(RuntimeError, match=said):
        unwrap(colored.vertices, colored.faces, size=256, timeout=120)


def test_a_texture_in_postscript_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript ran"))
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    (tmp_path / "mesh.obj").write_text(f"mtllib mesh.mtl\nusemtl a\n{corners}")
    (tmp_path / "mesh.mtl").write_text("newmtl a\nmap_Kd texture.png\n")
    (tmp_path / "texture.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    opened = Image.open
    with pytest.raises(TypeError):  # by trimesh, which goes on without the texture
        load_mesh(tmp_path / "mesh.obj")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "texture.png")
    assert (load_mesh(tmp_path / "mesh.obj").visual.vertex_colors[:, :3] == [255, 0, 0]).all()
    assert Image.open is opened


def test_the_obj_comes_after_what_it_needs(colored, tmp_path, monkeypatch):
    renamed, replace = [], os.replace

    def watched(source, target):
        renamed.append(target.suffix)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    save_mesh(colored, tmp_path / "m.obj")
    assert renamed == [".mtl", ".obj"]


def test_the_mesh_of_the_latest_export_is_taken(tmp_path):
    assert newest_mesh(tmp_path) is None
    for moment, name in enumerate(["it90-export", "it100-export"]):
        folder = tmp_path / "save" / name
        folder.mkdir(parents=True)
        for suffix in ("glb", "obj"):
            (folder / f"model.{suffix}").touch()
        os.utime(folder, (moment, moment))
    assert newest_mesh(tmp_path) == tmp_path / "save" / "it100-export" / "model.glb"
