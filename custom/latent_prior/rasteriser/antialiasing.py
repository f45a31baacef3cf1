"""Antialiasing of silhouettes, which carries the gradients of visibility (Laine et al. 2020, "Modular primitives for
high-performance differentiable rendering", section 3.4).

Two neighbouring pixels that see different triangles form a pair. The straight way from the centre of the pixel with the
nearer triangle ("own") to the centre of the other one leaves that triangle through an edge, at the fraction t of the
way. If the edge is a silhouette, it is taken as the border of the surface: for t < 1/2 it crosses the own pixel, of
which the share 1/2 - t gets the other's colour; for t > 1/2 the other pixel, of which t - 1/2 gets the own colour. Only
edges within 45 degrees of perpendicular to the way count; pairs along the other axis take care of the rest.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from latent_prior.rasteriser.edges import EdgeFunctions, corners, pixel_centres
from latent_prior.rasteriser.topology import opposite_corners_of_edges


@dataclass(frozen=True)
class _Pairs:
    """Pairs of neighbours."""

    own: Int[Tensor, "P"]  # pixel, counted through all views
    other: Int[Tensor, "P"]
    triangle: Int[Tensor, "P"]  # the nearer one
    vertices: Int32[Tensor, "P 3"]  # its corners, in any cyclic order

    def __getitem__(self, keep: Int[Tensor, "K"]) -> "_Pairs":
        return _Pairs(self.own[keep], self.other[keep], self.triangle[keep], self.vertices[keep])


def antialias(
    color: Float[Tensor, "B H W C"],
    rast: Float[Tensor, "B H W 4"],
    pos: Float[Tensor, "B V 4"] | Float[Tensor, "V 4"],
    tri: Int32[Tensor, "F 3"],
    topology_hash: Int[Tensor, "F 3"] | None = None,
    pos_gradient_boost: float = 1.0,
) -> Float[Tensor, "B H W C"]:
    """The picture with its silhouettes blended. Gradients reach `color` and `pos`.

    rast: from `rasterize` of the same `pos` and `tri`.
    topology_hash: `opposite_corners(tri)`; None works out the part that the picture needs.
    pos_gradient_boost: factor of the gradient that reaches `pos`.
    """
    _, height, width, channels = color.shape
    with torch.no_grad():
        pairs = _silhouettes(rast.detach(), pos.detach(), tri, topology_hash)
    _, _, here, there = _along(pairs, pos, height, width)
    t = here[0] / (here[0] - there[0])
    t = torch.where((t > 0) & (t < 1), t, t.detach())  # saturated: without gradient
    if t.requires_grad and pos_gradient_boost != 1:
        t.register_hook(lambda gradient: gradient * pos_gradient_boost)

    flat = color.reshape(-1, channels)
    difference = flat.index_select(0, pairs.own) - flat.index_select(0, pairs.other)
    blended = torch.where(t > 0.5, pairs.other, pairs.own)
    return flat.index_add(0, blended, (t - 0.5).to(color.dtype)[:, None] * difference).reshape(color.shape)


def _along(
    pairs: _Pairs, pos: Tensor, height: int, width: int
) -> tuple[EdgeFunctions, Float[Tensor, "4 3 P"], Float[Tensor, "3 P"], Float[Tensor, "3 P"]]:
    """The nearer triangle's edge functions and corners, and the functions' values at the own and the other centre."""
    points = corners(pos, pairs.vertices, pairs.own // (height * width))
    edges = EdgeFunctions.of(points)
    here, there = (
        edges.at(pixel_centres(pixel % width, width), pixel_centres(pixel // width % height, height))
        for pixel in (pairs.own, pairs.other)
    )
    return edges, points, here, there


def _silhouettes(
    rast: Float[Tensor, "B H W 4"], pos: Tensor, tri: Int32[Tensor, "F 3"], opposite: Int[Tensor, "F 3"] | None
) -> _Pairs:
    """The pairs with a silhouette between them, which is the edge opposite to the first of `vertices`."""
    _, height, width, _ = rast.shape
    pairs, in_row = _neighbours(rast, tri)
    edges, points, here, there = _along(pairs, pos, height, width)
    sign = edges.orientation(points)
    falling = sign * (here - there)
    t, edge = torch.where(falling > 0, sign * here / falling, torch.inf).min(0)  # the first edge on the way
    x, y, w = (part.gather(0, edge[None])[0] for part in (edges.x, edges.y, edges.w))
    across_x, across_y = x.abs() / width, y.abs() / height
    steep = torch.where(in_row, across_x >= across_y, across_y >= across_x)
    keep = (steep & (t <= 1)).nonzero().squeeze(1)

    pairs, edge, sign, x, y, w = pairs[keep], edge[keep, None], sign[keep], x[keep], y[keep], w[keep]
    turned = pairs.vertices.gather(1, (edge + torch.arange(3, device=edge.device)) % 3)
    pairs = _Pairs(pairs.own, pairs.other, pairs.triangle, turned)
    if opposite is None:
        beyond = opposite_corners_of_edges(tri, pairs.triangle, turned[:, 1:], pos.shape[-2])
    else:
        beyond = opposite.index_select(0, pairs.triangle)
    beyond = beyond.gather(1, edge)
    # Seen along the edge, does its other triangle lie on the same side? Without one, the edge is a silhouette.
    neighbour = corners(pos, beyond.clamp(min=0), pairs.own // (height * width))[:, 0]
    side = x * neighbour[0] + y * neighbour[1] + w * neighbour[3]
    return pairs[((beyond[:, 0] < 0) | (side * sign >= 0)).nonzero().squeeze(1)]


def _neighbours(rast: Float[Tensor, "B H W 4"], tri: Int32[Tensor, "F 3"]) -> tuple[_Pairs, Bool[Tensor, "P"]]:
    """All pairs of neighbours that see different triangles, and whether they lie in a row; the background is farthest."""
    width = rast.shape[2]
    number = rast[..., 3]
    pixel = torch.arange(number.numel(), device=rast.device).reshape(number.shape)
    in_rows = pixel[:, :, :-1][number[:, :, :-1] != number[:, :, 1:]]
    in_columns = pixel[:, :-1][number[:, :-1] != number[:, 1:]]
    first = torch.cat([in_rows, in_columns])
    in_row = torch.arange(len(first), device=rast.device) < len(in_rows)
    second = first + torch.where(in_row, 1, width)

    depth = torch.where(number > 0, rast[..., 2], torch.inf).reshape(-1)
    nearer = depth.index_select(0, first) < depth.index_select(0, second)
    own, other = torch.where(nearer, first, second), torch.where(nearer, second, first)
    triangle = number.reshape(-1).index_select(0, own).long() - 1
    return _Pairs(own, other, triangle, tri.index_select(0, triangle)), in_row
