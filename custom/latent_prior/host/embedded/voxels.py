"""Reading voxel grids by trilinear interpolation.

Conventions. A grid is 1 x C x G1 x G2 x G3; the last axis runs along x, the first of the three along z, as in torch's
grid_sample. Voxel centres lie half a voxel inside the box (align_corners=False).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def read_voxels(
    grid: Float[Tensor, "1 C G1 G2 G3"], points: Float[Tensor, "*N 3"], box: Float[Tensor, "2 3"], outside: str
) -> Float[Tensor, "*N C"]:
    """The grid, which covers `box`, at world points.

    outside: what is beyond the outermost centres, as grid_sample names it: zeros or border.
    """
    unit = (points - box[0]) / (box[1] - box[0])  # as in threestudio, to the bit
    flat = (unit * 2 - 1).reshape(-1, 3)
    # torch's CPU kernel runs one thread per batch row, so with several threads the points are split over two rows;
    # each further row would need its own gradient grid and cost more than it saves
    rows = 2 if flat.device.type == "cpu" and torch.get_num_threads() > 1 else 1
    count, flat = len(flat), F.pad(flat, (0, 0, 0, len(flat) % rows))
    out = F.grid_sample(
        grid.expand(rows, -1, -1, -1, -1),
        flat.view(rows, 1, 1, -1, 3),
        mode="bilinear",
        padding_mode=outside,
        align_corners=False,
    )
    return out.transpose(0, 1).reshape(grid.shape[1], -1).T[:count].reshape(*points.shape[:-1], grid.shape[1])
