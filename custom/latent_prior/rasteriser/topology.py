"""Which corner lies across each edge of a mesh."""

import torch
from jaxtyping import Int, Int32
from torch import Tensor


def opposite_corners(tri: Int[Tensor, "F 3"]) -> Int[Tensor, "F 3"]:
    """For the edge opposite to each corner, the third corner of the triangle on its other side; -1 without one.

    An edge of a boundary has none. Of an edge whose triangles have more than two different third corners, the lowest and
    the highest are each other's opposite, and the others have none. A triangle that repeats a corner is no neighbour.
    """
    apex = tri.long()
    start, end = apex.roll(-1, 1), apex.roll(-2, 1)
    proper = (apex != start) & (start != end) & (end != apex)
    low, high = torch.minimum(start, end)[proper], torch.maximum(start, end)[proper]
    third = apex[proper]
    different, edge = (low << 32 | high).unique(return_inverse=True)
    lowest, highest = (
        torch.zeros_like(different).scatter_reduce(0, edge, third, extreme, include_self=False)[edge]
        for extreme in ("amin", "amax")
    )
    across = torch.where(third == lowest, highest, torch.where(third == highest, lowest, -1))
    opposite = torch.full_like(apex, -1)
    opposite[proper] = torch.where(across == third, -1, across)
    return opposite


def opposite_corners_of_edges(
    tri: Int32[Tensor, "F 3"], triangle: Int[Tensor, "P"], ends: Int[Tensor, "P 2"], num_vertices: int
) -> Int[Tensor, "P 3"]:
    """`opposite_corners(tri)[triangle]`, right at the edges between `ends`, from the triangles around these alone."""
    marked = torch.zeros(num_vertices, dtype=torch.int32, device=tri.device)
    marked[ends.reshape(-1).long()] = 1
    first, second, third = (marked.index_select(0, corner) for corner in tri.T)
    near = (first + second + third >= 2).nonzero().squeeze(1)
    return opposite_corners(tri.index_select(0, near)).index_select(0, torch.searchsorted(near, triangle))
