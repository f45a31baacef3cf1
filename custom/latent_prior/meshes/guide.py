"""A rough mesh that a field is held to: where it is solid, and how far away its surface is.

It may be put together from overlapping balls and boxes, have holes, and be wound the wrong way (see winding.py). Both
quantities are computed once, at the points of a grid, and interpolated from there.

Conventions. World coordinates, z up, front towards +x; the mesh is moved and scaled into them (Asset.to_world).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from latent_prior import OptionError
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.isosurface import simplify
from latent_prior.meshes.winding import winding_number, wound_outwards

KEY = "system.guide."
CELLS = 64  # of the grid along each axis
COARSE = 2  # cells; away from the surface the winding number is smooth, and computed at each second point only
MARGIN = 1.25  # half the grid's edge, in radii of the mesh
MOST_FACES = 2000  # of the mesh that is kept; the time to build the grid grows with them
SAMPLES = 100_000  # points of the surface from which distances are measured
WELD = 6  # decimals to which vertices of world coordinates are the same


@dataclass
class GuideConfig:
    """A mesh as a guide, where it is placed, and how closely the field follows it."""

    # A mesh file (glb, gltf, obj, ply, stl, off, ...), or a run's folder, whose newest export is taken; null: no guide.
    mesh: str | None = None
    # Axis of the file that points up: x, -x, y, -y, z or -z; null: the format's (glTF and obj: y; others: z).
    up: str | None = None
    # Axis of the file towards which the front looks; null: the format's (glTF and obj: z; others: -y).
    front: str | None = None
    # Distance of the mesh's farthest vertex from its middle in the field, in world units, whatever the file's units are.
    radius: float = 0.7
    # Width in world units of the zone on both sides of the surface in which the field is free.
    sigma: float = 0.1

    def __post_init__(self) -> None:
        for key in ("radius", "sigma"):
            if not 0 < getattr(self, key) < float("inf"):
                raise OptionError(key, getattr(self, key), "a positive length")


@dataclass(frozen=True, eq=False)
class Guide:
    """Winding number, held to [0, 1], and distance to the surface, at the points of a grid.

    grid: channels, z, y, x; its corners lie at -half_edge and half_edge.
    """

    grid: Float[Tensor, "1 2 N N N"]
    half_edge: float

    @classmethod
    def read(cls, cfg: GuideConfig, device: torch.device) -> "Guide":
        """OptionError for a mesh that cannot be read, or that encloses nothing."""
        asset = Asset.read(cfg.mesh, cfg.up, cfg.front, radius=cfg.radius, prefix=KEY)
        starts = np.cumsum([0, *(len(part.vertices) for part in asset.parts)])
        vertices = np.concatenate([asset.world(part.vertices) for part in asset.parts])
        faces = np.concatenate([part.faces + start for part, start in zip(asset.parts, starts[:-1], strict=True)])
        guide = cls.of(trimesh.Trimesh(vertices, faces, process=False), MARGIN * cfg.radius, device)
        winding, distance = guide.grid[0]
        if not ((winding > 0.5) & (distance > guide.half_edge / CELLS)).any():  # half a cell
            raise OptionError.because(f"{asset.path} encloses nothing: it is flat, thin or too open", f"{KEY}mesh")
        return guide

    @classmethod
    def of(cls, mesh: trimesh.Trimesh, half_edge: float, device: torch.device) -> "Guide":
        """The guide of a mesh in world coordinates."""
        mesh = _mended(mesh)
        axis = torch.linspace(-half_edge, half_edge, CELLS + 1)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1)  # indexed [z, y, x]
        step = float(axis[1] - axis[0])
        distance = torch.from_numpy(_distance(mesh, points.numpy(), step)).float()
        vertices, faces = torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces)
        coarse = points[::COARSE, ::COARSE, ::COARSE]
        winding = winding_number(coarse.reshape(-1, 3), vertices, faces).view(1, 1, *coarse.shape[:3])
        winding = F.interpolate(winding, size=distance.shape, mode="trilinear", align_corners=True)[0, 0]
        near = distance < COARSE * step
        winding[near] = winding_number(points[near], vertices, faces)
        return cls(torch.stack([winding.clamp(0, 1), distance])[None].to(device), half_edge)

    def at(self, points: Float[Tensor, "P 3"]) -> tuple[Bool[Tensor, "P"], Float[Tensor, "P"]]:
        """Whether points are inside, and their distance to the surface."""
        held = points.clamp(-self.half_edge, self.half_edge)
        where = (held / self.half_edge).view(1, 1, 1, -1, 3)
        winding, distance = F.grid_sample(self.grid, where, align_corners=True).view(2, -1)
        return winding > 0.5, distance + (points - held).norm(dim=1)


def _distance(mesh: trimesh.Trimesh, points: Float[np.ndarray, "N N N 3"], step: float) -> Float[np.ndarray, "N N N"]:
    """The distance of a grid's points to the surface: near it to the nearest sample of it, which the others inherit.

    The others take the nearest sample of the nearest grid point near the surface, which is at most a step farther than
    their own. A search of their own would visit all samples where these are equally far, as in the middle of a ball.
    """
    surface, _ = trimesh.sample.sample_surface(mesh, SAMPLES, seed=0)
    reach, sample = cKDTree(surface).query(points.reshape(-1, 3), distance_upper_bound=1.5 * step)
    shape = points.shape[:3]
    nearest = distance_transform_edt(np.isinf(reach).reshape(shape), return_distances=False, return_indices=True)
    return np.linalg.norm(points - surface[sample.reshape(shape)[tuple(nearest)]], axis=-1)


def _mended(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with few faces, joined at equal vertices and wound outwards."""
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=WELD)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh = simplify(mesh, MOST_FACES)
    mesh.update_faces(mesh.nondegenerate_faces())
    return wound_outwards(mesh)
