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
from latent_prior.meshes.parts import grouped
from latent_prior.meshes.uv import MOST_TWICE, TEST_SIZE, barycentric, nearest_covered, own_texels, rasterise

BAND = 1 << 18  # texels whose places are computed at a time
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
    """The covered texels of a texture.

    rows, columns: where they are. place: index in the layout's places; face: of that part; weights: of the face's
    corners. points, normals: in the frame of training. nearest: for every texel of the picture the index of the covered
    one nearest to it, itself or one across a gutter.
    """

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
        own = [index for index, place in enumerate(self.places) if place.texture == texture]
        places, asset = [self.places[index] for index in own], self.asset
        corners = np.concatenate([place.uv[place.faces] for place in places]) * size
        owner = np.full(size * size, -1, np.int32)
        for face, row, column in rasterise(corners, size):
            owner[row * size + column] = face
        cells = np.flatnonzero(owner >= 0)
        if not len(cells):
            raise OptionError("texture_size", size, "more, so that a texel's centre lies in a face")
        rows, columns, faces = cells // size, cells % size, owner[cells]
        parts = [place.part for place in places]
        vertices, triangles = asset.joined(parts)
        vertices = asset.world(vertices)
        across = asset.world_directions(np.concatenate([asset.parts[part].vertex_normals() for part in parts]))
        weights, points, normals = np.empty((3, len(cells), 3))
        for start in range(0, len(cells), BAND):
            band = slice(start, start + BAND)
            face, centres = faces[band], np.stack([columns[band], rows[band]], axis=1) + 0.5
            weights[band] = share = barycentric(centres, corners[face])
            points[band] = np.einsum("kc,kca->ka", share, vertices[triangles[face]])
            normal = np.einsum("kc,kca->ka", share, across[triangles[face]])
            normals[band] = normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(min=1e-12)
        firsts = np.cumsum([0, *(len(place.faces) for place in places[:-1])])
        place = np.searchsorted(firsts, faces, side="right") - 1
        owner[cells] = np.arange(len(cells))
        nearest = owner[np.ravel_multi_index(tuple(nearest_covered(rows, columns, size)), (size, size))]
        return Texels(rows, columns, np.array(own)[place], faces - firsts[place], weights, points, normals, nearest)

    def base_colours(self, texels: Texels) -> Float[np.ndarray, "K 4"]:
        """The asset's own base colour under each covered texel, RGBA in linear light."""
        found = np.ones((len(texels.rows), 4), np.float32)
        for index, here in grouped(texels.place):
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
    vertices, faces = asset.joined(parts)
    atlas = best_atlas(asset.world(vertices), faces, size, timeout)
    first = start = 0
    for index in parts:
        part = asset.parts[index]
        rows, corners = np.unique(atlas.faces[first : first + len(part.faces)], return_inverse=True)
        yield Place(index, texture, atlas.uv[rows], corners.reshape(-1, 3), atlas.source[rows] - start)
        first, start = first + len(part.faces), start + len(part.vertices)
