"""New textures in files of others: everything else stays."""

import copy
import json

import numpy as np
import pytest
import trimesh
from latent_prior.files.pictures import png
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.asset_files import save_asset
from latent_prior.meshes.gltf import INDICES, Document
from latent_prior.meshes.gltf_unused import drop_unused
from latent_prior.meshes.layout import lay_out
from latent_prior.meshes.retexture import textured
from meshes import validator
from meshes.painting import SIZE, assert_painted, painted
from meshes.scenes import box_corners, picture, three_nodes
from PIL import Image


def written(document: Document, folder) -> Asset:
    (folder / "in.glb").write_bytes(document.to_glb())
    return Asset.read(folder / "in.glb")


def again(layout, folder) -> Asset:
    (folder / "out.glb").write_bytes(textured(layout, painted(layout)).to_glb())
    return Asset.read(folder / "out.glb")


def without(tree: dict, *kinds: str) -> dict:
    return {key: value for key, value in tree.items() if key not in kinds}


def test_everything_else_stays(tmp_path):
    document = three_nodes()
    asset = written(document, tmp_path)
    result = again(lay_out(asset, SIZE), tmp_path)
    old, new = asset.document, result.document
    data = ("accessors", "bufferViews", "buffers", "images", "textures", "samplers", "materials", "meshes", "nodes")
    assert without(new.json, *data, "animations") == without(old.json, *data, "animations")
    for before, after in zip(old.json["nodes"], new.json["nodes"], strict=True):
        assert without(before, "mesh") == without(after, "mesh")
        assert before.get("name") == after.get("name")
    # each instance has its own mesh, with the same name, extras and geometry
    left, right = (new.json["meshes"][new.json["nodes"][node]["mesh"]] for node in (1, 2))
    assert left is not right and left["name"] == right["name"] == "Box"
    assert left["extras"] == right["extras"] == {"kind": "furniture"}
    for part, other in zip(asset.parts, result.parts, strict=True):
        assert part.name == other.name
        if part.uv is not None:
            np.testing.assert_array_equal(part.vertices, other.vertices)
            np.testing.assert_array_equal(part.faces, other.faces)
            np.testing.assert_array_equal(part.uv, other.uv)
            mesh = new.json["meshes"][other.mesh]["primitives"][other.primitive]
            source = old.json["meshes"][part.mesh]["primitives"][part.primitive]
            for key, index in source["attributes"].items():
                np.testing.assert_array_equal(new.rows(mesh["attributes"][key]), old.rows(index))
        else:
            np.testing.assert_array_equal(part.vertices[part.faces], other.vertices[other.faces])
    animation, before = new.json["animations"][0], old.json["animations"][0]
    assert animation["channels"] == before["channels"] and animation["name"] == "hop"
    for key in ("input", "output"):
        np.testing.assert_array_equal(new.rows(animation["samplers"][0][key]), old.rows(before["samplers"][0][key]))
    wood = new.json["materials"][result.parts[0].material]
    assert wood["name"] == "Wood" and wood["extras"] == {"artist": "A"} and wood["emissiveFactor"] == [0.1, 0.2, 0.3]
    assert without(wood["pbrMetallicRoughness"], "baseColorTexture") == {
        "baseColorFactor": [1.0, 1.0, 1.0, 0.75],
        "metallicFactor": 0.25,
        "roughnessFactor": 0.5,
    }
    steel = new.json["materials"][result.parts[1].material]
    assert steel["doubleSided"] and "baseColorFactor" not in steel["pbrMetallicRoughness"]
    assert_painted(result, asset, 0.03)


def test_a_part_that_is_not_selected_stays_to_the_bit(tmp_path):
    (tmp_path / "in.glb").write_bytes(three_nodes().to_glb())
    asset = Asset.read(tmp_path / "in.glb", parts=["right"])
    layout = lay_out(asset, SIZE)
    assert layout.textures == 1 and {place.part for place in layout.places} == {2, 3}
    (tmp_path / "out.glb").write_bytes(textured(layout, painted(layout)).to_glb())
    new, old = Document.read(tmp_path / "out.glb"), asset.document
    for node in (1, 3):
        assert new.json["nodes"][node] == old.json["nodes"][node]
        mesh = old.json["nodes"][node]["mesh"]
        assert new.json["meshes"][mesh] == old.json["meshes"][mesh]
    assert new.json["materials"][:2] == old.json["materials"]
    assert new.json["textures"][0] == old.json["textures"][0] and new.image_bytes(0) == old.image_bytes(0)
    assert Asset.read(tmp_path / "out.glb").parts[0].colour.picture.getpixel((0, 0)) == (10, 20, 30)


def rigged() -> Document:
    """A box without usable coordinates, with all that a vertex can have."""
    document = Document.empty()
    points, normals, uv, faces = box_corners()
    rng = np.random.default_rng(0)
    attributes = {
        "POSITION": document.add_accessor(points),
        "NORMAL": document.add_accessor(normals),
        "TANGENT": document.add_accessor(np.concatenate([normals[:, [1, 2, 0]], np.ones((24, 1), "<f4")], axis=1)),
        "TEXCOORD_0": document.add_accessor((3 * uv).astype("<f4")),  # tiled
        "COLOR_0": document.add_accessor(rng.integers(0, 255, (24, 3)).astype("u1"), normalized=True),
        "JOINTS_0": document.add_accessor(np.zeros((24, 4), "u1")),
        "WEIGHTS_0": document.add_accessor(np.tile(np.array([[1, 0, 0, 0]], "<f4"), (24, 1))),
        "_HEAT": document.add_accessor(rng.normal(size=24).astype("<f4")),
    }
    document.set_limits(0)
    target = document.add_accessor(rng.normal(size=(24, 3)).astype("<f4"))
    document.set_limits(target)
    image = document.add_image(picture(), "wood")
    corners = document.add_accessor(faces.ravel(), INDICES)
    primitive = {"attributes": attributes, "indices": corners, "targets": [{"POSITION": target}], "material": 0}
    document.json |= {
        "textures": [{"source": image}],
        "meshes": [{"primitives": [primitive], "weights": [0.0]}],
        "materials": [{"normalTexture": {"index": 0}, "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "skins": [{"joints": [1]}],
        "nodes": [{"mesh": 0, "skin": 0}, {"name": "bone"}],
        "scenes": [{"nodes": [0, 1]}],
    }
    return document


def test_along_a_new_atlas_every_vertex_keeps_its_data(tmp_path):
    asset = written(rigged(), tmp_path)
    layout = lay_out(asset, SIZE)
    (place,) = layout.places
    result = again(layout, tmp_path)
    old, new = asset.document, result.document
    before, after = (document.json["meshes"][0]["primitives"][0] for document in (old, new))
    kept = [key for key in before["attributes"] if key != "COLOR_0"]
    # the normal map still reads set 0, as it was; the new texture reads set 1; vertex colours would multiply it
    assert sorted(after["attributes"]) == sorted([*kept, "TEXCOORD_1"])
    material = new.json["materials"][after["material"]]
    assert material["normalTexture"] == {"index": 0} and new.image_bytes(0) == picture()
    assert material["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] == 1
    faces = new.accessor(after["indices"]).reshape(-1, 3)
    for key in kept:
        was, index = old.rows(before["attributes"][key]), after["attributes"][key]
        np.testing.assert_array_equal(new.rows(index)[faces], was[asset.parts[0].faces])
        like, accessor = (d.json["accessors"][i] for d, i in ((old, before["attributes"][key]), (new, index)))
        assert without(like, "bufferView", "count") == without(accessor, "bufferView", "count")
        assert len(new.rows(index)) == len(place.source)
    moved = new.rows(after["targets"][0]["POSITION"])[faces]
    np.testing.assert_array_equal(moved, old.rows(before["targets"][0]["POSITION"])[asset.parts[0].faces])
    np.testing.assert_allclose(new.accessor(after["attributes"]["TEXCOORD_1"]), place.uv, atol=1e-7)
    assert_painted(result, asset, 0.03)


def test_what_is_replaced_leaves_the_file_and_nothing_else(tmp_path):
    spare = {"name": "spare"}
    old_file = png(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)))
    document = three_nodes()
    document.json["images"][0]["bufferView"] = document.add_view(old_file)
    document.json["materials"].append(spare)
    before = written(document, tmp_path)
    result = again(lay_out(before, SIZE), tmp_path)
    # the lamp's indices and positions, the old picture, and its old view, which had no user before either
    kinds = {kind: len(before.document.json[kind]) for kind in ("accessors", "images", "textures", "materials")}
    assert {kind: len(result.document.json[kind]) for kind in kinds} == {
        "accessors": kinds["accessors"] - 2 + 3,
        "images": 3,
        "textures": 3,
        "materials": 6,
    }
    assert spare in result.document.json["materials"]
    assert old_file in (tmp_path / "in.glb").read_bytes() and old_file not in (tmp_path / "out.glb").read_bytes()
    # with an extension that may refer to it, everything stays
    document.json["extensionsUsed"] = ["ACME_thing"]
    result = again(lay_out(written(document, tmp_path), SIZE), tmp_path)
    assert len(result.document.json["textures"]) == 4 and old_file in (tmp_path / "out.glb").read_bytes()


def test_extensions_that_are_no_longer_used_are_not_listed(tmp_path):
    """Those of the replaced textures go; those of other parts, and those that no object shows, stay."""
    glossy = "KHR_materials_pbrSpecularGlossiness"
    document = three_nodes()
    document.json["materials"][0] |= {"extensions": {glossy: {"diffuseTexture": {"index": 0}}}}
    document.json["textures"][0] = {"source": 0, "extensions": {"EXT_texture_webp": {"source": 0}}}
    document.json["materials"][1]["extensions"] = {"KHR_materials_ior": {"ior": 1.4}}
    used = [glossy, "EXT_texture_webp", "KHR_materials_ior", "KHR_mesh_quantization"]
    document.json |= {"extensionsUsed": used, "extensionsRequired": used[1:2]}
    for parts, expected in ((None, used[2:]), (["left"], used)):
        (tmp_path / "in.glb").write_bytes(document.to_glb())
        layout = lay_out(Asset.read(tmp_path / "in.glb", parts=parts), SIZE)
        found = textured(layout, painted(layout)).json
        assert found["extensionsUsed"] == expected
        assert found.get("extensionsRequired", []) == [name for name in used[1:2] if name in expected]
        assert "extensionsRequired" not in found or found["extensionsRequired"]


def test_a_spare_byte_goes_and_views_that_overlap_stay():
    data = bytes(range(100))
    extents = [(10, 20), (15, 30), (40, 4), (71, 9), (80, 8)]
    views = [{"buffer": 0, "byteOffset": start, "byteLength": length} for start, length in extents]
    images = [{"bufferView": 0}, {"bufferView": 1}, {"bufferView": 3}, {"bufferView": 4}]
    document = Document({"buffers": [{"byteLength": 100}], "bufferViews": views, "images": images}, [data])
    document.json["textures"] = [{"source": 0}, {"source": 1}, {"source": 2}, {"source": 3}]
    before = document.copy()
    before.json["images"].append({"bufferView": 2})
    before.json["textures"].append({"source": 4})
    drop_unused(document, before)
    assert len(document.json["bufferViews"]) == 4 and len(document.buffers[0]) == (45 - 8 + 3) + (88 - 68)
    for image, (start, length) in zip(document.json["images"], [extents[k] for k in (0, 1, 3, 4)], strict=True):
        assert bytes(document.view(image["bufferView"])) == data[start : start + length]
        assert (document.json["bufferViews"][image["bufferView"]]["byteOffset"] - start) % 4 == 0


def test_materials_of_all_kinds(tmp_path):
    transform = {"KHR_texture_transform": {"offset": [0.25, 0], "scale": [0.5, 0.5]}}
    glossy = {"diffuseFactor": [1, 0, 0, 0.5], "diffuseTexture": {"index": 0}, "glossinessFactor": 0.5}
    for material, expected in (
        (
            None,
            {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0, "baseColorTexture": {"index": 1}}},
        ),
        (
            {"extensions": {"KHR_materials_unlit": {}}, "name": "flat"},
            {
                "extensions": {"KHR_materials_unlit": {}},
                "name": "flat",
                "pbrMetallicRoughness": {
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                    "baseColorTexture": {"index": 1},
                },
            },
        ),
        (
            {
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0, "extensions": transform},
                    "roughnessFactor": 0.1,
                }
            },
            {"pbrMetallicRoughness": {"baseColorTexture": {"index": 1}, "roughnessFactor": 0.1}},
        ),
        (
            {"extensions": {"KHR_materials_pbrSpecularGlossiness": glossy}},
            {
                "pbrMetallicRoughness": {
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                    "baseColorTexture": {"index": 1},
                    "baseColorFactor": [1.0, 1.0, 1.0, 0.5],
                }
            },
        ),
    ):
        document = Document.empty()
        points, normals, uv, faces = box_corners()
        attributes = {"POSITION": document.add_accessor(points), "TEXCOORD_0": document.add_accessor(uv)}
        primitive = {"attributes": attributes, "indices": document.add_accessor(faces.ravel(), INDICES)}
        document.json |= {"textures": [{"source": document.add_image(picture(), "wood")}], "nodes": [{"mesh": 0}]}
        document.json |= {"scenes": [{"nodes": [0]}], "meshes": [{"primitives": [primitive]}]}
        if material is not None:
            document.json["materials"], primitive["material"] = [copy.deepcopy(material)], 0
        result = again(lay_out(written(document, tmp_path), SIZE), tmp_path)
        new = result.document.json["materials"][result.parts[0].material]
        texture = new["pbrMetallicRoughness"]["baseColorTexture"]["index"]
        assert texture == len(result.document.json["textures"]) - 1
        new["pbrMetallicRoughness"]["baseColorTexture"]["index"] = 1
        assert new == expected


def test_what_was_cut_out_by_alpha_stays_cut_out(tmp_path):
    document = three_nodes()
    leaf = Image.new("RGBA", (64, 64), (0, 255, 0, 255))
    leaf.paste((0, 255, 0, 0), (0, 0, 64, 32))
    leaf.save(tmp_path / "leaf.png")
    document.json["images"][0]["bufferView"] = document.add_view((tmp_path / "leaf.png").read_bytes())
    document.json["materials"][0]["alphaMode"] = "MASK"
    asset = written(document, tmp_path)
    result = again(lay_out(asset, SIZE), tmp_path)
    alpha = np.asarray(result.parts[0].colour.picture)[..., 3]
    assert alpha[: SIZE // 2 - 2].max() == 0 and alpha[SIZE // 2 + 2 :].min() == 255
    material = result.document.json["materials"][result.parts[0].material]
    assert material["alphaMode"] == "MASK" and material["pbrMetallicRoughness"]["baseColorFactor"][3] == 0.75
    assert result.parts[4].colour.picture.mode == "RGB"


def test_the_validator_finds_no_fault(tmp_path):
    if reason := validator.missing():
        pytest.skip(reason)
    body = trimesh.creation.capsule(height=1.0, radius=0.4, count=[10, 10])
    for suffix in ("stl", "ply", "obj", "glb"):
        body.export(tmp_path / f"{suffix}.{suffix}")
    (tmp_path / "scene.glb").write_bytes(three_nodes().to_glb())
    (tmp_path / "rigged.glb").write_bytes(rigged().to_glb())
    outputs = []
    for source in sorted(tmp_path.iterdir()):
        for parts in (None, ["right"]) if source.stem == "scene" else (None,):
            layout = lay_out(Asset.read(source, parts=parts), SIZE)
            outputs += save_asset(layout, painted(layout), tmp_path, f"out{len(outputs)}")
    assert len(outputs) == 7
    for path, report in zip(outputs, validator.reports(*outputs), strict=True):
        problems = [message for message in report["messages"] if message["severity"] < 2]
        assert report["numErrors"] == report["numWarnings"] == 0, (path.name, json.dumps(problems))
