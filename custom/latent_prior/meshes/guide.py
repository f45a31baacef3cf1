"""A rough mesh that a field is held to: where it is solid, and how far away its surface is.

It may be put together from overlapping balls and boxes, have holes, and be wound the wrong way (see winding.py). Solid is
where its winding number is above a half, and its surface is the border of that: faces within another part do not count,
and a hole is closed. The signed distance to that surface is computed once, at the points of a grid.

Conventions. World coordinates, z up, front towards +x; the mesh is moved and scaled into them (Asset.to_world).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, distance_transform_edt
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.isosurface import simplify
from latent_prior.meshes.winding import FLAT, winding_number, wound_outwards

KEY = "system.guide."
CELLS = 64  # of the grid along each axis
COARSE = 2  # cells; away from the surface the winding number is smooth, and computed at each second point only
MARGIN = 1.25  # half the grid's edge, in radii of the mesh
FEW_FACES = 1000  # of the mesh that is kept, where its volume stays; the time to build the grid grows with them
MOST_FACES = 32_000  # of one that needs more, such as a sketch of many pieces
CHANGED = 0.03  # of the volume, by which fewer faces may change it
SAMPLES = 100_000  # points of the surface that tell which grid points are near it
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
    # Width in world units of the zone on both sides of the surface in which the field is free; parts that are thinner
    # than that are hardly held.
    sigma: float = 0.05

    def __post_init__(self) -> None:
        for key in ("radius", "sigma"):
            if not 0 < getattr(self, key) < float("inf"):
                raise OptionError(key, getattr(self, key), "a positive length")


@dataclass(frozen=True, eq=False)
class Guide:
    """The signed distance to a guide's surface, negative inside, at the points of a grid.

    grid: axes z, y, x; its corners lie at -half_edge and half_edge. Exact to half a cell.
    """

    grid: Float[Tensor, "1 1 N N N"]
    half_edge: float

    @classmethod
    def read(cls, cfg: GuideConfig, device: torch.device) -> "Guide":
        """OptionError for a mesh that cannot be read, or that encloses nothing."""
        asset = Asset.read(cfg.mesh, cfg.up, cfg.front, radius=cfg.radius, prefix=KEY)
        vertices, faces = asset.joined()
        guide = cls.of(trimesh.Trimesh(asset.world(vertices), faces, process=False), MARGIN * cfg.radius, device)
        if guide is None:
            raise OptionError.because(f"{asset.path} encloses nothing: it is flat, thin or too open", f"{KEY}mesh")
        return guide

    @classmethod
    def of(cls, mesh: trimesh.Trimesh, half_edge: float, device: torch.device) -> "Guide | None":
        """The guide of a mesh in world coordinates; None if it is nowhere thicker than two cells."""
        mesh = _mended(mesh)
        if not len(mesh.faces):
            return None
        axis = torch.linspace(-half_edge, half_edge, CELLS + 1)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1)  # indexed [z, y, x]
        vertices, faces = torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces)
        coarse = points[::COARSE, ::COARSE, ::COARSE]
        winding = winding_number(coarse.reshape(-1, 3), vertices, faces).view(1, 1, *coarse.shape[:3])
        winding = F.interpolate(winding, size=points.shape[:3], mode="trilinear", align_corners=True)[0, 0]
        near = _near(mesh, half_edge)
        winding[near] = winding_number(points[near], vertices, faces)
        inside = (winding > 0.5).numpy()
        depth = distance_transform_edt(inside)  # in cells, to the nearest point on the other side of the surface
        if depth.max() <= 1:
            return None
        signed = np.where(inside, 0.5 - depth, distance_transform_edt(~inside) - 0.5)  # the surface is half-way
        grid = torch.from_numpy(signed).float() * (2 * half_edge / CELLS)
        return cls(grid[None, None].to(device), half_edge)

    def at(self, points: Float[Tensor, "P 3"]) -> tuple[Bool[Tensor, "P"], Float[Tensor, "P"]]:
        """Whether points are inside, and their distance to the surface; too large by up to the way to the grid."""
        held = points.clamp(-self.half_edge, self.half_edge)
        signed = F.grid_sample(self.grid, (held / self.half_edge).view(1, 1, 1, -1, 3), align_corners=True).view(-1)
        return signed < 0, signed.abs() + (points - held).norm(dim=1)


def _near(mesh: trimesh.Trimesh, half_edge: float) -> Bool[Tensor, "N N N"]:
    """The grid points, indexed [z, y, x], around which the surface may pass between points of the coarse grid."""
    surface, _ = trimesh.sample.sample_surface(mesh, SAMPLES, seed=0)
    x, y, z = ((surface / half_edge + 1) * (CELLS / 2)).round().astype(int).T
    near = np.zeros([CELLS + 1] * 3, dtype=bool)
    near[z, y, x] = True
    return torch.from_numpy(binary_dilation(near, np.ones((3, 3, 3)), iterations=COARSE))


def _mended(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh joined at equal vertices and wound outwards, with as few faces as keep its volume; maybe with none."""
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=WELD)
    # winding a fine mesh anew takes minutes
    whole = _wound(mesh if mesh.is_winding_consistent else simplify(mesh, MOST_FACES))
    volume, faces = _volume(whole), FEW_FACES
    most = CHANGED * abs(volume) + FLAT * whole.area**1.5
    while True:
        found = _wound(simplify(mesh, faces))
        change = abs(_volume(found) - volume)
        if change <= most or faces >= min(MOST_FACES, len(mesh.faces)):
            break
        faces = min(2 * faces, MOST_FACES)
    if change > most:
        share = change / abs(volume) if volume else 1
        host.warn(f"the guide is simplified to {len(found.faces)} faces, which changes its volume by {share:.0%}")
    return found


def _wound(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    mesh.update_faces(mesh.nondegenerate_faces())
    return wound_outwards(mesh) if len(mesh.faces) else mesh


def _volume(mesh: trimesh.Trimesh) -> float:
    return float(np.linalg.det(mesh.triangles).sum() / 6)
