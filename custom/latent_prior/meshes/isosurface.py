"""Extracts a closed surface from a field of densities or of distances.

Conventions. Fields are functions of world points, z up; grids are indexed [x, y, z] with equal spacing `step` on the
three axes. Values are larger inside of the surface than outside: densities per unit of world length, or depths, which
are signed distances with the opposite sign. Faces are wound so that normals point outwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import fast_simplification
import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from skimage.measure import marching_cubes
from torch import Tensor

from latent_prior import Diverged, OptionError

Field = Callable[[Tensor], Tensor]  # (N, 3) points -> (N, 1) densities or depths
CANDIDATES = 96  # thresholds tried by automatic_threshold
PINHOLE = 4  # voxels; cavities with openings of up to twice this width are filled
AGGRESSIVENESS = (7, 6, 5, 4)  # of simplification, the fastest first; it may pinch sharp tips, each at other places
PLATEAU = 0.005  # how much silhouette IoU a threshold may lose and still count as equally good


@dataclass(frozen=True)
class FieldGrid:
    """Samples of a field: values[i, j, k] lies at origin + step * (i, j, k). is_depth: they are no densities."""

    values: Float[np.ndarray, "X Y Z"]
    origin: Float[np.ndarray, "3"]
    step: float
    is_depth: bool = False

    def outside(self, threshold: float) -> float:
        """A value where nothing is, next to the surface at the threshold."""
        return threshold - self.step if self.is_depth else 0.0

    def inside(self, threshold: float) -> float:
        """A value well inside of the body."""
        return threshold + self.step if self.is_depth else float(self.values.max())


@torch.no_grad()
def sample_field(
    field: Field, box: Float[Tensor, "2 3"], resolution: int, chunk: int = 1 << 18, is_depth: bool = False
) -> FieldGrid:
    """Sample the field in the box, `resolution` points along its longest edge, `chunk` points at a time."""
    if resolution < 4:
        raise ValueError(f"resolution is {resolution}, expected at least 4")
    extent = (box[1] - box[0]).double().cpu()
    step = float(extent.max()) / (resolution - 1)
    counts = [int(np.ceil(float(edge) / step - 1e-6)) + 1 for edge in extent]
    axes = [box[0, k] + step * torch.arange(count, device=box.device) for k, count in enumerate(counts)]
    values = np.empty(counts, dtype=np.float32)
    slabs = max(1, chunk // (counts[1] * counts[2]))
    for start in range(0, counts[0], slabs):
        points = torch.stack(torch.meshgrid(axes[0][start : start + slabs], *axes[1:], indexing="ij"), dim=-1)
        values[start : start + slabs] = field(points.view(-1, 3)).view(points.shape[:3]).float().cpu().numpy()
    if not np.isfinite(values).all():
        raise Diverged("training has diverged: the field is not finite everywhere")
    return FieldGrid(values, box[0].double().cpu().numpy(), step, is_depth)


def automatic_threshold(grid: FieldGrid) -> float:
    """The density whose isosurface matches the silhouettes of the rendered field.

    Looking along x, y and z, a pixel is opaque when its ray's opacity 1 - exp(-sum density * step) exceeds one half.
    Of geometrically spaced thresholds, take those whose surface, seen along the same axes, matches the opaque pixels
    best (intersection over union, within 0.005 of the best, adjoining the best), and return their geometric mean.

    Raises:
        OptionError: the field is empty, that is, it has no opaque pixel.
    """
    opacities = [1 - np.exp(-grid.values.sum(axis=axis, dtype=np.float64) * grid.step) for axis in range(3)]
    opaque = np.concatenate([opacity.ravel() > 0.5 for opacity in opacities])
    peak = np.concatenate([grid.values.max(axis=axis).ravel() for axis in range(3)])
    if not opaque.any():
        raise OptionError.because(
            f"the field is empty: seen along x, y and z its opacity is at most {max(map(np.max, opacities)):.2g}. "
            "Train longer (trainer.max_steps), weaken the sparsity losses (system.loss), or set "
            f"system.exporter.isosurface_threshold below the largest density, {grid.values.max():.3g}"
        )
    thresholds = np.geomspace(1e-4, 1, CANDIDATES, endpoint=False) * float(grid.values.max())
    # counts of pixels above each threshold, with two sorts instead of one pass over the pixels per threshold
    inside, outside = np.sort(peak[opaque]), np.sort(peak[~opaque])
    hits = len(inside) - np.searchsorted(inside, thresholds, side="right")
    false = len(outside) - np.searchsorted(outside, thresholds, side="right")
    iou = hits / (len(inside) + false)
    good = iou >= iou.max() - PLATEAU
    best = int(iou.argmax())
    low, high = best, best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < CANDIDATES - 1 and good[high + 1]:
        high += 1
    return float(np.sqrt(thresholds[low] * thresholds[high]))


def solid_mask(
    grid: FieldGrid, threshold: float, min_fraction: float, fill_cavities: bool
) -> Bool[np.ndarray, "X Y Z"]:
    """The voxels of the body: those above the threshold, without floaters, and with cavities filled.

    min_fraction: separate pieces with fewer voxels than this fraction of the largest piece's are floaters; 0 keeps
    all, 1 keeps only the largest.
    fill_cavities: pictures never show a field's inside. Of densities also those are filled that open to the outside
    only by pinholes, up to 2 * PINHOLE voxels wide, since the content is noise; of depths, whose walls are whole, only
    closed ones.
    """
    labels, count = ndimage.label(grid.values > threshold)
    if count == 0:
        return np.zeros(grid.values.shape, dtype=bool)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    keep = sizes >= min_fraction * sizes.max()
    keep[0] = False
    if min_fraction >= 1:
        keep &= np.arange(count + 1) == sizes.argmax()
    solid = keep[labels]
    if not fill_cavities:
        return solid
    return ndimage.binary_fill_holes(solid) if grid.is_depth else _without_cavities(solid)


def _without_cavities(solid: Bool[np.ndarray, "X Y Z"]) -> Bool[np.ndarray, "X Y Z"]:
    """`solid` and what is enclosed by it, closing pinholes and crevices deeper than a few voxels."""
    padded = np.pad(solid, PINHOLE + 1)
    thick = ndimage.binary_dilation(padded, iterations=PINHOLE)  # closes pinholes
    labels, _ = ndimage.label(~thick)
    outside = ndimage.binary_dilation(labels == labels[0, 0, 0], iterations=3 * PINHOLE, mask=~padded)
    labels, _ = ndimage.label(~outside[(slice(PINHOLE + 1, -PINHOLE - 1),) * 3])
    return np.isin(labels, np.unique(labels[solid]))  # drops what touches the body only at an edge


def extract_surface(
    grid: FieldGrid,
    threshold: float,
    min_fraction: float = 0.0,
    fill_cavities: bool = False,
    smoothing: float = 0.0,
) -> trimesh.Trimesh:
    """The surface where the field crosses the threshold, by marching cubes (Lewiner et al. 2003).

    Bodies that reach the grid's border are closed there. See `solid_mask` for the cleaning.
    smoothing: standard deviation in voxels of a Gaussian blur of the density, which is first clipped at twice the
    threshold: the threshold is then half-way between that and 0, so flat surfaces do not move. Details and parts
    thinner than about twice the deviation are lost. 0: no blur.

    Raises:
        OptionError: nothing lies above the threshold.
    """
    if not grid.values.max() > threshold and grid.is_depth:
        raise OptionError.because(
            f"the field has no inside: its smallest distance is {-grid.values.max():.3g}. Train longer "
            "(trainer.max_steps), or weaken the sparsity losses (system.loss)"
        )
    if not grid.values.max() > threshold:
        raise OptionError.because(
            f"no density exceeds isosurface_threshold = {threshold:.3g}: the largest is {grid.values.max():.3g}. "
            "Lower system.exporter.isosurface_threshold or set it to auto, or train longer (trainer.max_steps)"
        )
    values = _cleaned(grid, threshold, min_fraction, fill_cavities)
    if smoothing > 0:
        blurred = ndimage.gaussian_filter(np.clip(values, 0, 2 * threshold), smoothing, mode="nearest")
        if blurred.max() > threshold:  # otherwise the body is thinner than the blur: keep the rough surface
            values = _cleaned(replace(grid, values=blurred), threshold, min_fraction, fill_cavities)
    vertices, faces, _, _ = marching_cubes(
        np.pad(values, 1, constant_values=grid.outside(threshold)),
        level=threshold,
        spacing=(grid.step,) * 3,
        gradient_direction="ascent",  # with x, y, z as axes this winds the faces outwards
        allow_degenerate=False,
    )
    return trimesh.Trimesh(vertices + grid.origin - grid.step, faces)


def _cleaned(grid: FieldGrid, threshold: float, min_fraction: float, fill_cavities: bool) -> Float[np.ndarray, "X Y Z"]:
    """The values with only `solid_mask` above the threshold."""
    solid = solid_mask(grid, threshold, min_fraction, fill_cavities)
    above = grid.values > threshold
    return np.select([above & ~solid, solid & ~above], [grid.outside(threshold), grid.inside(threshold)], grid.values)


def simplify(mesh: trimesh.Trimesh, max_faces: int) -> trimesh.Trimesh:
    """At most about `max_faces` faces, by quadric edge collapse (Garland and Heckbert 1997); colours are dropped.

    What is watertight stays so, but for shapes that no order of collapses leaves whole.
    """
    if max_faces < 4:
        raise ValueError(f"max_faces is {max_faces}, expected at least 4")
    if len(mesh.faces) <= max_faces:
        return mesh
    closed = mesh.is_watertight
    for aggressiveness in AGGRESSIVENESS:
        vertices, faces = fast_simplification.simplify(
            mesh.vertices, mesh.faces, target_count=max_faces, agg=aggressiveness
        )
        simpler = trimesh.Trimesh(vertices, faces)
        # collapsing an edge does not split a mesh, so any additional piece is a sliver that folded off
        pieces = _piece_of_face(simpler)
        sizes = np.bincount(pieces)
        simpler.update_faces(np.isin(pieces, sizes.argsort()[::-1][: len(np.unique(_piece_of_face(mesh)))]))
        simpler.remove_unreferenced_vertices()
        if simpler.is_watertight or not closed:
            break
    return simpler


def _piece_of_face(mesh: trimesh.Trimesh) -> Int[np.ndarray, " F"]:
    """The connected piece, numbered from 0, that each face belongs to."""
    return trimesh.graph.connected_component_labels(mesh.edges_unique, node_count=len(mesh.vertices))[mesh.faces[:, 0]]
