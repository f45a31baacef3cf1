"""Interpolation of attributes of vertices over the triangle seen at each pixel."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int32
from torch import Tensor


def interpolate(
    attr: Float[Tensor, "M V A"] | Float[Tensor, "V A"],
    rast: Float[Tensor, "N H W 4"],
    tri: Int32[Tensor, "F 3"],
    rast_db: Float[Tensor, "N H W 4"] | None = None,
    diff_attrs: Literal["all"] | Sequence[int] | None = None,
) -> tuple[Float[Tensor, "N H W A"], Float[Tensor, "N H W D"]]:
    """u a_0 + v a_1 + (1 - u - v) a_2 at each pixel, and the derivatives of chosen attributes by pixel coordinates.

    Zero where no triangle is seen. Gradients reach `attr`, `rast` and `rast_db`.

    attr: attributes of vertices: per view (M = N), for all views alike (M = 1), or in range mode (V A).
    rast, rast_db: from `rasterize`.
    diff_attrs: indices of the attributes whose (dA/dX, dA/dY) the second result holds, one pair after the other; "all";
        None: none of them, D = 0.
    """
    chosen = list(range(attr.shape[-1])) if diff_attrs == "all" else list(diff_attrs or ())
    views, height, width, _ = rast.shape
    pixel = (rast[..., 3].detach().reshape(-1) > 0).nonzero().squeeze(1)
    seen = rast.reshape(-1, 4).index_select(0, pixel)
    triangle = seen[:, 3].detach().long() - 1

    vertices = tri.index_select(0, triangle).long()
    if attr.ndim == 3 and len(attr) > 1:
        vertices = vertices + (pixel // (height * width) * attr.shape[1])[:, None]
    channels = attr.shape[-1]
    first, second, third = attr.reshape(-1, channels).index_select(0, vertices.T.reshape(-1)).chunk(3)
    u, v = seen[:, :1], seen[:, 1:2]

    def picture(rows: Tensor) -> Tensor:
        empty = torch.zeros(views * height * width, rows.shape[1], dtype=rows.dtype, device=rows.device)
        return empty.index_copy(0, pixel, rows).reshape(views, height, width, -1)

    out = picture(u * first + v * second + (1 - u - v) * third)
    if not chosen:
        return out, out.new_zeros(views, height, width, 0)
    if rast_db is None:
        raise ValueError("rast_db is None; expected the second result of rasterize, since diff_attrs is given")
    by_u, by_v = (first - third)[:, chosen, None], (second - third)[:, chosen, None]
    du, dv = rast_db.reshape(-1, 4).index_select(0, pixel)[:, None].chunk(2, dim=-1)
    return out, picture((by_u * du + by_v * dv).flatten(1))
