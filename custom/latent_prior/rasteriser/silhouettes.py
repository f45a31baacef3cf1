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
"""

from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from latent_prior.rasteriser.edges import corners, cross, pixel_centres
from latent_prior.rasteriser.topology import opposite_half_edges

MAX_STEPS = 64  # triangles on a way
FOLD = 1e-4  # pixels: what turns back by less is rounding, as of triangles without area
SLACK = 1e-6  # pixels by which an edge may lie beyond the other centre
SHIFT = 1e-9  # pixels: a way runs so far beside the centres, inside its first triangle, whose edge may lie along it


class Pairs(NamedTuple):
    """Pairs of neighbouring pixels, counted through all views, and a silhouette between the centres of each."""

    own: Int[Tensor, "P"]
    other: Int[Tensor, "P"]
    ends: Int[Tensor, "P 2"]  # vertices


class _Ways(NamedTuple):
    """What stays the same along each way."""

    pair: Int[Tensor, "P"]
    goal: Int[Tensor, "P"]  # the triangle that the other pixel sees, -1 for none
    first: Int[Tensor, "P"]  # row of vertex 0 in the clip coordinates of all views
    axis: Int[Tensor, "P"]  # 0 in a row, 1 in a column
    centre: Float[Tensor, "P"]  # device coordinates of the own centre along the way
    lane: Float[Tensor, "P"]  # and of the way, across it
    scale: Float[Tensor, "P"]  # pixels along the way per device coordinate


class _Points(NamedTuple):
    """Vertices as seen from a way."""

    vertex: Int[Tensor, "*P"]
    aside: Float[Tensor, "*P"]
    ahead: Float[Tensor, "*P"]
    w: Float[Tensor, "*P"]


Rows = TypeVar("Rows", _Ways, _Points)


def _take(rows: Rows, which: Int[Tensor, "K"]) -> Rows:
    return type(rows)(*(row.index_select(0, which) for row in rows))


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
    ways, half_edge, farthest, old, new = _start(rast, pos, tri, own, other, in_row)
    border = half_edge  # the one at the farthest point so far
    opposite = (opposite_half_edges(tri) if opposite is None else opposite).reshape(-1)
    apexes = tri.reshape(-1)
    following, last = (torch.tensor(turn, device=tri.device) for turn in ((1, 1, -2), (2, -1, -1)))
    count = torch.arange(len(half_edge), device=tri.device)

    found = []
    for _ in range(MAX_STEPS):
        across = opposite.index_select(0, half_edge)
        entered = across.clamp(min=0)
        triangle = entered // 3
        corner = entered - 3 * triangle
        apex = _points(pos, apexes.index_select(0, entered), ways)

        # the way leaves through the edge between the apex and that end of the last edge which is on the other side
        keep_new = ((apex.aside < 0) != (new.aside < 0)).long()
        both = _Points(*map(torch.cat, zip(old, new, strict=True)))
        kept = _take(both, count[: len(keep_new)] + len(keep_new) * keep_new)
        gone = old.vertex + new.vertex - kept.vertex
        following_edge = entered + following.index_select(0, corner)
        last_edge = entered + last.index_select(0, corner)
        half_edge = torch.where(apexes.index_select(0, following_edge) == gone, following_edge, last_edge)
        t = _crossing(kept, apex, ways.scale)

        turned = (across < 0) | (t < farthest - FOLD)
        where = turned.nonzero().squeeze(1)
        found.append((ways.pair.index_select(0, where), border.index_select(0, where)))
        border = torch.where(t > farthest, half_edge, border)
        farthest = torch.maximum(farthest, t)
        where = (~turned & (t <= 1 + SLACK) & (triangle != ways.goal)).nonzero().squeeze(1)
        if len(where) == 0:
            break
        ways, old, new = _take(ways, where), _take(kept, where), _take(apex, where)
        half_edge, border, farthest = (row.index_select(0, where) for row in (half_edge, border, farthest))

    pair, border = (torch.cat(rows) for rows in zip(*found, strict=True))
    triangle, corner = border // 3, border % 3
    ends = torch.stack([apexes[3 * triangle + (corner + turn) % 3] for turn in (1, 2)], 1)
    return _steep(Pairs(own[pair], other[pair], ends), in_row[pair], rast, pos)


def _neighbours(rast: Float[Tensor, "B H W 4"]) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"], Bool[Tensor, "P"]]:
    """All pairs of neighbours that see different triangles, the nearer one first, and whether they lie in a row.

    The background is farthest.
    """
    number = rast[..., 3]
    pixel = torch.arange(number.numel(), device=rast.device).reshape(number.shape)
    in_rows = pixel[:, :, :-1][number[:, :, :-1] != number[:, :, 1:]]
    in_columns = pixel[:, :-1][number[:, :-1] != number[:, 1:]]
    first, second = torch.cat([in_rows, in_columns]), torch.cat([in_rows + 1, in_columns + rast.shape[2]])
    depth = torch.where(number > 0, rast[..., 2], torch.inf).reshape(-1)
    nearer = depth.index_select(0, first) < depth.index_select(0, second)
    in_row = torch.arange(len(first), device=rast.device) < len(in_rows)
    return torch.where(nearer, first, second), torch.where(nearer, second, first), in_row


def _start(
    rast: Float[Tensor, "B H W 4"],
    pos: Tensor,
    tri: Int32[Tensor, "F 3"],
    own: Int[Tensor, "N"],
    other: Int[Tensor, "N"],
    in_row: Bool[Tensor, "N"],
) -> tuple[_Ways, Int[Tensor, "P"], Float[Tensor, "P"], _Points, _Points]:
    """The ways that leave their first triangle before the other centre: by which half-edge, at which t, its two ends."""
    _, height, width, _ = rast.shape
    seen = rast[..., 3].reshape(-1)
    triangle, goal = seen.index_select(0, own).long() - 1, seen.index_select(0, other).long() - 1
    view, row = own // (height * width), own // width
    column, row = own - row * width, row - view * height
    X, Y = pixel_centres(column, width), pixel_centres(row, height)
    size = torch.where(in_row, width, height)
    axis = (~in_row).long()
    first = view * (pos.shape[1] if pos.ndim == 3 else 0)
    centre, lane, scale = torch.where(in_row, X, Y), torch.where(in_row, Y, X), (other - own).sign() * (size / 2)
    ways = _Ways(torch.arange(len(own), device=own.device), goal, first, axis, centre, lane, scale)

    points = _points(pos, tri.index_select(0, triangle).T, ways)
    inwards = points.aside.sum(0).sign() * (2 * SHIFT / size)
    ways = ways._replace(lane=lane + inwards)
    points = points._replace(aside=points.aside - inwards * points.w)

    # it comes in through one edge, at t <= 0, and leaves through another
    start, end = (_Points(*(rows.roll(-turn, 0) for rows in points)) for turn in (1, 2))
    crossed = (start.aside < 0) != (end.aside < 0)
    crossing = torch.where(crossed, _crossing(start, end, scale), -torch.inf)
    t, edge = crossing[0], torch.zeros_like(own)
    for number in (1, 2):
        edge += (number - edge) * (crossing[number] > t)
        t = torch.maximum(t, crossing[number])
    leaving = (t.isfinite() & (t <= 1 + SLACK)).nonzero().squeeze(1)
    edge, t = edge[leaving], t[leaving]
    which = edge * len(own) + leaving
    start, end = (_take(_Points(*(rows.reshape(-1) for rows in ends)), which) for ends in (start, end))
    return _take(ways, leaving), 3 * triangle[leaving] + edge, t, start, end


def _points(pos: Tensor, vertices: Int[Tensor, "*K P"], ways: _Ways) -> _Points:
    """Vertices, each as seen from its way."""
    rows = pos.reshape(-1, 4).index_select(0, (ways.first + vertices).reshape(-1)).reshape(-1)
    x = torch.arange(0, len(rows), 4, device=pos.device).reshape(vertices.shape)
    along, across, w = (
        rows.index_select(0, place.reshape(-1)).double().reshape(vertices.shape)
        for place in (x + ways.axis, x + 1 - ways.axis, x + 3)
    )
    return _Points(vertices, across - ways.lane * w, along - ways.centre * w, w)


def _crossing(p: _Points, q: _Points, scale: Float[Tensor, "P"]) -> Float[Tensor, "*P"]:
    """How far ahead, in pixels, the way crosses the line between two points on different sides of it.

    Infinite if it is behind the camera.
    """
    of_p, of_q = q.aside.abs(), p.aside.abs()
    ahead, w = (of_p * p.ahead + of_q * q.ahead) * scale, of_p * p.w + of_q * q.w
    return torch.where(w > 0, ahead / w, ahead * torch.inf)


def _steep(pairs: Pairs, in_row: Bool[Tensor, "P"], rast: Float[Tensor, "B H W 4"], pos: Tensor) -> Pairs:
    """Those whose silhouette is within 45 degrees of perpendicular to the way."""
    _, height, width, _ = rast.shape
    x, y, _, w = corners(pos, pairs.ends, pairs.own // (height * width))
    across_x, across_y, _ = cross((x[0], y[0], w[0]), (x[1], y[1], w[1]))
    across_x, across_y = across_x.abs() / width, across_y.abs() / height
    keep = torch.where(in_row, across_x >= across_y, across_y >= across_x).nonzero().squeeze(1)
    return Pairs(*(rows[keep] for rows in pairs))
