"""The silhouettes between neighbouring pixels, found by walking over the mesh; without gradients.

Two neighbouring pixels that see different triangles form a pair. The straight way from the centre of the pixel with the
nearer triangle ("own") to the centre of the other one leaves that triangle through an edge. The edge is a silhouette if
it is a border of the mesh, or if the triangle across it turns back: in the picture it lies on the same side of the edge.
Then it is the pair's. Otherwise the way goes on in that triangle, and so forth, until it comes to a silhouette, to the
triangle that the other pixel sees, or beyond its centre.

Along the way a point of the mesh lies at "ahead" (which is 0 at the own centre) and "aside" (negative on the right), both
times its w. A way leaves a triangle through the edge that has one end on the right and one on the left. A vertex is on
the same side in all its triangles, whatever the rounding, so that a way has no gaps, and no choice where it meets a
vertex. It turns back where it leaves a triangle before it came in; the silhouette is then the edge at its farthest
point. A triangle that is seen edge-on, or has no area, keeps the way where it is and is passed.

A way that has not ended after `MAX_STEPS` triangles counts as one without a silhouette: its pixels stay as they are. So
many lie between two pixels only at the outline of a million triangles or in a fan of needles; it also ends the ways that
would run in circles where a mesh is nothing but folds below `FOLD`.

The walk is in numpy, on the CPU: its steps are many and small, and a call of torch costs several times one of numpy.
"""

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from latent_prior.rasteriser.edges import corners, cross
from latent_prior.rasteriser.topology import opposite_half_edges

MAX_STEPS = 64  # triangles on a way
FOLD = 1e-4  # pixels: what turns back by less is rounding, as of triangles without area
SLACK = 1e-6  # pixels by which an edge may lie beyond the other centre
SHIFT = 1e-9  # pixels: a way runs so far beside the centres, inside its first triangle, whose edge may lie along it
TURNS = np.array([[1, 2], [1, -1], [-2, -1]])  # from a corner to the numbers of the following and of the last one


class Pairs(NamedTuple):
    """Pairs of neighbouring pixels, counted through all views, and a silhouette between the centres of each."""

    own: Int[Tensor, "P"]
    other: Int[Tensor, "P"]
    ends: Int[Tensor, "P 2"]  # vertices


class _Ways(NamedTuple):
    """What stays the same along each way."""

    pair: Int[np.ndarray, "P"]
    goal: Int[np.ndarray, "P"]  # the triangle that the other pixel sees, -1 for none
    first: Int[np.ndarray, "P"]  # row of vertex 0 in the clip coordinates of all views
    axis: Int[np.ndarray, "P"]  # 0 in a row, 1 in a column
    centre: Float[np.ndarray, "P"]  # device coordinates of the own centre along the way
    lane: Float[np.ndarray, "P"]  # and of the way, across it
    scale: Float[np.ndarray, "P"]  # pixels along the way per device coordinate


class _Points(NamedTuple):
    """Vertices as seen from a way."""

    vertex: Int[np.ndarray, "*P"]
    aside: Float[np.ndarray, "*P"]
    ahead: Float[np.ndarray, "*P"]
    w: Float[np.ndarray, "*P"]


Rows = TypeVar("Rows", _Ways, _Points)


def _take(rows: Rows, which: Int[np.ndarray, "K"]) -> Rows:
    return type(rows)(*(row.take(which) for row in rows))


@torch.no_grad()
def silhouettes(
    rast: Float[Tensor, "B H W 4"],
    pos: Float[Tensor, "B V 4"] | Float[Tensor, "V 4"],
    tri: Int32[Tensor, "F 3"],
    opposite: Int[Tensor, "F 3"] | None,
) -> Pairs:
    """The pairs with a silhouette within 45 degrees of perpendicular to their way.

    opposite: `opposite_half_edges(tri)`; None works it out.
    """
    own, other, in_row = _neighbours(rast)
    opposite = opposite_half_edges(tri) if opposite is None else opposite
    apexes = tri.reshape(-1).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        pair, border = _walk(rast, pos, apexes, opposite.reshape(-1).cpu().numpy(), own, other, in_row)
    corner = border % 3
    ends = np.stack([apexes.take(border + TURNS[corner, turn]) for turn in (0, 1)], 1)
    found = (torch.from_numpy(rows).to(rast.device) for rows in (own[pair], other[pair], ends, in_row[pair]))
    own_found, other_found, ends_found, in_row_found = found
    return _steep(Pairs(own_found, other_found, ends_found), in_row_found, rast, pos)


def _walk(
    rast: Float[Tensor, "B H W 4"],
    pos: Tensor,
    apexes: Int[np.ndarray, "C"],
    opposite: Int[np.ndarray, "C"],
    own: Int[np.ndarray, "N"],
    other: Int[np.ndarray, "N"],
    in_row: Bool[np.ndarray, "N"],
) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """The pairs whose ways end at a silhouette, and its half-edge."""
    places = pos.reshape(-1).cpu().numpy()
    ways, half_edge, farthest, old, new = _start(rast, places, pos, apexes, own, other, in_row)
    border = half_edge  # the one at the farthest point so far
    pairs, borders = [], []
    for _ in range(MAX_STEPS):
        across = opposite.take(half_edge)
        entered = np.maximum(across, 0)
        triangle = entered // 3
        apex = _points(places, apexes.take(entered), ways)

        # the way leaves through the edge between the apex and that end of the last edge which is on the other side
        keep_new = (apex.aside < 0) != (new.aside < 0)
        kept = _Points(*(np.where(keep_new, b, a) for a, b in zip(old, new, strict=True)))
        gone = np.where(keep_new, old.vertex, new.vertex)
        following, last = (entered + TURNS[:, turn].take(entered - 3 * triangle) for turn in (0, 1))
        half_edge = np.where(apexes.take(following) == gone, following, last)
        t = _crossing(kept, apex, ways.scale)

        turned = (across < 0) | (t < farthest - FOLD)
        where = turned.nonzero()[0]
        pairs.append(ways.pair.take(where))
        borders.append(border.take(where))
        border = np.where(t > farthest, half_edge, border)
        farthest = np.maximum(farthest, t)
        where = (~turned & (t <= 1 + SLACK) & (triangle != ways.goal)).nonzero()[0]
        if len(where) == 0:
            break
        ways, old, new = _take(ways, where), _take(kept, where), _take(apex, where)
        half_edge, border, farthest = (row.take(where) for row in (half_edge, border, farthest))
    return np.concatenate(pairs), np.concatenate(borders)


def _neighbours(
    rast: Float[Tensor, "B H W 4"],
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    """All pairs of neighbours that see different triangles, the nearer one first, and whether they lie in a row.

    The background is farthest.
    """
    number = rast[..., 3].cpu().numpy()
    pixel = np.arange(number.size).reshape(number.shape)
    in_rows = pixel[:, :, :-1][number[:, :, :-1] != number[:, :, 1:]]
    in_columns = pixel[:, :-1][number[:, :-1] != number[:, 1:]]
    first, second = np.concatenate([in_rows, in_columns]), np.concatenate([in_rows + 1, in_columns + rast.shape[2]])
    depth = np.where(number > 0, rast[..., 2].cpu().numpy(), np.inf).reshape(-1)
    nearer = depth.take(first) < depth.take(second)
    in_row = np.arange(len(first)) < len(in_rows)
    return np.where(nearer, first, second), np.where(nearer, second, first), in_row


def _start(
    rast: Float[Tensor, "B H W 4"],
    places: Float[np.ndarray, "_"],
    pos: Tensor,
    apexes: Int[np.ndarray, "C"],
    own: Int[np.ndarray, "N"],
    other: Int[np.ndarray, "N"],
    in_row: Bool[np.ndarray, "N"],
) -> tuple[_Ways, Int[np.ndarray, "P"], Float[np.ndarray, "P"], _Points, _Points]:
    """The ways that leave their first triangle before the other centre: by which half-edge, at which t, its two ends."""
    _, height, width, _ = rast.shape
    seen = rast[..., 3].reshape(-1).cpu().numpy()
    triangle, goal = (seen.take(pixels).astype(np.int64) - 1 for pixels in (own, other))
    view, row = own // (height * width), own // width
    column, row = own - row * width, row - view * height
    X, Y = (2.0 * column + 1) / width - 1, (2.0 * row + 1) / height - 1
    size = np.where(in_row, width, height)
    first = view * (pos.shape[1] if pos.ndim == 3 else 0)
    centre, lane, scale = np.where(in_row, X, Y), np.where(in_row, Y, X), np.sign(other - own) * (size / 2)
    ways = _Ways(np.arange(len(own)), goal, first, (~in_row).astype(np.int64), centre, lane, scale)

    points = _points(places, apexes.take(3 * triangle + np.arange(3)[:, None]), ways)
    inwards = np.sign(points.aside.sum(0)) * (2 * SHIFT / size)
    ways = ways._replace(lane=lane + inwards)
    points = points._replace(aside=points.aside - inwards * points.w)

    # it comes in through one edge, at t <= 0, and leaves through another
    start, end = (_Points(*(np.roll(rows, -turn, 0) for rows in points)) for turn in (1, 2))
    crossing = np.where((start.aside < 0) != (end.aside < 0), _crossing(start, end, scale), -np.inf)
    edge, t = crossing.argmax(0), crossing.max(0)
    leaving = (np.isfinite(t) & (t <= 1 + SLACK)).nonzero()[0]
    edge = edge.take(leaving)
    start, end = (
        _take(_Points(*(rows.reshape(-1) for rows in ends)), edge * len(own) + leaving) for ends in (start, end)
    )
    return _take(ways, leaving), 3 * triangle.take(leaving) + edge, t.take(leaving), start, end


def _points(places: Float[np.ndarray, "_"], vertices: Int[np.ndarray, "*K P"], ways: _Ways) -> _Points:
    """Vertices, each as seen from its way."""
    x = 4 * (ways.first + vertices)
    along, across, w = (places.take(place).astype(np.float64) for place in (x + ways.axis, x + 1 - ways.axis, x + 3))
    return _Points(vertices, across - ways.lane * w, along - ways.centre * w, w)


def _crossing(p: _Points, q: _Points, scale: Float[np.ndarray, "P"]) -> Float[np.ndarray, "*P"]:
    """How far ahead, in pixels, the way crosses the line between two points on different sides of it.

    Infinite if it is behind the camera.
    """
    of_p, of_q = np.abs(q.aside), np.abs(p.aside)
    ahead, w = (of_p * p.ahead + of_q * q.ahead) * scale, of_p * p.w + of_q * q.w
    return np.where(w > 0, ahead / w, ahead * np.inf)


def _steep(pairs: Pairs, in_row: Bool[Tensor, "P"], rast: Float[Tensor, "B H W 4"], pos: Tensor) -> Pairs:
    """Those whose silhouette is within 45 degrees of perpendicular to the way."""
    _, height, width, _ = rast.shape
    x, y, _, w = corners(pos, pairs.ends, pairs.own // (height * width))
    across_x, across_y, _ = cross((x[0], y[0], w[0]), (x[1], y[1], w[1]))
    across_x, across_y = across_x.abs() / width, across_y.abs() / height
    keep = torch.where(in_row, across_x >= across_y, across_y >= across_x).nonzero().squeeze(1)
    return Pairs(*(rows[keep] for rows in pairs))
