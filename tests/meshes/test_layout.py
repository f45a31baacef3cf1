"""What lies under the texels of a scene's textures."""

import numpy as np
import pytest
import trimesh
from latent_prior.meshes import layout as layouts
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.layout import lay_out
from meshes.scenes import three_nodes

SIZE = 128


def scene(folder) -> Asset:
    (folder / "in.glb").write_bytes(three_nodes().to_glb())
    return Asset.read(folder / "in.glb")


def test_texels_lie_on_the_surface_that_the_part_has_there(tmp_path):
    asset = scene(tmp_path)
    layout = lay_out(asset, SIZE)
    # the box's two halves share a texture, its instance has its own; the lamp has no coordinates
    assert [(place.part, place.texture, place.source is None) for place in layout.places] == [
        (0, 0, True),
        (1, 0, True),
        (2, 1, True),
        (3, 1, True),
        (4, 2, False),
    ]
    for number in range(3):
        texels = layout.texels(number, SIZE)
        part = asset.parts[layout.places[int(texels.place[0])].part]
        gutters = np.ones((SIZE, SIZE), bool)
        gutters[texels.rows, texels.columns] = False
        assert len(texels.rows) + gutters.sum() == SIZE**2
        for index in np.unique(texels.place):
            here = texels.place == index
            place = layout.places[index]
            part = asset.parts[place.part]
            centres = np.stack([texels.columns[here], texels.rows[here]], axis=1) + 0.5
            at = np.einsum("kc,kca->ka", texels.weights[here], place.uv[place.faces[texels.face[here]]])
            np.testing.assert_allclose(at * SIZE, centres, atol=1e-6)
            corners = asset.world(part.vertices)[part.faces[texels.face[here]]]
            np.testing.assert_allclose(
                np.einsum("kc,kca->ka", texels.weights[here], corners), texels.points[here], atol=1e-9
            )
            if part.normals is not None:  # of a box: flat
                flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
                flat /= np.linalg.norm(flat, axis=1, keepdims=True)
                np.testing.assert_allclose(texels.normals[here], flat, atol=1e-5)
        # a gutter's texel takes the value of the covered one nearest to it
        covered = np.stack([texels.rows, texels.columns], axis=1)
        for row, column in np.argwhere(gutters)[::97]:
            distance = np.linalg.norm(covered - [row, column], axis=1)
            assert distance[texels.nearest[row, column]] == pytest.approx(distance.min())


def test_the_old_texture_on_the_new_texels(tmp_path):
    asset = scene(tmp_path)
    layout = lay_out(asset, SIZE)
    texels = layout.texels(0, SIZE)
    found = layout.base_colours(texels)
    wood = texels.place == 0
    light = np.array([0.5, 0.25, 1]) * [0.578, 0.0452, 0.0130]  # of (200, 60, 30) in linear light, times the factor
    middle = wood & (texels.rows > SIZE // 4)  # away from the dark texel
    np.testing.assert_allclose(found[middle][:, :3], np.tile(light, (middle.sum(), 1)), rtol=0.02)
    np.testing.assert_allclose(found[wood][:, 3], 0.75)
    steel = texels.place == 1
    np.testing.assert_allclose(found[steel], np.tile(np.float32([0.2, 0.2, 0.3, 1]), (steel.sum(), 1)))


def test_many_parts_are_placed_at_once(tmp_path, monkeypatch):
    """A pass over all texels for each of a thousand parts would take as long as all the rest."""
    boxes = [trimesh.creation.box().apply_translation([2 * k, 0, 0]) for k in range(20)]
    trimesh.Scene(boxes).export(tmp_path / "boxes.glb")
    layout = lay_out(Asset.read(tmp_path / "boxes.glb"), SIZE)
    calls, barycentric = [], layouts.barycentric
    monkeypatch.setattr(layouts, "barycentric", lambda *a: calls.append(len(a[0])) or barycentric(*a))
    texels = layout.texels(0, SIZE)
    assert calls == [len(texels.rows)] and len(np.unique(texels.place)) == 20
