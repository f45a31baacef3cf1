"""Where the selected parts of an asset lie in textures: by their own coordinates where these can be painted, else in one
atlas that they share; and what lies under each texel.

A part keeps its coordinates if `uv.own_texels` finds no fault. Parts share a texture where they do not overlap; those that
do, as instances of a mesh, get textures of their own. Row 0 of a picture is its top; coordinates are glTF's, whose origin
is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from latent_prior import OptionError, host
from latent_prior.files import shown
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.atlas import TIMEOUT, best_atlas
from latent_prior.meshes.uv import MOST_TWICE, TEST_SIZE, barycentric, nearest_covered, own_texels, rasterise

MOST_KEPT = 16  # textures for parts that keep their coordinates; others of them join the atlas


@dataclass(frozen=True, eq=False)
class Place:
    """A part (its index in the asset) in a texture.

    uv and faces: one face for each of the part's, in its order. source: the part's vertex behind each row of uv; None if
    the part keeps its own coordinates, so that the rows are its vertices.
    """

    part: int
    texture: int
    uv: Float[np.ndarray, "M 2"]
    faces: Int[np.ndarray, "F 3"]
    source: Int[np.ndarray, " M"] | None


@dataclass(frozen=True, eq=False)
class Texels:
    """The covered texels of a texture of `size` x `size`.

    rows, columns: where they are. place: index in the layout's places; face: of that part; weights: of the face's
    corners. points, normals: in the frame of training. nearest: for every texel of the picture the index of the covered
    one nearest to it, itself or one across a gutter.
    """

    size: int
    rows: Int[np.ndarray, " K"]
    columns: Int[np.ndarray, " K"]
    place: Int[np.ndarray, " K"]
    face: Int[np.ndarray, " K"]
    weights: Float[np.ndarray, "K 3"]
    points: Float[np.ndarray, "K 3"]
    normals: Float[np.ndarray, "K 3"]
    nearest: Int[np.ndarray, "S S"]

    def picture(self, values: Shaped[np.ndarray, "K C"]) -> Shaped[np.ndarray, "S S C"]:
        """Values of the covered texels as a picture, whose gutters take their nearest neighbour's."""
        return values[self.nearest]

    @property
    def gutters(self) -> Shaped[np.ndarray, "S S"]:
        """Which texels no face covers."""
        found = np.ones((self.size, self.size), bool)
        found[self.rows, self.columns] = False
        return found


@dataclass(frozen=True, eq=False)
class Layout:
    """Textures for the selected parts of an asset, numbered from 0."""

    asset: Asset
    places: tuple[Place, ...]
    textures: int

    def texels(self, texture: int, size: int) -> Texels:
        """What lies under the texels of a texture. Where parts overlap a little, the last counts.

        OptionError for a size at which no face covers a texel.
        """
        owner = np.full((2, size * size), -1)
        for index, place in enumerate(self.places):
            if place.texture == texture:
                for face, row, column in rasterise(place.uv[place.faces] * size, size):
                    owner[:, row * size + column] = np.stack([np.full(len(face), index), face])
        cells = np.flatnonzero(owner[0] >= 0)
        if not len(cells):
            raise OptionError("texture_size", size, "more, so that a texel's centre lies in a face")
        rows, columns = cells // size, cells % size
        which, faces = owner[:, cells]
        weights, points, normals = np.zeros((3, len(cells), 3))
        centres = np.stack([columns, rows], axis=1) + 0.5
        for index in np.unique(which):
            here, place = which == index, self.places[index]
            part, face = self.asset.parts[place.part], faces[here]
            weights[here] = share = barycentric(centres[here], place.uv[place.faces[face]] * size)
            corners = part.faces[face]
            points[here] = np.einsum("kc,kca->ka", share, part.vertices[corners])
            normals[here] = np.einsum("kc,kca->ka", share, part.vertex_normals()[corners])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(min=1e-12)
        number = np.zeros((size, size), np.int64)
        number[rows, columns] = np.arange(len(cells))
        near = nearest_covered(rows, columns, size)
        asset = self.asset
        return Texels(
            size,
            rows,
            columns,
            which,
            faces,
            weights,
            asset.world(points),
            asset.world_directions(normals),
            number[near[0], near[1]],
        )

    def base_colours(self, texels: Texels) -> Float[np.ndarray, "K 4"]:
        """The asset's own base colour under each covered texel, RGBA in linear light."""
        found = np.ones((len(texels.rows), 4), np.float32)
        for index in np.unique(texels.place):
            here = texels.place == index
            part = self.asset.parts[self.places[index].part]
            found[here] = part.colour.at(part.faces[texels.face[here]], texels.weights[here])
        return found


def lay_out(asset: Asset, size: int = 1024, timeout: float = TIMEOUT) -> Layout:
    """Textures for the selected parts. size: of a texture, for the gaps of an atlas; timeout: seconds for xatlas."""
    kept: dict[int, int] = {}  # texture by part
    taken: list[np.ndarray] = []  # which texels of each texture
    found: dict[tuple[int, int], Any] = {}  # what instances have in common
    for index, part in enumerate(asset.parts):
        if not part.selected or part.uv is None:
            continue
        if (key := (part.mesh, part.primitive)) not in found:
            found[key] = own_texels(part)
        own = found[key]
        if isinstance(own, str):
            host.info(f"{shown(part.name)}: its texture coordinates are replaced, since {own}")
            continue
        fits = (number for number, other in enumerate(taken) if other[own].sum() <= MOST_TWICE * len(own))
        if (number := next(fits, len(taken))) < MOST_KEPT:
            kept[index] = number
            if number == len(taken):
                taken.append(np.zeros(TEST_SIZE**2, bool))
            taken[number][own] = True
    textures = len(taken)
    places = [
        Place(index, texture, asset.parts[index].uv, asset.parts[index].faces, None) for index, texture in kept.items()
    ]
    others = [index for index, part in enumerate(asset.parts) if part.selected and index not in kept]
    if others:
        places += _new_places(asset, others, textures, size, timeout)
        textures += 1
    return Layout(asset, tuple(places), textures)


def _new_places(asset: Asset, parts: Sequence[int], texture: int, size: int, timeout: float) -> Iterator[Place]:
    """The parts in one atlas, at one number of texels for an area of the surface."""
    vertices = [asset.world(asset.parts[index].vertices) for index in parts]
    starts = np.concatenate([[0], np.cumsum([len(points) for points in vertices])])
    faces = [asset.parts[index].faces + start for index, start in zip(parts, starts, strict=False)]
    atlas = best_atlas(np.concatenate(vertices), np.concatenate(faces), size, timeout)
    first = 0
    for index, start, own in zip(parts, starts, faces, strict=False):
        rows, corners = np.unique(atlas.faces[first : first + len(own)], return_inverse=True)
        yield Place(index, texture, atlas.uv[rows], corners.reshape(-1, 3), atlas.source[rows] - start)
        first += len(own)
