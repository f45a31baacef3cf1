"""The geometry all operations share: pixel centres, corners of triangles, edge functions in homogeneous coordinates.

With corners p_i = (x, y, w) in clip space and a pixel centre q = (X, Y, 1) in device coordinates, the edge opposite to
corner i has the function e_i(q) = (p_j x p_k) . q, where j and k follow i (Olano and Greer 1997, "Triangle scan
conversion using 2D homogeneous coordinates"). e_i(q) / det(p_0, p_1, p_2) is the perspective-correct weight of corner i
over the w of the point seen at q. No division by a corner's w occurs, so a corner may lie behind the camera.

Components come first (3 N), which is the quicker order in torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pixel_centres(index: Int[Tensor, "N"], size: int) -> Float[Tensor, "N"]:
    """Device coordinates, in (-1, 1), of the centres of pixels along an axis of `size` pixels."""
    return (2 * index.double() + 1) / size - 1


def corners(
    pos: Float[Tensor, "B V 4"] | Float[Tensor, "V 4"], vertices: Int[Tensor, "N K"], views: Int[Tensor, "N"]
) -> Float[Tensor, "4 K N"]:
    """Clip coordinates of the K corners of N triangles, each in its view, in float64: component, corner, triangle.

    In range mode (V 4) all views share the vertices. Differentiable in `pos`.
    """
    shift = views * pos.shape[1] if pos.ndim == 3 else torch.zeros_like(views)
    row = (vertices.long() + shift[:, None]).T
    return pos.reshape(-1, 4).index_select(0, row.reshape(-1)).double().T.reshape(4, *row.shape)


def cross(p: Iterable[Tensor], q: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The cross product by components; of points (x, y, w) the coefficients of the function of the edge from p to q."""
    (xp, yp, wp), (xq, yq, wq) = p, q
    return yp * wq - wp * yq, wp * xq - xp * wq, xp * yq - yp * xq


def dot(p: Iterable[Tensor], q: Iterable[Tensor]) -> Tensor:
    """The scalar product by components."""
    (xp, yp, wp), (xq, yq, wq) = p, q
    return xp * xq + yp * yq + wp * wq


def value(edge: Iterable[Tensor], X: Tensor, Y: Tensor) -> Tensor:
    """An edge's function at points of the picture, to the bit the value that decides visibility."""
    x, y, w = edge
    return x * X + (y * Y + w)


@dataclass(frozen=True)
class EdgeFunctions:
    """e_i(q) = x_i X + y_i Y + w_i for the three edges of N triangles."""

    x: Float[Tensor, "3 N"]  # N triangles' three edges, numbered as the opposite corners
    y: Float[Tensor, "3 N"]
    w: Float[Tensor, "3 N"]

    @classmethod
    def of(cls, corners: Float[Tensor, "4 3 N"]) -> "EdgeFunctions":
        """Two triangles that share an edge get functions that are exact negatives of each other, rounding included."""
        x, y, _, w = corners
        return cls(*cross(*([c.roll(-turn, 0) for c in (x, y, w)] for turn in (1, 2))))

    def orientation(self, corners: Float[Tensor, "4 3 N"]) -> Float[Tensor, "N"]:
        """The sign of the determinant of the corners, which the functions share inside; 0 for a degenerate triangle."""
        x, y, _, w = corners[:, 0]
        return dot((x, y, w), (self.x[0], self.y[0], self.w[0])).sign()

    def at(self, X: Float[Tensor, "N"], Y: Float[Tensor, "N"]) -> Float[Tensor, "3 N"]:
        """Values at one point per triangle."""
        return value((self.x, self.y, self.w), X, Y)
