"""Texture coordinates as triangles over a grid of texels: which texel lies in which face, and whether they can be used.

Coordinates here are glTF's times the size of the texture: column and row of a texel's centre are its index plus a half.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from latent_prior.meshes.parts import Part, cross_products

CHUNK = 1 << 21  # rows of triangles expanded at a time
TEST_SIZE = 512  # texels along the texture in which overlaps are looked for
OUTSIDE = 1e-3  # by which coordinates may leave [0, 1]
LEAST_COVERED = 1e-3  # of a texture; less would leave a part only a few texels
MOST_TWICE = 0.03  # of the covered texels that may lie under more than one face
SQUEEZED = 1e-4  # of the mean number of texels for an area, below which there is nothing to paint on
MOST_SQUEEZED = 0.01  # of the surface that may be so


def rasterise(
    corners: Float[np.ndarray, "F 3 2"], size: int
) -> Iterator[tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"], Int[np.ndarray, " K"]]]:
    """Face, row and column of every texel whose centre lies in a face, in portions.

    A centre on an edge belongs to the face right of it or below; so faces that share an edge, by equal numbers, have no
    texel in common and none is left out between them.
    """
    order = np.argsort(corners[..., 1], axis=1, kind="stable")
    low, middle, high = (np.take_along_axis(corners, order[:, k, None, None], axis=1)[:, 0] for k in range(3))
    first, last = (_first_at(end[:, 1], size) for end in (low, high))
    heights = np.maximum(last - first, 0)
    ends = heights.cumsum()
    start = 0
    while start < len(corners):
        stop = max(int(np.searchsorted(ends, (ends[start - 1] if start else 0) + CHUNK, side="right")), start + 1)
        face, row = _expanded(first[start:stop], heights[start:stop])
        face += start
        y = row + 0.5
        long = _crossing(low[face], high[face], y)
        upper = (y < middle[face, 1])[:, None]
        short = _crossing(np.where(upper, low[face], middle[face]), np.where(upper, middle[face], high[face]), y)
        left, right = (_first_at(x, size) for x in (np.minimum(long, short), np.maximum(long, short)))
        span, column = _expanded(left, np.maximum(right - left, 0))
        yield face[span], row[span], column
        start = stop


def _first_at(place: Float[np.ndarray, " R"], size: int) -> Int[np.ndarray, " R"]:
    """The first index whose centre is not before a place."""
    return np.ceil(place - 0.5).clip(0, size).astype(np.int64)


def _crossing(low: Float[np.ndarray, "R 2"], high: Float[np.ndarray, "R 2"], y: Float[np.ndarray, " R"]) -> np.ndarray:
    """Where edges cross rows. The lower end comes first, whichever face asks, so that all faces get the same number."""
    return low[:, 0] + (y - low[:, 1]) * ((high[:, 0] - low[:, 0]) / (high[:, 1] - low[:, 1]))


def _expanded(first: Int[np.ndarray, " N"], counts: Int[np.ndarray, " N"]) -> tuple[np.ndarray, np.ndarray]:
    """For ranges of whole numbers: the range that each number is of, and the number."""
    owner = np.repeat(np.arange(len(first)), counts)
    return owner, np.arange(len(owner)) - np.repeat(counts.cumsum() - counts - first, counts)


def coverage(
    uv: Float[np.ndarray, "N 2"], faces: Int[np.ndarray, "F 3"], size: int = TEST_SIZE
) -> Int[np.ndarray, "S S"]:
    """How many faces each texel lies in."""
    counts = np.zeros(size * size, np.int64)
    for _, row, column in rasterise(uv[faces] * size, size):
        counts += np.bincount(row * size + column, minlength=size * size)
    return counts.reshape(size, size)


def shared(counts: Int[np.ndarray, "S S"]) -> float:
    """The share of the covered texels that more than one face covers."""
    return float((counts > 1).sum() / max((counts > 0).sum(), 1))


def own_texels(part: Part) -> Int[np.ndarray, " K"] | str:
    """The texels of TEST_SIZE x TEST_SIZE that the part covers by its own coordinates; why it cannot be painted by them."""
    if part.uv is None:
        return "there are none"
    corners = part.uv[part.faces]
    if not np.isfinite(corners).all() or corners.min() < -OUTSIDE or corners.max() > 1 + OUTSIDE:
        return "they leave the texture"
    flat = np.abs(areas(corners))
    if flat.sum() < LEAST_COVERED:
        return f"they cover {flat.sum():.2%} of the texture"
    if flat.sum() > 1 + MOST_TWICE:
        return "faces overlap"
    counts = coverage(part.uv, part.faces)
    if (twice := shared(counts)) > MOST_TWICE:
        return f"faces overlap at {twice:.0%} of their texels"
    solid = np.linalg.norm(cross_products(part.vertices[part.faces]), axis=1) / 2
    if not solid.sum() > 0:
        return "the surface has no area"
    lost = solid[flat * solid.sum() < SQUEEZED * flat.sum() * solid].sum() / solid.sum()
    if lost > MOST_SQUEEZED:
        return f"{lost:.0%} of the surface has no texels"
    return np.flatnonzero(counts)


def areas(corners: Float[np.ndarray, "F 3 2"]) -> Float[np.ndarray, " F"]:
    """Signed areas of triangles in the plane."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2


def barycentric(points: Float[np.ndarray, "K 2"], corners: Float[np.ndarray, "K 3 2"]) -> Float[np.ndarray, "K 3"]:
    """Weights of a triangle's corners at a point in it; rounding is kept from making one negative."""
    edges, offset = corners[:, 1:] - corners[:, :1], points - corners[:, 0]
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    second = (offset[:, 0] * edges[:, 1, 1] - offset[:, 1] * edges[:, 1, 0]) / area
    third = (offset[:, 1] * edges[:, 0, 0] - offset[:, 0] * edges[:, 0, 1]) / area
    weights = np.stack([1 - second - third, second, third], axis=1).clip(min=0)
    return weights / weights.sum(axis=1, keepdims=True)


def nearest_covered(
    rows: Int[np.ndarray, " K"], columns: Int[np.ndarray, " K"], size: int
) -> Int[np.ndarray, "2 size size"]:
    """Row and column of the covered texel nearest to each texel: of itself where it is covered."""
    empty = np.ones((size, size), bool)
    empty[rows, columns] = False
    return ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True).astype(np.int64)
