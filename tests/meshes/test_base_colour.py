"""Base colours of files against their closed forms."""

import io

import numpy as np
import pytest
import trimesh
from latent_prior.meshes import base_colour
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.base_colour import BaseColour, bilinear
from latent_prior.meshes.files import linear_to_srgb, save_mesh, srgb_to_linear
from latent_prior.meshes.gltf import INDICES, Document
from meshes.scenes import three_nodes
from PIL import EpsImagePlugin, Image

CORNERS = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0.25 0.25\nvt 0.75 0.25\nvt 0.25 0.75\n"


def at_corners(part) -> np.ndarray:
    """The colour at every corner of every face, in sRGB and 8 bits."""
    light = part.colour.at(np.repeat(part.faces.reshape(-1, 1), 3, axis=1), np.tile([1.0, 0, 0], (part.faces.size, 1)))
    return (linear_to_srgb(light[:, :3]) * 255).round().reshape(-1, 3, 3)


def test_a_texture_is_read_between_the_centres_of_texels():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 5, 4)).astype(np.uint8)
    light = np.concatenate([srgb_to_linear(pixels[..., :3] / 255), pixels[..., 3:] / 255], axis=2)
    for u, v in rng.uniform(-2, 3, (40, 2)):
        for wrap, index in (
            ("clamp", lambda k, n: min(max(k, 0), n - 1)),
            ("repeat", lambda k, n: k % n),
            ("mirror", lambda k, n: k % (2 * n) if k % (2 * n) < n else 2 * n - 1 - k % (2 * n)),
        ):
            x, y = u * 5 - 0.5, v * 3 - 0.5
            expected = 0
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    weight = (1 - abs(x - column)) * (1 - abs(y - row))
                    expected = expected + weight * light[index(row, 3), index(column, 5)]
            found = bilinear(pixels, np.array([[u, v]]), (wrap, wrap))[0]
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_factor_texture_and_vertex_colours_are_multiplied():
    picture = Image.new("RGB", (2, 2), (188, 188, 188))
    uv, vertex = np.full((3, 2), 0.5), np.array([[1.0, 0.5, 0, 1], [0, 0.5, 0, 1], [0, 0.5, 1, 0]])
    colour = BaseColour(np.array([0.5, 1, 1, 0.8]), picture, uv, ("repeat", "repeat"), vertex, "BLEND")
    found = colour.at(np.array([[0, 1, 2]]), np.array([[0.5, 0.25, 0.25]]))[0]
    half = srgb_to_linear(np.array(188 / 255))
    np.testing.assert_allclose(found, [0.5 * half * 0.5, half * 0.5, half * 0.25, 0.8 * 0.75], rtol=1e-5)


def test_a_picture_is_converted_once_and_let_go_with_its_last_user(monkeypatch):
    picture, converted = Image.new("RGB", (4, 4), (1, 2, 3)), []
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda *a, **k: converted.append(a[1]) or convert(*a, **k))
    before = len(base_colour._CONVERTED)
    users = [BaseColour(np.full(4, f), picture, np.full((3, 2), 0.5), ("clamp", "clamp"), None, "") for f in (1.0, 0.5)]
    corners, weights = np.array([[0, 1, 2]]), np.full((1, 3), 1 / 3)
    found = [user.at(corners, weights)[0] for user in (*users, *users)]
    np.testing.assert_allclose(found[0][:3], srgb_to_linear(np.array([1, 2, 3]) / 255), rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0])
    np.testing.assert_allclose(found[1], found[0] / 2)
    assert converted == ["RGBA"] and len(base_colour._CONVERTED) == before + 1
    del users, picture
    assert len(base_colour._CONVERTED) == before


def test_a_texture_is_placed_by_its_transform_and_sampler(tmp_path):
    """(u, v) is scaled, turned counter-clockwise as the picture is seen, and moved, as in KHR_texture_transform."""
    image = Image.new("RGB", (4, 4))
    image.putdata([(16 * k, 0, 0) for k in range(16)])
    with io.BytesIO() as file:
        image.save(file, "PNG")
        data = file.getvalue()
    document = Document.empty()
    uv = np.array([[0.125, 0.125], [0.375, 0.125], [0.125, 0.375]], "<f4")
    attributes = {
        "POSITION": document.add_accessor(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")),
        "TEXCOORD_0": document.add_accessor(0 * uv),
        "TEXCOORD_1": document.add_accessor(uv),
    }
    transform = {"offset": [0.5, 1.25], "rotation": np.pi / 2, "scale": [2, 1], "texCoord": 1}
    info = {"index": 0, "texCoord": 0, "extensions": {"KHR_texture_transform": transform}}
    document.json |= {
        "samplers": [{"wrapS": 33071, "wrapT": 10497}],
        "textures": [{"source": document.add_image(data, "a"), "sampler": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": info}}],
        "meshes": [{"primitives": [{"attributes": attributes, "material": 0}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    (tmp_path / "a.glb").write_bytes(document.to_glb())
    (part,) = Asset.read(tmp_path / "a.glb").parts
    assert part.uv_set == 1 and part.colour.wrap == ("clamp", "repeat")
    np.testing.assert_array_equal(part.uv, uv)
    # (0.25, 0.125) turned is (0.125, -0.25): columns 0.625 and up, rows at 1.0, 0.5 and 1.0 of the picture
    np.testing.assert_allclose(part.colour.uv, [[0.625, 1.0], [0.625, 0.5], [0.875, 1.0]], atol=1e-6)


def test_the_colours_of_an_obj(tmp_path):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    halves = Image.new("RGB", (4, 4), (0, 0, 255))
    halves.paste((0, 255, 0), (0, 2, 4, 4))  # green below
    halves.save(tmp_path / "halves.jpg", quality=100, subsampling=0)
    (tmp_path / "m.mtl").write_text(
        "newmtl plain\nKd 0.5 0.25 0\nnewmtl red\nKd 0.1 0.1 0.1\nmap_Kd red.png\nnewmtl halves\nmap_Kd halves.jpg\n"
    )
    face = "f 1/1 2/2 3/3\n"
    for material, expected in (
        ("plain", [[128, 64, 0]] * 3),
        ("red", [[255, 0, 0]] * 3),  # the picture alone
        ("halves", [[0, 255, 0], [0, 255, 0], [0, 0, 255]]),  # v points up in the file
    ):
        (tmp_path / "m.obj").write_text(f"mtllib m.mtl\n{CORNERS}usemtl {material}\n{face}")
        (part,) = Asset.read(tmp_path / "m.obj").parts
        np.testing.assert_allclose(at_corners(part)[0], expected, atol=2)
    assert Asset.read(tmp_path / "m.obj").document.image_bytes(0) == (tmp_path / "halves.jpg").read_bytes()
    (tmp_path / "m.obj").write_text(f"mtllib m.mtl\n{CORNERS}o a\nusemtl red\n{face}o b\nusemtl plain\n{face}")
    names = [part.names[0] for part in Asset.read(tmp_path / "m.obj").parts]
    assert len(names) == 2 and sorted(name[0] for name in names) == ["a", "b"]


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb", None])
def test_colours_of_vertices_and_faces(tmp_path, suffix):
    body = trimesh.creation.icosphere(subdivisions=1)
    colours = np.random.default_rng(0).integers(0, 256, (len(body.vertices), 4)).astype(np.uint8)
    colours[:, 3] = 255
    body.visual = trimesh.visual.ColorVisuals(body, vertex_colors=colours)
    if suffix is None:
        body.visual = trimesh.visual.ColorVisuals(body, face_colors=colours[: len(body.faces)].repeat(2, axis=0)[:80])
        body.export(tmp_path / "a.ply", file_type="ply")
        (part,) = Asset.read(tmp_path / "a.ply").parts
        expected = np.repeat(body.visual.face_colors[:, None, :3], 3, axis=1)
    else:
        save_mesh(body, tmp_path / f"a.{suffix}")
        (part,) = Asset.read(tmp_path / f"a.{suffix}").parts
        expected = colours[body.faces][..., :3]
    np.testing.assert_allclose(at_corners(part), expected, atol=1)


def test_a_texture_that_cannot_be_read_is_white(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript ran"))
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd texture.png\n")
    (tmp_path / "m.obj").write_text(f"mtllib m.mtl\n{CORNERS}usemtl a\nf 1/1 2/2 3/3\n")
    good = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(good, "PNG")
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b"", good.getvalue()[:60], None):
        (tmp_path / "texture.png").unlink(missing_ok=True)
        if data is not None:
            (tmp_path / "texture.png").write_bytes(data)
        (part,) = Asset.read(tmp_path / "m.obj").parts
        assert part.colour.picture is None
        assert at_corners(part).min() == 255


def test_a_texture_in_a_format_that_is_not_read_is_white_with_a_warning(tmp_path, caplog):
    document = three_nodes()
    source = document.add("images", {"mimeType": "image/ktx2", "bufferView": document.add_view(b"\xabKTX 20\xbb" * 8)})
    document.json["textures"][0] = {"extensions": {"KHR_texture_basisu": {"source": source}}}
    (tmp_path / "a.glb").write_bytes(document.to_glb())
    assert Asset.read(tmp_path / "a.glb").parts[0].colour.picture is None
    assert caplog.text.count("a texture is taken as white: images[1] cannot be read") == 1


def test_a_document_needs_no_indices_nor_materials(tmp_path):
    document = Document.empty()
    position = document.add_accessor(np.eye(3, dtype="<f4"))
    uv = document.add_accessor(np.array([[0, 0], [65535, 0], [0, 65535]], "<u2"), normalized=True)
    document.add("meshes", {"primitives": [{"attributes": {"POSITION": position, "TEXCOORD_0": uv}}]})
    document.json["scenes"][0]["nodes"] = [document.add("nodes", {"mesh": 0})]
    (tmp_path / "a.glb").write_bytes(document.to_glb())
    (part,) = Asset.read(tmp_path / "a.glb").parts
    assert part.material is None and part.faces.tolist() == [[0, 1, 2]] and part.colour.is_plain
    np.testing.assert_array_equal(part.uv, [[0, 0], [1, 0], [0, 1]])
    assert INDICES == 34963
