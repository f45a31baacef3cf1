"""Assets against scenes whose places, colours and frames are known."""

import itertools

import numpy as np
import pytest
import trimesh
from latent_prior import OptionError
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.asset_files import save_asset
from latent_prior.meshes.files import linear_to_srgb, save_mesh
from latent_prior.meshes.gltf import Document
from latent_prior.meshes.layout import lay_out
from latent_prior.meshes.nodes import local_matrix
from meshes.scenes import three_nodes


@pytest.fixture(scope="module")
def wedge():
    """A body that differs along every axis, its corners far from the origin: x is longest, then y, then z."""
    body = trimesh.creation.box(extents=[3.0, 2.0, 1.0])
    body.vertices += 0.3 * (body.vertices[:, :1] > 0) * (body.vertices[:, 1:2] > 0) + [10, -20, 30]
    return body


def test_every_format_lies_where_blender_shows_it(wedge, tmp_path):
    for suffix in ("stl", "ply", "off", "obj", "glb"):
        wedge.export(tmp_path / f"wedge.{suffix}")
        asset = Asset.read(tmp_path / f"wedge.{suffix}")
        (part,) = asset.parts
        x, y, z = wedge.bounds.T
        expected = (
            [x, y, z] if suffix in ("obj", "glb") else [x, z, [-y[1], -y[0]]]
        )  # Blender: (x, z, -y) from (x, y, z)
        found = np.stack([part.vertices.min(axis=0), part.vertices.max(axis=0)], axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert len(part.faces) == len(wedge.faces)
        world = asset.world(part.vertices)
        assert np.linalg.norm(world, axis=1).max() == pytest.approx(0.8)
        np.testing.assert_allclose(world.min(axis=0), -world.max(axis=0), atol=1e-6)
        # up is the last axis, the front the first: y and z where y is up, z and -y elsewhere
        lengths = wedge.extents[[2, 0, 1]] if suffix in ("obj", "glb") else wedge.extents[[1, 0, 2]]
        np.testing.assert_allclose(np.ptp(world, axis=0) / np.ptp(world), lengths / wedge.extents.max(), atol=1e-5)


def test_a_mesh_in_a_maps_coordinates_keeps_its_shape(tmp_path, caplog):
    """Single precision there has steps of half a metre."""
    ball = trimesh.creation.icosphere(2, 0.5)
    there = ball.vertices + [500_000, 120, 4_500_000]
    (tmp_path / "ball.obj").write_text(
        "\n".join(
            [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in there] + [f"f {a} {b} {c}" for a, b, c in ball.faces + 1]
        )
    )
    asset = Asset.read(tmp_path / "ball.obj")
    layout = lay_out(asset, 64)
    files = save_asset(layout, [np.zeros((64, 64, 3), np.uint8)], tmp_path, "out", ("glb", "obj"))
    for part in (asset.parts[0], *(Asset.read(path).parts[0] for path in files[:2])):
        np.testing.assert_allclose(part.vertices[part.faces], there[ball.faces], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(asset.world(asset.parts[0].vertices), axis=1), 0.8, atol=1e-5)
    save_asset(layout, [np.zeros((64, 64, 3), np.uint8)], tmp_path, "out", ("ply",))
    assert "single precision, which has steps of 0.5 there" in caplog.text


def test_up_and_front_turn_the_frame_and_never_mirror_it(wedge, tmp_path):
    wedge.export(tmp_path / "w.stl")
    axes = ("x", "-x", "y", "-y", "z", "-z")
    signs = {axis: (-1 if axis[0] == "-" else 1) * np.eye(3)["xyz".index(axis[-1])] for axis in axes}
    usual = np.linalg.inv(Asset.read(tmp_path / "w.stl", up="z", front="x").to_world[:3, :3])
    for up, front in itertools.product(axes, axes):
        if up[-1] == front[-1]:
            with pytest.raises(
                OptionError, match=rf"system.geometry.front is '{front}'; expected another axis than up"
            ):
                Asset.read(tmp_path / "w.stl", up=up, front=front)
            continue
        # with up z and front x the frame of training is the file's own, so the rest is a turn of the file
        turn = Asset.read(tmp_path / "w.stl", up=up, front=front).to_world[:3, :3] @ usual
        np.testing.assert_allclose(turn @ signs[up], [0, 0, 1], atol=1e-9)
        np.testing.assert_allclose(turn @ signs[front], [1, 0, 0], atol=1e-9)
        assert np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(
        Asset.read(tmp_path / "w.stl", up="y").to_world, Asset.read(tmp_path / "w.stl", "y", "z").to_world
    )
    for axis in ("w", "", "xy", "+z"):
        with pytest.raises(OptionError, match="system.geometry.up is .*; expected one of x, -x, y"):
            Asset.read(tmp_path / "w.stl", up=axis)


def test_files_of_ours_stand_as_they_were(wedge, tmp_path):
    """Their front is the world's +x, whatever axis is up in them."""
    for suffix, up in (
        ("ply", None),
        ("ply", "y"),
        ("stl", None),
        ("stl", "y"),
        ("obj", None),
        ("obj", "z"),
        ("glb", None),
    ):
        save_mesh(wedge, tmp_path / f"m.{suffix}", up=up)
        asset = Asset.read(tmp_path / f"m.{suffix}")
        corners = asset.parts[0].vertices[asset.parts[0].faces]
        world = asset.world(corners.reshape(-1, 3))
        scale = np.linalg.norm(asset.to_world[0, :3])
        truth = (wedge.vertices[wedge.faces].reshape(-1, 3) - wedge.bounds.mean(axis=0)) * scale
        np.testing.assert_allclose(world, truth, atol=1e-5)


def test_a_scene_comes_apart_into_its_parts(tmp_path):
    (tmp_path / "scene.glb").write_bytes(three_nodes().to_glb())
    asset = Asset.read(tmp_path / "scene.glb")
    assert [part.name for part in asset.parts] == ["left", "left.1", "right", "right.1", "lamp"]
    left, right, lamp = asset.parts[0], asset.parts[2], asset.parts[4]
    box = np.array([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]])
    # the root doubles; left is moved by 1 along x, right mirrored and moved by -1; the lamp is turned a quarter about y
    np.testing.assert_allclose([left.vertices.min(0), left.vertices.max(0)], 2 * (box + [1, 0, 0]), atol=1e-6)
    np.testing.assert_allclose([right.vertices.min(0), right.vertices.max(0)], 2 * (box + [-1, 0, 0]), atol=1e-6)
    np.testing.assert_allclose([lamp.vertices.min(0), lamp.vertices.max(0)], [[-2, 4, -6], [2, 6, 6]], atol=1e-6)
    assert right.mirrored and not left.mirrored
    for part in asset.parts:  # seen from outside, mirrored or not
        whole = trimesh.Trimesh(part.vertices, part.faces, process=False)
        outwards = (whole.triangles_center - part.vertices.mean(axis=0)) * whole.face_normals
        assert (outwards.sum(axis=1) > 0).all()
        if part.normals is not None:
            np.testing.assert_allclose(part.normals[part.faces[:, 0]], whole.face_normals, atol=1e-5)
    assert left.material == right.material == 0 and asset.parts[1].material == 1


def test_parts_are_selected_by_the_names_of_nodes_meshes_and_parts(tmp_path):
    (tmp_path / "scene.glb").write_bytes(three_nodes().to_glb())
    for names, chosen in (
        (None, [0, 1, 2, 3, 4]),
        (["left"], [0, 1]),
        (["Box"], [0, 1, 2, 3]),
        (["left.1", "lamp"], [1, 4]),
    ):
        asset = Asset.read(tmp_path / "scene.glb", parts=names)
        assert [index for index, part in enumerate(asset.parts) if part.selected] == chosen
        assert len(asset.selected) == len(chosen)
    with pytest.raises(OptionError, match="system.geometry.parts is 'top'; expected names of .*: left, right, lamp$"):
        Asset.read(tmp_path / "scene.glb", parts=["left", "top"])
    with pytest.raises(OptionError, match="system.geometry.parts is"):
        Asset.read(tmp_path / "scene.glb", parts=[])


def test_a_nodes_matrix():
    rotation = trimesh.transformations.random_quaternion(np.array([0.2, 0.5, 0.7]))  # w first
    expected = trimesh.transformations.quaternion_matrix(rotation) @ np.diag([2.0, 3, 4, 1])
    expected[:3, 3] = [5, 6, 7]
    node = {"translation": [5, 6, 7], "rotation": [*rotation[1:], rotation[0]], "scale": [2, 3, 4]}
    np.testing.assert_allclose(local_matrix(node, "n"), expected, atol=1e-9)
    np.testing.assert_allclose(local_matrix({"matrix": expected.T.ravel().tolist()}, "n"), expected)


def test_strips_and_fans_are_triangles(tmp_path):
    ring = np.array([[np.cos(a), np.sin(a), 0] for a in np.linspace(0, 2 * np.pi, 7)[:-1]], "<f4")
    for mode, order in ((6, [0, 1, 2, 3, 4, 5]), (5, [0, 1, 5, 2, 4, 3])):
        document = Document.empty()
        index = document.add_accessor(ring)
        primitive = {"attributes": {"POSITION": index}, "mode": mode}
        primitive["indices"] = document.add_accessor(np.array(order, "<u2"), 34963)
        document.add("meshes", {"primitives": [primitive]})
        document.json["scenes"][0]["nodes"] = [document.add("nodes", {"mesh": 0})]
        (tmp_path / "a.glb").write_bytes(document.to_glb())
        (part,) = Asset.read(tmp_path / "a.glb").parts
        assert len(part.faces) == 4 and part.name == "node 0"
        area = np.cross(*(part.vertices[part.faces][:, k] - part.vertices[part.faces][:, 0] for k in (1, 2)))[:, 2] / 2
        assert (area > 0).all() and area.sum() == pytest.approx(1.5 * 3**0.5)  # of a hexagon


def test_colours_and_places_through_all_parts(tmp_path):
    """Against each part on its own; faces come in any order."""
    (tmp_path / "scene.glb").write_bytes(three_nodes().to_glb())
    asset = Asset.read(tmp_path / "scene.glb")
    vertices, faces = asset.joined()
    numbers = np.random.default_rng(0).permutation(len(faces))
    weights = np.random.default_rng(1).dirichlet(np.ones(3), len(faces))
    found = asset.colours_at(numbers, weights)
    for number, weight, colour in zip(numbers, weights, found, strict=True):
        part, own = next(
            (part, number - first)
            for part, first in zip(asset.parts, asset.first_faces, strict=True)
            if first <= number < first + len(part.faces)
        )
        np.testing.assert_array_equal(vertices[faces[number]], part.vertices[part.faces[own]])
        np.testing.assert_allclose(colour, linear_to_srgb(part.colour.at(part.faces[own][None], weight[None])[0, :3]))
    lamp, first = asset.parts[4], asset.parts[0]
    some, corners = asset.joined([4, 0])
    np.testing.assert_array_equal(some[corners], np.concatenate([p.vertices[p.faces] for p in (lamp, first)]))
    assert asset.colours_at(numbers[:0], weights[:0]).shape == (0, 3)


def test_a_skinned_mesh_stands_at_its_joints(tmp_path):
    """Its node's own transform has no effect (glTF 2.0, section 3.7.3.3); each vertex is a mean of its joints' places."""
    document = Document.empty()
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    attributes = {
        "POSITION": document.add_accessor(points),
        "NORMAL": document.add_accessor(np.tile(np.array([[0, 0, 1]], "<f4"), (3, 1))),
        "JOINTS_0": document.add_accessor(np.array([[0, 1, 0, 0]] * 3, "u1")),
        "WEIGHTS_0": document.add_accessor(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, 0]], "<f4")),
    }
    document.add("meshes", {"primitives": [{"attributes": attributes}]})
    inverse = np.tile(np.eye(4, dtype="<f4"), (2, 1, 1))
    inverse[1, :3, 3] = [0, 0, 5]
    rows = np.ascontiguousarray(inverse.transpose(0, 2, 1)).view(np.uint8).reshape(2, -1)
    bind = document.add_rows(rows, {"componentType": 5126, "type": "MAT4"}, None)
    document.json["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},
        {"children": [2], "translation": [0, 0, 1]},
        {"scale": [2, 2, 2]},
    ]
    document.json["skins"] = [{"joints": [1, 2], "inverseBindMatrices": bind}]
    document.json["scenes"][0]["nodes"] = [0, 1]
    (tmp_path / "a.glb").write_bytes(document.to_glb())
    (part,) = Asset.read(tmp_path / "a.glb").parts
    # joint 0 adds 1 to z; joint 1 doubles what lies 5 higher, and adds 1
    np.testing.assert_allclose(part.vertices, [[0, 0, 1], [2, 0, 11], [0, 1.5, 6]], atol=1e-6)
    np.testing.assert_allclose(part.normals, [[0, 0, 1]] * 3, atol=1e-6)
