"""Converts a field to a cleaned, coloured mesh.

Conventions. World coordinates, z up. Colours are display values (sRGB) in [0, 1], stored as 8-bit vertex colours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.meshes.isosurface import (
    Field,
    automatic_threshold,
    extract_surface,
    sample_field,
    simplify,
    solid_mask,
)
from latent_prior.prior import require_finite

Color = Callable[[Tensor], Tensor]  # (N, 3) points -> (N, 3) colours in [0, 1]
MARCH_SAMPLES = 24  # samples on the ray that colours a surface point
# The coarse grid drops only pieces below this fraction of the largest: thin joints may break on it that the final grid
# closes, so the final grid decides what counts as a floater.
COARSE_FLOATER = 0.05


@dataclass(frozen=True)
class FieldMesh:
    """A mesh with vertex colours, the threshold it was cut at and the grid step it was sampled with."""

    mesh: trimesh.Trimesh
    threshold: float
    step: float


def field_to_mesh(
    field: Field,
    color: Color | None,
    box: Float[Tensor, "2 3"],
    resolution: int = 128,
    threshold: float | None = None,
    coarse_to_fine: bool = True,
    min_fraction: float = 0.05,
    fill_cavities: bool = True,
    smoothing: float = 0.0,
    max_faces: int | None = None,
    chunk: int = 1 << 18,
    is_depth: bool = False,
) -> FieldMesh:
    """Extract the field's surface, clean it and colour its vertices.

    field, color: at world points; without `color` the mesh stays uncoloured.
    box: corners of the box to search, on the field's device.
    resolution: samples along the longest edge of the final box.
    threshold: density at the surface; None: isosurface.automatic_threshold.
    coarse_to_fine: find the object at half the resolution first, then sample its own box (with a margin).
    min_fraction, fill_cavities, smoothing: see isosurface.extract_surface.
    max_faces: simplify to about this many faces; None: keep all.
    chunk: points evaluated at a time.
    is_depth: `field` is the depth under a surface, not a density.

    Raises:
        OptionError: the field is empty.
    """
    coarse = max(32, resolution // 2) if coarse_to_fine else resolution
    grid = sample_field(field, box, coarse, chunk, is_depth)
    threshold = automatic_threshold(grid) if threshold is None else threshold
    if coarse_to_fine and grid.values.max() > threshold:
        coarse_fraction = min(min_fraction, COARSE_FLOATER)
        body = np.argwhere(solid_mask(grid, threshold, coarse_fraction, fill_cavities=False))
        corners = np.stack([body.min(axis=0) - 2, body.max(axis=0) + 2]) * grid.step + grid.origin
        tight = torch.as_tensor(corners, dtype=box.dtype, device=box.device)
        tight = torch.stack([torch.maximum(tight[0], box[0]), torch.minimum(tight[1], box[1])])
        grid = sample_field(field, tight, resolution, chunk, is_depth)
    mesh = extract_surface(grid, threshold, min_fraction, fill_cavities, smoothing)
    if max_faces is not None:
        mesh = simplify(mesh, max_faces)
    if color is not None:
        points, normals = _tensors(box, mesh.vertices, mesh.vertex_normals)
        if is_depth:
            colors = colors_at(points, color, chunk)
        else:
            colors = surface_colors(points, normals, field, color, threshold, grid.step, chunk)
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=to_bytes(colors))
    return FieldMesh(mesh, threshold, grid.step)


@torch.no_grad()
def colors_at(points: Float[Tensor, "N 3"], color: Color, chunk: int = 1 << 18) -> Float[Tensor, "N 3"]:
    """The colours at points of a surface that is sharp, such as that of distances. Raises Diverged as surface_colors."""
    found = torch.cat([color(part) for part in points.split(chunk)])
    require_finite({"the surface's colours": found}, "lower the learning rate")
    return found.clamp(0, 1)


@torch.no_grad()
def surface_colors(
    points: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    density: Field,
    color: Color,
    threshold: float,
    step: float,
    chunk: int = 1 << 18,
) -> Float[Tensor, "N 3"]:
    """The colour that a viewer right above each surface point sees, composited along the inward normal.

    The isosurface lies where the density fades, and the field's colour there was hardly ever seen. So a short ray goes
    from one `step` outside into the body, to where at least the threshold's density has made it opaque (optical depth
    4, within 3 to 12 steps), and its samples are weighted as in volume rendering, divided by the ray's opacity.

    Raises Diverged for colours that are not finite.
    """
    depth = min(max(4 / threshold, 3 * step), 12 * step)
    width = (step + depth) / MARCH_SAMPLES
    along = step - width * (torch.arange(MARCH_SAMPLES, device=points.device) + 0.5)
    colors = []
    rows = max(1, chunk // MARCH_SAMPLES)
    for point, normal in zip(points.split(rows), normals.split(rows), strict=True):
        samples = (point[:, None] + along[:, None] * normal[:, None]).view(-1, 3)
        optical = density(samples).view(-1, MARCH_SAMPLES) * width
        weight = torch.exp(optical - optical.cumsum(dim=1)) * -torch.expm1(-optical)
        total = weight.sum(dim=1, keepdim=True)
        # a ray that meets nothing (a flipped normal, a sliver) takes the plain mean
        weight = torch.where(total > 1e-6, weight / total.clamp(min=1e-6), 1 / MARCH_SAMPLES)
        seen = color(samples).view(-1, MARCH_SAMPLES, 3)
        colors.append((weight[..., None] * seen).sum(dim=1))
    found = torch.cat(colors)
    require_finite({"the surface's colours": found}, "lower the learning rate")
    return found.clamp(0, 1)


def to_bytes(colors: Float[Tensor, "*N 3"]) -> np.ndarray:
    """Colours in [0, 1] as 8-bit RGBA, opaque."""
    rgb = (colors.float().cpu().numpy() * 255).round().astype(np.uint8)
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)


def linear_latents_to_rgb(matrix: Float[Tensor, "..."]) -> Callable[[Tensor], Tensor]:
    """Colours from latents by a linear map, (v M + 1) / 2, clamped (the map Latent-NeRF uses, Metzer et al. 2022)."""
    if matrix.ndim != 2 or matrix.shape[1] != 3:
        raise OptionError.because(
            f"system.exporter.latent_to_rgb has shape {tuple(matrix.shape)}, expected one row of three numbers per channel"
        )

    def to_rgb(latents: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        if latents.shape[-1] != len(matrix):
            raise OptionError.because(
                f"system.exporter.latent_to_rgb has {len(matrix)} rows, but the field has {latents.shape[-1]} channels"
            )
        return ((latents @ matrix.to(latents) + 1) / 2).clamp(0, 1)

    return to_rgb


def _tensors(like: Tensor, *arrays: np.ndarray) -> list[Tensor]:
    return [torch.as_tensor(np.array(array), dtype=torch.float32, device=like.device) for array in arrays]
