"""Differentiable rasterisation by nvdiffrast's contract, on any device and in any floating-point type.

The operations have the names, arguments and results of `nvdiffrast.torch`. Tensors on CUDA go to nvdiffrast where it is
installed; all others are treated in plain torch. Conventions, all nvdiffrast's:

* `pos` holds clip coordinates (x, y, z, w), and row 0 of a picture lies at y / w = -1;
* instanced mode: `pos` B V 4, one mesh in B views; range mode: `pos` V 4, and per view a range of `tri` (F 3, int32);
* `rast` holds (u, v, z/w, triangle + 1) per pixel, zero where nothing is seen: the first corner has (u, v) = (1, 0), the
  second (0, 1), the third (0, 0);
* gradients of coverage come from `antialias` alone, and z/w has none.

Depth peeling is not offered.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from latent_prior.rasteriser import antialiasing, interpolation, rasterization, texturing, topology

__all__ = [
    "RasterizeCudaContext",
    "RasterizeGLContext",
    "antialias",
    "antialias_construct_topology_hash",
    "interpolate",
    "rasterize",
    "texture",
    "texture_construct_mip",
]


def _nvdiffrast(tensor: Tensor) -> Any:
    """nvdiffrast's operations if they can treat the tensor, else None."""
    if not tensor.is_cuda:
        return None
    try:
        import nvdiffrast.torch
    except ImportError:
        return None
    return nvdiffrast.torch


class RasterizeCudaContext:
    """What nvdiffrast keeps between calls; made when it is first needed."""

    def __init__(self, device: Any = None):
        self.of_nvdiffrast: Any = None


class RasterizeGLContext(RasterizeCudaContext):
    """The same: nvdiffrast itself has given up OpenGL."""

    def __init__(self, output_db: bool = True, mode: str = "automatic", device: Any = None):
        super().__init__(device)


def rasterize(
    glctx: RasterizeCudaContext,
    pos: Tensor,
    tri: Tensor,
    resolution: Sequence[int],
    ranges: Tensor | None = None,
    grad_db: bool = True,
) -> tuple[Tensor, Tensor]:
    """(u, v, z/w, triangle + 1) and (du/dX, du/dY, dv/dX, dv/dY) per pixel; see `rasterization.rasterize`."""
    if (dr := _nvdiffrast(pos)) is None:
        return rasterization.rasterize(pos, tri, resolution, ranges, grad_db)
    if glctx.of_nvdiffrast is None:
        glctx.of_nvdiffrast = dr.RasterizeCudaContext(device=pos.device)
    return dr.rasterize(glctx.of_nvdiffrast, pos, tri, resolution, ranges, grad_db)


def interpolate(
    attr: Tensor,
    rast: Tensor,
    tri: Tensor,
    rast_db: Tensor | None = None,
    diff_attrs: Literal["all"] | Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Attributes of vertices and the derivatives of some by X and Y, per pixel; see `interpolation.interpolate`."""
    return (_nvdiffrast(attr) or interpolation).interpolate(attr, rast, tri, rast_db, diff_attrs)


def antialias(
    color: Tensor,
    rast: Tensor,
    pos: Tensor,
    tri: Tensor,
    topology_hash: Any = None,
    pos_gradient_boost: float = 1.0,
) -> Tensor:
    """The picture with its silhouettes blended; see `antialiasing.antialias`."""
    return (_nvdiffrast(color) or antialiasing).antialias(color, rast, pos, tri, topology_hash, pos_gradient_boost)


def antialias_construct_topology_hash(tri: Tensor) -> Any:
    """What `antialias` needs to know of the triangles, to be made once for a mesh whose triangles stay."""
    dr = _nvdiffrast(tri)
    return topology.opposite_half_edges(tri) if dr is None else dr.antialias_construct_topology_hash(tri)


def texture(
    tex: Tensor,
    uv: Tensor,
    uv_da: Tensor | None = None,
    mip_level_bias: Tensor | None = None,
    mip: Any = None,
    filter_mode: str = "auto",
    boundary_mode: str = "wrap",
    max_mip_level: int | None = None,
) -> Tensor:
    """The texture at `uv` of each pixel; see `texturing.texture`."""
    operations = _nvdiffrast(tex) or texturing
    return operations.texture(tex, uv, uv_da, mip_level_bias, mip, filter_mode, boundary_mode, max_mip_level)


def texture_construct_mip(tex: Tensor, max_mip_level: int | None = None, cube_mode: bool = False) -> Any:
    """What `texture` needs for its mip levels, to be made once for a texture that stays."""
    return (_nvdiffrast(tex) or texturing).texture_construct_mip(tex, max_mip_level, cube_mode)
