"""The visible part of a field, estimated from its density on a coarse grid."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def occupied_box(
    density: Callable[[Tensor], Tensor], box: Float[Tensor, "2 3"], cells: int, step: float, min_alpha: float
) -> Float[Tensor, "2 3"]:
    """The box around the visible cells, with a margin of one cell on each side so that the object can grow.

    density: (N, 3) world points to (N, 1). cells: number along each axis of `box`. step, min_alpha: a cell is empty
    if one sample of that length in it would have an opacity below min_alpha; its density is the largest at eight points
    in it. If all cells are empty, the whole box is returned.
    """
    offsets = (torch.arange(2 * cells, device=box.device) + 0.5) / (2 * cells)
    x, y, z = (box[0, axis] + offsets * (box[1, axis] - box[0, axis]) for axis in range(3))
    points = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), dim=-1).view(-1, 3)
    largest = F.max_pool3d(density(points).view(1, 2 * cells, 2 * cells, 2 * cells), 2)[0]
    occupied = (-torch.expm1(-largest * step) > min_alpha).nonzero()
    if len(occupied) == 0:
        return box
    bounds = torch.stack([occupied.amin(dim=0) - 1, occupied.amax(dim=0) + 2]).clamp(0, cells)
    return box[0] + bounds / cells * (box[1] - box[0])
