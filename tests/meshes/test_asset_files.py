"""Files of every format that an asset is written to, read again."""

import numpy as np
import pytest
import trimesh
from latent_prior import OptionError
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.asset_files import save_asset
from latent_prior.meshes.layout import lay_out
from meshes.painting import SIZE, assert_painted, painted
from meshes.scenes import three_nodes


@pytest.mark.parametrize("suffix", ["stl", "ply", "obj", "glb", "off"])
def test_files_of_every_format_are_painted_in_place(tmp_path, suffix):
    body = trimesh.creation.capsule(height=1.0, radius=0.4, count=[10, 10])
    body.vertices = body.vertices * [1, 0.6, 1] + [3, 1, -2]
    body.export(tmp_path / f"in.{suffix}")
    asset = Asset.read(tmp_path / f"in.{suffix}")
    layout = lay_out(asset, SIZE)
    files = save_asset(layout, painted(layout), tmp_path, "out", ("glb", "obj", "ply"))
    assert [path.name for path in files] == ["out.glb", "out.obj", "out.mtl", "out.png", "out.ply"]
    for path in (files[0], files[1], files[4]):
        other = Asset.read(path)
        np.testing.assert_allclose(
            other.parts[0].vertices[other.parts[0].faces], asset.parts[0].vertices[asset.parts[0].faces], atol=2e-6
        )
        if path.suffix != ".ply":
            assert_painted(other, asset, 0.05)
    read = trimesh.load(files[4], process=False)
    place = asset.world(asset.parts[0].vertices) / 1.6 + 0.5
    assert len(read.vertices) == len(asset.parts[0].vertices)
    assert np.abs(read.visual.vertex_colors[:, :3] / 255 - place).max() < 0.05
    with pytest.raises(OptionError, match="formats is 'fbx'; expected some of glb, obj, ply"):
        save_asset(layout, painted(layout), tmp_path, "out", ["fbx"])


def test_an_obj_holds_all_parts_and_their_materials(tmp_path):
    (tmp_path / "in.glb").write_bytes(three_nodes().to_glb())
    asset = Asset.read(tmp_path / "in.glb", parts=["left"])
    files = save_asset(lay_out(asset, SIZE), painted(lay_out(asset, SIZE)), tmp_path, "out", ["obj"])
    assert [path.name for path in files] == ["out.obj", "out.mtl", "out.png", "out_1.png"]
    result = Asset.read(files[0])
    found = sorted(len(part.faces) for part in result.parts)
    assert found == sorted(len(part.faces) for part in asset.parts)
    corners = [np.concatenate([part.vertices[part.faces].mean(axis=1) for part in a.parts]) for a in (asset, result)]
    first, second = (points[np.lexsort(points.round(4).T)] for points in corners)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_an_obj_keeps_the_vertex_colours_of_parts_that_are_not_textured(tmp_path):
    """One part is textured, one has colours at its vertices, one is of one colour, and one has a picture."""
    document = three_nodes()
    colours = np.random.default_rng(0).integers(0, 65535, (8, 3)).astype("<u2")
    bulb = document.json["meshes"][1]["primitives"][0]["attributes"]
    bulb["COLOR_0"] = document.add_accessor(np.pad(colours, ((0, 0), (0, 1)), constant_values=65535), normalized=True)
    # our reader takes the picture of an .obj alone
    document.json["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [1.0, 1.0, 1.0, 1.0]
    (tmp_path / "in.glb").write_bytes(document.to_glb())
    asset = Asset.read(tmp_path / "in.glb", parts=["right"])
    layout = lay_out(asset, SIZE)
    (path, *_) = save_asset(layout, painted(layout), tmp_path, "out", ["obj"])
    found = []
    for read in (asset, Asset.read(path)):
        vertices, faces = read.joined()
        middles = vertices[faces].mean(axis=1)
        shown = read.colours_at(np.arange(len(faces)), np.full((len(faces), 3), 1 / 3))
        if read is asset:
            textured = np.repeat([part.selected for part in asset.parts], [len(part.faces) for part in asset.parts])
            shown[textured] = asset.world(middles[textured]) / 1.6 + 0.5
        found.append(np.concatenate([middles, shown], axis=1)[np.lexsort(middles.round(3).T)])
    np.testing.assert_allclose(found[1], found[0], atol=0.03)
