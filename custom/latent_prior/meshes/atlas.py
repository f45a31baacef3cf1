"""An atlas for any mesh, in seconds for a million faces: charts are projected along the axis that they face most.

xatlas (texture.unwrap) makes better charts of a small mesh, but takes time that grows faster than the mesh: here 6 s for
20,000 faces, 75 s for 80,000, more than 150 s for 330,000; some meshes crash it.

Faces are labelled by one of six directions, smoothed so that noise does not tear the surface. Connected faces of one
label are a chart; its projection shortens nothing to less than STEEPEST of its length. A chart that would cover itself is
cut. Charts are packed on shelves, sorted by height (next-fit decreasing height: Coffman et al. 1980).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from latent_prior import host
from latent_prior.meshes.parts import cross_products, welded
from latent_prior.meshes.texture import Atlas, unwrap
from latent_prior.meshes.uv import TEST_SIZE, rasterise

DIRECTIONS = np.concatenate([np.eye(3), -np.eye(3)])
# the two axes of each direction's plane, as seen from outside: their cross product is the direction
PLANES = np.array([[[0, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, 0, 0]], [[1, 0, 0], [0, 1, 0]]], dtype=float)
PLANES = np.concatenate([PLANES, PLANES * [[[-1.0], [1.0]]]])
SMOOTHINGS = 4  # of the normals by which faces are labelled
STEEPEST = 0.3  # cosine between a face's normal and the direction of its chart, at the least
SMALL = 64  # faces; smaller charts join a neighbour where they can
CUTS = 6  # rounds of cutting charts that cover themselves
TWICE = 0.02  # of a chart's texels that may be covered twice
XATLAS_FACES = 20_000  # beyond which xatlas is not tried
TIMEOUT = 60.0  # seconds
PADDING = 4  # texels between charts


def best_atlas(
    vertices: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, "F 3"], size: int, timeout: float = TIMEOUT
) -> Atlas:
    """By xatlas if the mesh is small enough and it succeeds within `timeout` seconds; else by projection."""
    if len(faces) <= XATLAS_FACES:
        try:
            atlas = unwrap(vertices, faces, size, timeout)
            if np.array_equal(atlas.source[atlas.faces], faces):
                return atlas
            host.warn("xatlas changed the faces: they are projected along the axes instead")
        except (TimeoutError, RuntimeError) as error:
            host.warn(f"no atlas by xatlas: {error}. The faces are projected along the axes instead")
    return box_atlas(vertices, faces, size)


def box_atlas(vertices: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, "F 3"], size: int) -> Atlas:
    """The mesh cut into charts, PADDING texels apart (less for very many charts) in a texture of `size` x `size`."""
    pairs = _neighbours(welded(vertices)[1][faces])
    labels = _labels(vertices, faces, pairs)
    charts = _connected(pairs, labels, len(faces))
    labels, charts = _joined(vertices, faces, pairs, labels, charts)
    flat = np.einsum("fij,fkj->fki", PLANES[labels], vertices[faces])
    depth = (vertices[faces].mean(axis=1) * DIRECTIONS[labels]).sum(axis=1)
    charts = _cut(flat, depth, pairs, charts)
    uv = _packed(flat, charts, size)
    # a vertex of the atlas for each vertex of a chart
    keys, first, corners = np.unique(
        (faces * (charts.max() + 1) + charts[:, None]).ravel(), return_index=True, return_inverse=True
    )
    return Atlas(faces.ravel()[first], corners.reshape(-1, 3), uv.reshape(-1, 2)[first])


def _neighbours(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, "P 2"]:
    """Pairs of faces that share an edge."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    keys = edges[:, 0] * (faces.max() + 1) + edges[:, 1]
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    return np.stack([order[same], order[same + 1]], axis=1) // 3


def _labels(
    vertices: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, "F 3"], pairs: Int[np.ndarray, "P 2"]
) -> Int[np.ndarray, " F"]:
    """Each face's direction, after its neighbours' and its own normal."""
    across = cross_products(vertices[faces])
    smooth = across
    both = np.concatenate([pairs, pairs[:, ::-1]])
    for _ in range(SMOOTHINGS):
        around = [np.bincount(both[:, 0], smooth[both[:, 1], axis], len(faces)) for axis in range(3)]
        smooth = smooth + np.stack(around, axis=1)
    labels = (smooth @ DIRECTIONS.T).argmax(axis=1)
    return np.where(_faces_it(across, labels), labels, (across @ DIRECTIONS.T).argmax(axis=1))


def _faces_it(across: Float[np.ndarray, "K 3"], labels: Int[np.ndarray, " K"]) -> np.ndarray:
    return (across * DIRECTIONS[labels]).sum(axis=1) >= STEEPEST * np.linalg.norm(across, axis=1)


def _connected(pairs: Int[np.ndarray, "P 2"], labels: Int[np.ndarray, " F"], count: int) -> Int[np.ndarray, " F"]:
    """The chart of each face: connected faces of one label."""
    first, second = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]].T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _joined(
    vertices: Float[np.ndarray, "N 3"],
    faces: Int[np.ndarray, "F 3"],
    pairs: Int[np.ndarray, "P 2"],
    labels: Int[np.ndarray, " F"],
    charts: Int[np.ndarray, " F"],
) -> tuple[Int[np.ndarray, " F"], Int[np.ndarray, " F"]]:
    """Labels and charts after small charts, from their rims inwards, have joined larger neighbours that they may face."""
    across = cross_products(vertices[faces])
    both = np.concatenate([pairs, pairs[:, ::-1]])
    for _ in range(CUTS):
        sizes = np.bincount(charts)[charts]
        small, large = both[:, 0], both[:, 1]
        joins = (sizes[small] < SMALL) & (sizes[large] > sizes[small])
        small, large = small[joins], large[joins]
        fits = _faces_it(across[small], labels[large])
        if not fits.any():
            break
        labels = labels.copy()
        labels[small[fits]] = labels[large[fits]]
        charts = _connected(pairs, labels, len(faces))
    return labels, charts


def _cut(
    flat: Float[np.ndarray, "F 3 2"],
    depth: Float[np.ndarray, " F"],
    pairs: Int[np.ndarray, "P 2"],
    charts: Int[np.ndarray, " F"],
) -> Int[np.ndarray, " F"]:
    """Charts of which those that cover themselves are cut in half by depth, again and again."""
    for _ in range(CUTS):
        uv = _packed(flat, charts, TEST_SIZE)
        texels = [
            np.stack([row * TEST_SIZE + column, charts[face]])
            for face, row, column in rasterise(uv * TEST_SIZE, TEST_SIZE)
        ]
        place, chart = np.concatenate(texels, axis=1)
        counts = np.bincount(place, minlength=TEST_SIZE**2)
        twice = np.bincount(chart, counts[place] > 1, charts.max() + 1)
        bad = twice > TWICE * np.bincount(chart, minlength=charts.max() + 1) + 1
        if not bad.any():
            break
        low, high = np.full(len(bad), np.inf), np.full(len(bad), -np.inf)
        np.minimum.at(low, charts, depth)
        np.maximum.at(high, charts, depth)
        upper = bad[charts] & (depth > ((low + high) / 2)[charts])
        charts = _connected(pairs, 2 * charts + upper, len(charts))
    return charts


def _packed(flat: Float[np.ndarray, "F 3 2"], charts: Int[np.ndarray, " F"], size: int) -> Float[np.ndarray, "F 3 2"]:
    """Coordinates in [0, 1] of each face's corners, the charts beside each other at one scale, the largest that fits."""
    count = charts.max() + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, charts, flat.min(axis=1))
    np.maximum.at(high, charts, flat.max(axis=1))
    extent = high - low
    tall = extent[:, 1] > extent[:, 0]
    extent[tall] = extent[tall][:, ::-1]
    order = np.argsort(-extent[:, 1], kind="stable")
    padding = PADDING / size
    while count * padding**2 > 0.25:
        padding /= 2
    least, most = 0.0, 1.0 / max(float(extent.max()), 1e-300)
    places = np.zeros((count, 2))
    for _ in range(30):
        scale = (least + most) / 2
        found = _shelves(extent[order] * scale + padding)
        if found is None:
            most = scale
        else:
            least, places[order] = scale, found
    local = flat - low[charts][:, None]
    local = np.where(tall[charts][:, None, None], local[..., ::-1], local)
    return places[charts][:, None] + local * least + padding / 2


def _shelves(boxes: Float[np.ndarray, "C 2"]) -> Float[np.ndarray, "C 2"] | None:
    """Corners of boxes on shelves in the unit square, in the given order; None if they do not fit."""
    ends = np.concatenate([[0.0], boxes[:, 0].cumsum()])
    places = np.empty_like(boxes)
    start, height = 0, 0.0
    while start < len(boxes):
        stop = int(np.searchsorted(ends, ends[start] + 1, side="right")) - 1
        if stop == start or height + boxes[start, 1] > 1:
            return None
        places[start:stop, 0] = ends[start:stop] - ends[start]
        places[start:stop, 1] = height
        start, height = stop, height + boxes[start, 1]
    return places
