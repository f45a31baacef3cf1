"""Which half-edge of a mesh lies across each half-edge.

A half-edge is a triangle's side of an edge, numbered triangle * 3 + corner by the corner opposite to the edge.
"""

import torch
from jaxtyping import Int
from torch import Tensor


def opposite_half_edges(tri: Int[Tensor, "F 3"]) -> Int[Tensor, "F 3"]:
    """For the half-edge opposite to each corner, the one on the edge's other side; -1 without one.

    An edge of a boundary has none. Of an edge whose triangles have more than two different third corners, those of the
    lowest and of the highest are each other's opposite, and the others have none. A triangle that repeats a corner is
    no neighbour.
    """
    apex = tri.long()
    start, end = apex.roll(-1, 1), apex.roll(-2, 1)
    number = torch.arange(apex.numel(), device=apex.device).reshape(apex.shape)
    proper = (apex != start) & (start != end) & (end != apex)
    ends = torch.where(proper, torch.minimum(start, end) << 32 | torch.maximum(start, end), -1 - number)
    different, edge = ends.reshape(-1).unique(return_inverse=True)
    both = (apex << 32 | number).reshape(-1)  # ordered by the third corner
    lowest, highest = (
        torch.zeros_like(different).scatter_reduce(0, edge, both, extreme, include_self=False)[edge].reshape(apex.shape)
        for extreme in ("amin", "amax")
    )
    low, high = lowest >> 32, highest >> 32
    across = torch.where(apex == low, highest, lowest) & 0xFFFFFFFF
    return torch.where(((apex == low) | (apex == high)) & (low != high), across, -1)
