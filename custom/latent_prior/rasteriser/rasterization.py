"""Rasterisation: the barycentric coordinates of the triangle seen at each pixel, differentiable in its corners."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from latent_prior.rasteriser.edges import EdgeFunctions, corners, pixel_centres
from latent_prior.rasteriser.visibility import visible_triangles


def rasterize(
    pos: Float[Tensor, "B V 4"] | Float[Tensor, "V 4"],
    tri: Int32[Tensor, "F 3"],
    resolution: Sequence[int],
    ranges: Int32[Tensor, "B 2"] | None = None,
    grad_db: bool = True,
) -> tuple[Float[Tensor, "B H W 4"], Float[Tensor, "B H W 4"]]:
    """Two pictures: (u, v, z/w, triangle + 1), and (du/dX, du/dY, dv/dX, dv/dY) per pixel; zero where nothing is seen.

    u is the weight of a triangle's first corner, v that of its second. Gradients of both pictures reach `pos`, except
    through z/w, as in nvdiffrast.

    pos: clip coordinates, per view, or of all meshes together, with
    ranges: the first triangle and the number of triangles of each view.
    resolution: height and width in pixels.
    grad_db: whether the second picture's gradients reach `pos`.
    """
    height, width = resolution
    if (pos.ndim == 2) != (ranges is not None):
        raise ValueError(f"pos is {tuple(pos.shape)}; expected B V 4 without ranges, or V 4 with ranges")
    pos = pos if pos.dtype == torch.float64 else pos.float()  # half precision could not number the triangles
    if pos.dtype == torch.float32 and len(tri) > 2**24:
        raise ValueError(f"tri has {len(tri)} triangles; expected at most {2**24}, which float32 can number")

    if ranges is None:
        seen = visible_triangles(pos.detach(), tri, height, width)
    else:
        one = pos.detach()[None]
        found = [visible_triangles(one, tri[i : i + count], height, width, i) for i, count in ranges.tolist()]
        seen = torch.cat(found)
    view, row, column = (seen >= 0).nonzero(as_tuple=True)
    triangle = seen[view, row, column]

    values, derivatives = _barycentric(
        corners(pos, tri[triangle], view), pixel_centres(column, width), pixel_centres(row, height), height, width
    )
    if not grad_db:
        derivatives = derivatives.detach()
    pixel = (view * height + row) * width + column
    rows = torch.cat([values, (triangle + 1).double()[:, None]], 1), derivatives
    empty = torch.zeros(seen.numel(), 4, dtype=pos.dtype, device=pos.device)
    rast, rast_db = (empty.index_copy(0, pixel, row.to(pos.dtype)).reshape(*seen.shape, 4) for row in rows)
    return rast, rast_db


def _barycentric(
    corners: Float[Tensor, "4 3 N"], X: Float[Tensor, "N"], Y: Float[Tensor, "N"], height: int, width: int
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 4"]]:
    """(u, v, z/w) of the points seen at (X, Y), and (du/dX, du/dY, dv/dX, dv/dY) per pixel.

    u = e_0 / sum e_i, and its derivative by the quotient rule, since the e_i are linear in X and Y.
    """
    edges = EdgeFunctions.of(corners)
    e = edges.at(X, Y)
    weights = e / e.sum(0)
    uv = weights[:2]
    by_x = (edges.x[:2] - uv * edges.x.sum(0)) / e.sum(0) * (2 / width)
    by_y = (edges.y[:2] - uv * edges.y.sum(0)) / e.sum(0) * (2 / height)
    with torch.no_grad():
        depth = (weights * corners[2]).sum(0) / (weights * corners[3]).sum(0)
    values = torch.stack([uv[0], uv[1], depth], 1)
    return values, torch.stack([by_x[0], by_y[0], by_x[1], by_y[1]], 1)
