"""Odd and hostile mesh files, made here: each is read, and written back, or refused in one line."""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.asset_files import save_asset
from latent_prior.meshes.gltf import Document
from latent_prior.meshes.layout import lay_out
from meshes.scenes import box_corners, picture, three_nodes

READ, REFUSED = "read", "refused"
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
FACES = "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def read_and_write(path: Path) -> None:
    """What is done with each of them: read, laid out, and written in every format; the GLB is read again."""
    asset = Asset.read(path)
    layout = lay_out(asset, 64)
    pictures = [np.full((64, 64, 3), 99, np.uint8) for _ in range(layout.textures)]
    for number in range(layout.textures):
        layout.base_colours(layout.texels(number, 64))
    files = save_asset(layout, pictures, path.parent, "written", ("glb", "obj", "ply"))
    again = Asset.read(files[0])
    assert [part.name for part in again.parts] == [part.name for part in asset.parts]


def read_alone(path: Path) -> None:
    """The part of it that a hostile file is up against."""
    Asset.read(path).document.to_glb()


def with_json(text: bytes, blob: bytes = b"") -> bytes:
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text
    body += struct.pack("<I4s", len(blob), b"BIN\0") + blob if blob else b""
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def raw(change: Callable[[dict], None], text: bytes = b"", instead: bytes = b"") -> bytes:
    """A scene's GLB after a change to its JSON, and to that one's text."""
    data = three_nodes().to_glb()
    (length,) = struct.unpack("<I", data[12:16])
    tree, blob = json.loads(data[20 : 20 + length]), data[20 + length + 8 :]
    change(tree)
    return with_json(json.dumps(tree).encode().replace(text, instead), blob)


def put(*keys: object) -> Callable[[dict], None]:
    """A change that sets what the keys, all but the last, lead to; the last is the value."""

    def change(tree: dict) -> None:
        *path, last, value = keys
        for key in path:
            tree = tree[key]
        tree[last] = value

    return change


def both(*changes: Callable[[dict], None]) -> Callable[[dict], None]:
    def change(tree: dict) -> None:
        for each in changes:
            each(tree)

    return change


def short_picture(tree: dict) -> None:
    tree["bufferViews"][tree["images"][0]["bufferView"]]["byteLength"] = 40


def one_mesh(points: np.ndarray, faces: np.ndarray, mode: int | None = None) -> bytes:
    document = Document.empty()
    primitive: dict = {"attributes": {"POSITION": document.add_accessor(np.asarray(points, "<f4"))}}
    primitive["indices"] = document.add_accessor(np.asarray(faces, "<u4").ravel(), 34963)
    primitive |= {} if mode is None else {"mode": mode}
    document.add("meshes", {"primitives": [primitive]})
    document.json["scenes"][0]["nodes"] = [document.add("nodes", {"mesh": 0})]
    return document.to_glb()


def stl(corners: np.ndarray, count: int | None = None) -> bytes:
    """A binary STL; count: what its header says."""
    rows = b"".join(struct.pack("<12fH", 0, 0, 0, *triangle.ravel(), 0) for triangle in np.asarray(corners, float))
    return bytes(80) + struct.pack("<I", len(corners) if count is None else count) + rows


def ply(vertices: list, faces: list, count: int | None = None, start: str = "ply") -> bytes:
    head = f"{start}\nformat ascii 1.0\nelement vertex {len(vertices) if count is None else count}\n"
    head += "property float x\nproperty float y\nproperty float z\n"
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [" ".join(map(str, vertex)) for vertex in vertices] + [f"3 {' '.join(map(str, face))}" for face in faces]
    return (head + "\n".join(rows) + "\n").encode()


def corpus() -> dict[str, tuple[bytes, str]]:
    """The files by name, with what is to become of each."""
    points, _, _, faces = box_corners()
    body = trimesh.creation.icosphere(subdivisions=1)
    corners = body.vertices[body.faces]
    whole = three_nodes().to_glb()
    bad = np.array(points, float)
    bad[3, 1] = np.nan
    infinite = np.where(np.isnan(bad), np.inf, bad)
    four = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    sides = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
    prefix = b"data:application/octet-stream;base64,"
    deep = [{"children": [k + 1]} for k in range(3000)] + [{"mesh": 0}]
    many = [{"name": "n", "mesh": 0, "translation": [k, 0, 0]} for k in range(40)]
    odd_names = put("nodes", 1, "name", "a\nb\u202e\ud800" + 400 * "x")
    first = ("meshes", 0, "primitives", 0)
    found: dict[str, tuple[bytes, str]] = {
        # nothing to paint on
        "empty.glb": (b"", REFUSED),
        "empty.obj": (b"", REFUSED),
        "empty.ply": (b"", REFUSED),
        "empty.stl": (b"", REFUSED),
        "noise.glb": (np.random.default_rng(0).bytes(4000), REFUSED),
        "noise.stl": (np.random.default_rng(0).bytes(4000), REFUSED),
        "noise.off": (np.random.default_rng(1).bytes(4000), REFUSED),
        "picture.glb": (picture(), REFUSED),
        "text.obj": (b"a letter to the editor\n", REFUSED),
        "points.obj": (TETRAHEDRON.encode(), REFUSED),
        "points.ply": (ply(four, []), REFUSED),
        "points.xyz": (b"0 0 0\n1 0 0\n0 1 0\n", REFUSED),
        "points.glb": (one_mesh(points, faces, 0), REFUSED),
        "lines.glb": (one_mesh(points, faces, 1), REFUSED),
        "lines.obj": ((TETRAHEDRON + "l 1 2\nl 2 3\n").encode(), REFUSED),
        "no_nodes.glb": (raw(both(put("nodes", []), put("scenes", 0, "nodes", []), put("animations", []))), REFUSED),
        "no_meshes.glb": (with_json(b'{"asset":{"version":"2.0"}}'), REFUSED),
        # numbers that are none
        "nan.glb": (one_mesh(bad, faces), REFUSED),
        "infinite.glb": (one_mesh(infinite, faces), REFUSED),
        "nan.ply": (ply([["nan", 0, 0], *four[1:]], sides), REFUSED),
        "nan.obj": ((TETRAHEDRON.replace("1", "nan", 1) + FACES).encode(), REFUSED),
        "infinite.stl": (stl(np.where(corners > 0.9, np.inf, corners)), REFUSED),
        "nan_matrix.glb": (raw(put("nodes", 1, "matrix", [float("nan")] * 16)), REFUSED),
        "huge_scale.glb": (raw(put("nodes", 0, "scale", [1e200, 1e200, 1e200])), REFUSED),
        "overflow.glb": (
            raw(both(put("nodes", 0, "scale", [1e250] * 3), put("nodes", 1, "scale", [1e250] * 3))),
            REFUSED,
        ),
        "exponent.glb": (raw(put("extras", "number"), b'"number"', b"1e999"), REFUSED),
        # no area
        "flat_scale.glb": (raw(put("nodes", 0, "scale", [0, 0, 0])), REFUSED),
        "one_place.glb": (one_mesh(np.ones((24, 3)), faces), REFUSED),
        "one_line.obj": (b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", REFUSED),
        "one_corner.stl": (stl(np.repeat(corners[:, :1], 3, axis=1)[:1]), REFUSED),
        "flat_x.glb": (raw(put("nodes", 0, "scale", [0, 1, 1])), READ),
        "some_flat.obj": ((TETRAHEDRON + FACES + "f 1 1 2\nf 2 2 2\n").encode(), READ),
        "some_flat.ply": (ply([*four, [5, 5, 5]], [*sides, [0, 0, 1], [4, 4, 4]]), READ),
        "flat_plane.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", READ),
        "stray_vertex.ply": (ply([*four, [1e6, 0, 0]], sides), READ),
        "far_away.ply": (ply([[x + 1e6, y, z] for x, y, z in four], sides), READ),
        "tiny.obj": ((TETRAHEDRON.replace("1", "1e-9") + FACES).encode(), READ),
        "large.obj": ((TETRAHEDRON.replace(" 1", " 1e9") + FACES).encode(), READ),
        # wrong indices
        "index.glb": (one_mesh(points, faces + 20), REFUSED),
        "index.obj": ((TETRAHEDRON + "f 1 2 9\n").encode(), REFUSED),
        "index_zero.obj": ((TETRAHEDRON + "f 0 1 2\n").encode(), REFUSED),
        "index_back.obj": ((TETRAHEDRON + "f -1 -2 -3\nf -1 -3 -4\n").encode(), READ),
        "index.ply": (ply(four, [*sides, [0, 1, 7]]), REFUSED),
        "index_negative.ply": (ply(four, [*sides, [0, 1, -2]]), REFUSED),
        "index.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 5\n", REFUSED),
        "accessor.glb": (raw(put(*first, "attributes", "POSITION", 99)), REFUSED),
        "accessor_negative.glb": (raw(put(*first, "attributes", "POSITION", -1)), REFUSED),
        "accessor_text.glb": (raw(put(*first, "attributes", "POSITION", "0")), REFUSED),
        "accessor_true.glb": (raw(put(*first, "indices", True)), REFUSED),
        "material.glb": (raw(put(*first, "material", 7)), REFUSED),
        "texture.glb": (raw(put("textures", 0, "source", 7)), REFUSED),
        "mesh.glb": (raw(put("nodes", 1, "mesh", 7)), REFUSED),
        "child.glb": (raw(put("nodes", 0, "children", [1, 77])), REFUSED),
        "scene.glb": (raw(put("scene", 3)), REFUSED),
        "float_indices.glb": (raw(put(*first, "indices", 0)), REFUSED),
        "view.glb": (raw(put("bufferViews", 0, "byteLength", 1 << 30)), REFUSED),
        "view_offset.glb": (raw(put("bufferViews", 0, "byteOffset", "here")), REFUSED),
        "stride.glb": (raw(put("bufferViews", 0, "byteStride", 4)), REFUSED),
        "count.glb": (raw(put("accessors", 0, "count", 1 << 39)), REFUSED),
        "count_text.glb": (raw(put("accessors", 0, "count", [24])), REFUSED),
        "count_of_uv.glb": (raw(put("accessors", 2, "count", 20)), REFUSED),
        "zeros.glb": (raw(put("accessors", 0, {"componentType": 5126, "type": "VEC3", "count": 1 << 33})), REFUSED),
        "tangents.glb": (raw(put(*first, "attributes", "TANGENT", 3)), REFUSED),
        "tangent.glb": (raw(put(*first, "attributes", "TANGENT", 70)), REFUSED),
        "targets.glb": (raw(put(*first, "targets", [{"POSITION": 5}])), REFUSED),
        "strange_targets.glb": (raw(put(*first, "targets", [1, "a"])), READ),
        "strange_elsewhere.glb": (
            raw(
                both(
                    put("animations", [{"channels": 3, "samplers": ["a", {"input": [], "output": 1e9}]}]),
                    put("skins", [{"inverseBindMatrices": {}}]),
                    lambda tree: tree["nodes"].append({"mesh": "a", "extensions": []}),
                    lambda tree: tree["meshes"].append({"primitives": [7, {"attributes": 0, "material": -3}]}),
                    lambda tree: tree["materials"].append({"normalTexture": {"index": "x"}, "extensions": None}),
                )
            ),
            READ,
        ),
        "strange_entries.glb": (raw(lambda tree: tree["materials"].append("none")), REFUSED),
        "component.glb": (raw(put("accessors", 0, "componentType", 5130)), REFUSED),
        "type.glb": (raw(put("accessors", 0, "type", ["VEC3"])), REFUSED),
        "wide.glb": (raw(put("accessors", 0, "type", "VEC2")), REFUSED),
        "mode.glb": (raw(put(*first, "mode", 9)), REFUSED),
        # structures
        "list.glb": (with_json(b"[]"), REFUSED),
        "array_of_texts.glb": (raw(put("meshes", ["a", "b"])), REFUSED),
        "object_for_array.glb": (raw(put("nodes", {"0": {}})), REFUSED),
        "text_for_primitives.glb": (raw(put("meshes", 0, "primitives", "many")), REFUSED),
        "text_for_attributes.glb": (raw(put(*first, "attributes", "many")), READ),  # the others have some
        "loop.glb": (raw(put("nodes", 3, "children", [0])), REFUSED),
        "two_parents.glb": (raw(put("nodes", 0, "children", [1, 1])), REFUSED),
        "deep.glb": (raw(both(put("nodes", deep), put("scenes", 0, "nodes", [0]), put("animations", []))), REFUSED),
        "deep_json.glb": (with_json(b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}"), REFUSED),
        "many_values.glb": (with_json(b'{"a":[' + b"{}," * 5_000_000 + b"0]}"), REFUSED),
        "no_asset.glb": (raw(lambda tree: tree.pop("asset")), REFUSED),
        "version_1.glb": (b"glTF" + struct.pack("<II", 1, 100) + bytes(88), REFUSED),
        "version_3.glb": (raw(put("asset", "version", "3.0")), REFUSED),
        "utf16.gltf": ('{"asset": {"version": "2.0"}}'.encode("utf-16"), REFUSED),
        "cut.glb": (whole[: len(whole) // 2], REFUSED),
        "cut_head.glb": (whole[:11], REFUSED),
        "cut_chunk.glb": (whole[:8] + struct.pack("<I", 700) + whole[12:700], REFUSED),
        "cut.stl": (stl(corners)[:-600], REFUSED),
        "cut.ply": (ply(four, sides)[:-20], REFUSED),
        "cut_row.ply": (ply(four, sides)[:-4], REFUSED),
        "cut_binary.ply": (body.export(file_type="ply")[:-600], REFUSED),
        "cut.off": (b"OFF\n4 4 0\n0 0 0\n1 0 0\n", REFUSED),
        "trailing.glb": (whole + b"after the end", READ),
        "count.stl": (stl(corners, 0xFFFFFFFF), REFUSED),
        "count.ply": (ply(four, sides, 4_000_000_000), REFUSED),
        "head.ply": (ply(four, sides, start="PLY!"), READ),
        "cut_base64.gltf": (
            json.dumps(
                {"asset": {"version": "2.0"}, "buffers": [{"byteLength": 99, "uri": (prefix + b"AAA").decode()}]}
            ).encode(),
            REFUSED,
        ),
        "short_buffer.gltf": (
            json.dumps(
                {
                    "asset": {"version": "2.0"},
                    "buffers": [{"byteLength": 1 << 33, "uri": (prefix + base64.b64encode(bytes(99))).decode()}],
                }
            ).encode(),
            REFUSED,
        ),
        "no_picture.glb": (raw(put("images", 0, {"uri": "none.png"})), REFUSED),
        # odd, and good
        "names.glb": (raw(odd_names), READ),
        "same_names.glb": (
            raw(both(put("nodes", many), put("scenes", 0, "nodes", list(range(40))), put("animations", []))),
            READ,
        ),
        "no_scene.glb": (raw(lambda tree: [tree.pop(key) for key in ("scene", "scenes")]), READ),
        "broken_texture.glb": (raw(short_picture), READ),
        "unknown_extension.glb": (
            raw(both(put("extensionsUsed", ["ACME_thing"]), put("nodes", 1, "extensions", {"ACME_thing": [1, {}]}))),
            READ,
        ),
        "no_material.glb": (raw(both(lambda tree: tree["meshes"][0]["primitives"][0].pop("material"))), READ),
        "quads.obj": (b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nf 1 2 3 4\nf 1 2 5\n", READ),
        "polygon.obj": (b"v 0 0 0\nv 2 0 0\nv 3 1 0\nv 2 2 0\nv 0 2 0\nf 1 2 3 4 5\n", READ),
        "no_mtl.obj": ((f"mtllib none.mtl\nusemtl a\n{TETRAHEDRON}{FACES}").encode(), READ),
        "outside_mtl.obj": ((f"mtllib ../../etc/passwd\nusemtl a\n{TETRAHEDRON}{FACES}").encode(), READ),
        "windows.obj": ((TETRAHEDRON + FACES).replace("\n", "\r\n").encode(), READ),
        "ascii.stl": (trimesh.Trimesh(four, sides).export(file_type="stl_ascii").encode(), READ),
        "triangle.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", READ),
        "soup.stl": (stl(corners), READ),
        "twice.stl": (stl(np.concatenate([corners, corners])), READ),
        "inside_out.stl": (stl(corners[:, ::-1]), READ),
        "sliver.obj": (b"v 0 0 0\nv 1 0 0\nv 0.5 0.1 0\nf 1 2 3\n", READ),
        "UPPER.OBJ": ((TETRAHEDRON + FACES).encode(), READ),
        # no formats of meshes
        "mesh.fbx": (b"Kaydara FBX Binary", REFUSED),
        "mesh": (whole, REFUSED),
        "mesh.zip": (b"PK\x03\x04" + bytes(50), REFUSED),
    }
    return found
