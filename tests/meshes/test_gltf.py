"""glTF's data against the standard's text, and files in all the ways they come."""

import base64
import json
import struct

import numpy as np
import pytest
from latent_prior import OptionError
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.gltf import Document
from meshes.scenes import picture, three_nodes


def with_data(data: bytes, view: dict, accessor: dict) -> Document:
    views = [{"buffer": 0, "byteLength": len(data), **view}]
    buffers = [{"byteLength": len(data)}]
    return Document({"buffers": buffers, "bufferViews": views, "accessors": [{"bufferView": 0, **accessor}]}, [data])


def test_interleaved_elements():
    data = b"".join(struct.pack("<3f4Bf", k, k + 0.5, -k, k, 2 * k, 255, 7, 100 + k) for k in range(5))
    document = with_data(data, {"byteStride": 20}, {"componentType": 5126, "type": "VEC3", "count": 5})
    np.testing.assert_array_equal(document.accessor(0), [[k, k + 0.5, -k] for k in range(5)])
    document = with_data(
        data, {"byteStride": 20}, {"byteOffset": 12, "componentType": 5121, "type": "VEC4", "count": 5}
    )
    np.testing.assert_array_equal(document.accessor(0), [[k, 2 * k, 255, 7] for k in range(5)])
    document = with_data(
        data, {"byteStride": 20}, {"byteOffset": 16, "componentType": 5126, "type": "SCALAR", "count": 5}
    )
    np.testing.assert_array_equal(document.accessor(0), [100, 101, 102, 103, 104])


@pytest.mark.parametrize(
    "code, kind, stored, values",
    [
        (5120, "b", [-128, -127, 0, 127], [-1, -1, 0, 1]),
        (5121, "B", [0, 51, 255], [0, 0.2, 1]),
        (5122, "h", [-32768, -32767, 32767], [-1, -1, 1]),
        (5123, "H", [0, 13107, 65535], [0, 0.2, 1]),
    ],
)
def test_normalized_integers(code, kind, stored, values):
    data = struct.pack(f"<{len(stored)}{kind}", *stored)
    accessor = {"componentType": code, "type": "SCALAR", "count": len(stored)}
    np.testing.assert_array_equal(with_data(data, {}, accessor).accessor(0), stored)
    np.testing.assert_allclose(with_data(data, {}, {**accessor, "normalized": True}).accessor(0), values, atol=1e-7)


def test_sparse_elements_replace_those_of_the_view_or_zeros():
    base = np.arange(12, dtype="<f4")
    document = with_data(base.tobytes(), {}, {"componentType": 5126, "type": "VEC3", "count": 4})
    places = document.add_view(np.array([1, 3], "<u2").tobytes())
    values = document.add_view(np.array([[7, 8, 9], [-1, -2, -3]], "<f4").tobytes())
    sparse = {
        "count": 2,
        "indices": {"bufferView": places, "componentType": 5123},
        "values": {"bufferView": values},
    }
    document.json["accessors"][0]["sparse"] = sparse
    np.testing.assert_array_equal(document.accessor(0), [[0, 1, 2], [7, 8, 9], [6, 7, 8], [-1, -2, -3]])
    del document.json["accessors"][0]["bufferView"]
    np.testing.assert_array_equal(document.accessor(0), [[0] * 3, [7, 8, 9], [0] * 3, [-1, -2, -3]])


def test_columns_of_matrices_begin_at_multiples_of_four_bytes():
    data = bytes([1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0])
    document = with_data(data, {}, {"componentType": 5121, "type": "MAT3", "count": 1})
    np.testing.assert_array_equal(document.accessor(0), [[[1, 4, 7], [2, 5, 8], [3, 6, 9]]])


def test_what_is_added_comes_back_from_the_file(tmp_path):
    rng = np.random.default_rng(0)
    for values in (
        rng.normal(size=(7, 3)).astype("<f4"),
        rng.integers(0, 255, (5, 3)).astype("u1"),
        rng.integers(0, 9, (6,)).astype("<u2"),
        rng.normal(size=(3, 2)).astype("<f4"),
    ):
        document = Document.empty()
        document.add_view(b"odd")
        index = document.add_accessor(values)
        document.set_limits(index)
        (tmp_path / "a.glb").write_bytes(document.to_glb())
        read = Document.read(tmp_path / "a.glb")
        np.testing.assert_array_equal(read.accessor(index), values)
        assert read.json["accessors"][index]["min"] == np.atleast_1d(values.min(axis=0)).tolist()
        view = read.json["bufferViews"][1]
        assert view["byteOffset"] % 4 == 0 and view.get("byteStride", 4) % 4 == 0 and len(read.buffers) == 1


def test_every_way_in_which_a_file_may_come(tmp_path):
    """A .glb; a .gltf with its data inside, beside, or in a folder of another name."""
    document = three_nodes()
    glb = document.to_glb()
    (tmp_path / "a.glb").write_bytes(glb)
    expected = Asset.read(tmp_path / "a.glb")
    whole = Document.read(tmp_path / "a.glb")
    tree, (data,) = whole.json, whole.buffers

    def check(path):
        asset = Asset.read(path)
        for part, other in zip(asset.parts, expected.parts, strict=True):
            np.testing.assert_array_equal(part.vertices, other.vertices)
            np.testing.assert_array_equal(part.faces, other.faces)
        assert asset.parts[0].colour.picture.getpixel((0, 0)) == (10, 20, 30)
        (tmp_path / "again.glb").write_bytes(asset.document.to_glb())
        assert "uri" not in json.dumps(Document.read(tmp_path / "again.glb").json)

    image = {"name": "wood", "uri": "my%20textures/wood.png"}
    (tmp_path / "my textures").mkdir()
    (tmp_path / "my textures" / "wood.png").write_bytes(picture())
    (tmp_path / "data.bin").write_bytes(data)
    inside = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    for name, uri, images in (
        ("inside", inside, tree["images"]),
        ("beside", "data.bin", tree["images"]),
        ("pictures", "data.bin", [image]),
        ("both", inside, [{"uri": "data:image/png;base64," + base64.b64encode(picture()).decode()}]),
    ):
        changed = {**tree, "images": images, "buffers": [{"byteLength": len(data), "uri": uri}]}
        (tmp_path / f"{name}.gltf").write_text(json.dumps(changed))
        check(tmp_path / f"{name}.gltf")
    (tmp_path / "json.glb").write_bytes((tmp_path / "inside.gltf").read_bytes())  # a wrong suffix does not matter
    check(tmp_path / "json.glb")
    for uri in ("../data.bin", "/etc/hostname", "http://host/data.bin", "file:///etc/hostname", "C:\\a", "none.bin"):
        changed = {**tree, "buffers": [{"byteLength": len(data), "uri": uri}]}
        (tmp_path / "out.gltf").write_text(json.dumps(changed))
        with pytest.raises(OptionError, match=r"buffers\[0\] is .*(expected a file in the mesh's folder|no such file)"):
            Asset.read(tmp_path / "out.gltf")


def test_a_compressed_file_is_refused_by_name(tmp_path):
    for name, keys in (
        ("KHR_draco_mesh_compression", ["extensionsUsed", "extensionsRequired"]),
        ("KHR_draco_mesh_compression", ["extensionsUsed"]),
        ("EXT_meshopt_compression", ["extensionsUsed", "extensionsRequired"]),
    ):
        document = three_nodes()
        document.json |= {key: [name] for key in keys}
        (tmp_path / "a.glb").write_bytes(document.to_glb())
        with pytest.raises(OptionError, match=rf"mesh: .*a.glb: it is compressed \({name}\): export it without"):
            Asset.read(tmp_path / "a.glb")
    # with the plain data beside it, the compressed copy is left out
    document = three_nodes()
    document.json["extensionsUsed"] = ["EXT_meshopt_compression"]
    document.json["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 5}}
    (tmp_path / "a.glb").write_bytes(document.to_glb())
    assert "meshopt" not in json.dumps(Asset.read(tmp_path / "a.glb").document.json)
