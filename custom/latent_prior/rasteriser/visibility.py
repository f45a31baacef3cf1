"""Which triangle each pixel centre sees: scan conversion in homogeneous coordinates, without gradients, in float64.

A triangle covers a pixel where its three edge functions have the sign of its determinant, all three at once (edges.py),
and z/w lies in [-1, 1]. Pixels on an edge belong to both of its triangles, so a closed surface has no holes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.rasteriser.edges import EdgeFunctions, corners, pixel_centres

PIXELS_AT_ONCE = 2**20  # bounds the memory of the candidate pixels: about 100 bytes each
SLACK = 1e-6  # pixels by which a box or a span is widened; the exact test follows


@torch.no_grad()
def visible_triangles(
    pos: Float[Tensor, "B V 4"], tri: Int[Tensor, "F 3"], height: int, width: int, first: int = 0
) -> Int[Tensor, "B {height} {width}"]:
    """The triangle nearest along z/w at each pixel centre, or -1; at equal depth the one of the lowest index.

    first: the number of triangle 0.
    """
    pos = pos.double()
    face, view, box = _boxes(pos, tri, height, width)
    depth = torch.full((len(pos) * height * width,), torch.inf, dtype=pos.dtype, device=pos.device)
    nobody = len(tri)
    seen = torch.full(depth.shape, nobody, device=pos.device)
    pixels = ((box[1] - box[0] + 1) * (box[3] - box[2] + 1)).cumsum(0)
    sizes = (pixels // PIXELS_AT_ONCE).unique_consecutive(return_counts=True)[1].tolist()
    for some, its_view, its_box in zip(face.split(sizes), view.split(sizes), box.split(sizes, dim=1), strict=True):
        its_corners = corners(pos, tri.index_select(0, some), its_view)
        pixel, z, which = _covered(its_corners, its_box, height, width)
        pixel = its_view[which] * (height * width) + pixel
        nearest = depth.scatter_reduce(0, pixel, z, "amin")
        seen = torch.where(nearest < depth, nobody, seen)
        winners = (z == nearest.index_select(0, pixel)).nonzero().squeeze(1)
        seen = seen.scatter_reduce(0, pixel[winners], some[which[winners]], "amin")
        depth = nearest
    return torch.where(seen == nobody, -1, seen + first).reshape(-1, height, width)


def _boxes(
    pos: Float[Tensor, "B V 4"], tri: Int[Tensor, "F 3"], height: int, width: int
) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"], Int[Tensor, "4 K"]]:
    """The triangles that may cover a pixel centre, in which view, and their boxes: first and last column and row.

    A triangle with a corner behind the camera, where projection is of no use, gets the whole picture.
    """
    x, y, z, w = pos.permute(2, 1, 0).unbind()  # V B each, so that a corner is looked up once for all views
    front = w > 0
    at = [(coordinate / w + 1) * (size / 2) - 0.5 for coordinate, size in ((x, width), (y, height))]
    bounded = front & ~(at[0] + at[1]).isnan()
    all_bounded = bool(bounded.all())
    sides = []
    for place, size in zip(at, (width, height), strict=True):
        start, end = torch.ceil(place - SLACK).clamp(0, size), torch.floor(place + SLACK).clamp(-1, size - 1)
        if not all_bounded:
            start, end = torch.where(bounded, start, 0), torch.where(bounded, end, size - 1)
        sides += [start, end.neg()]  # so that a minimum serves all four
    small = torch.int16 if max(height, width) < 2**15 else torch.int32
    ends = torch.stack([side.to(small) for side in sides], 1)
    first, second, third = (ends.index_select(0, corner) for corner in tri.T)
    left, right, bottom, top = torch.minimum(torch.minimum(first, second), third).unbind(1)
    inside = (left + right <= 0) & (bottom + top <= 0)
    if not all_bounded or (z.abs() > w).any():  # not beyond one plane with all corners
        tests = (x > w, -x > w, y > w, -y > w, z > w, -z > w, ~front)
        outside = torch.stack([test.int() << bit for bit, test in enumerate(tests)]).sum(0, dtype=torch.int32)
        beyond = [outside.index_select(0, corner) for corner in tri.T]
        inside &= (beyond[0] & beyond[1] & beyond[2]) == 0
    face, view = inside.nonzero(as_tuple=True)
    left, right, bottom, top = (side[face, view].long() for side in (left, right, bottom, top))
    return face, view, torch.stack([left, -right, bottom, -top])


def _covered(
    corners: Float[Tensor, "4 3 K"], box: Int[Tensor, "4 K"], height: int, width: int
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"], Int[Tensor, "N"]]:
    """(pixel, z/w there, triangle) of all pixels that are covered."""
    edges = EdgeFunctions.of(corners)
    sign = edges.orientation(corners)
    left, right, bottom, top = box

    triangle, row = _ranges(bottom, top)  # then the columns between the edges, row by row
    slope, rise, rest = ((part * sign).index_select(1, triangle) for part in (edges.x, edges.y, edges.w))
    rest = rise * pixel_centres(row, height) + rest
    at = (1 - rest / slope) * (width / 2) - 0.5
    start = torch.where(slope > 0, at, -torch.inf).amax(0).sub(SLACK).ceil()
    end = torch.where(slope < 0, at, torch.inf).amin(0).add(SLACK).floor()
    start = start.clamp(0, width).long().maximum(left[triangle])
    end = end.clamp(-1, width - 1).long().minimum(right[triangle])

    line, column = _ranges(start, end)
    e = slope.index_select(1, line) * pixel_centres(column, width) + rest.index_select(1, line)
    keep = (e >= 0).all(0).nonzero().squeeze(1)
    e, line, column = e.index_select(1, keep), line[keep], column[keep]
    triangle, row = triangle[line], row[line]
    w = (e * corners[3].index_select(1, triangle)).sum(0)
    z = (e * corners[2].index_select(1, triangle)).sum(0) / w
    keep = ((w > 0) & (z.abs() <= 1)).nonzero().squeeze(1)  # 0 / 0 where seen edge-on
    return (row * width + column)[keep], z[keep], triangle[keep]


def _ranges(start: Int[Tensor, "N"], end: Int[Tensor, "N"]) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"]]:
    """(i, k) for every k with start[i] <= k <= end[i], in order."""
    count = (end - start + 1).clamp(min=0)
    which = torch.repeat_interleave(count)
    before = count.cumsum(0) - count
    return which, torch.arange(len(which), device=start.device) + (start - before)[which]
