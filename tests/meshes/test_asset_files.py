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
