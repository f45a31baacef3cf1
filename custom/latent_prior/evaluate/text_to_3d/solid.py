"""Whether a mesh is a solid that one would keep: its normals, area and volume beside the truth's, and its faults.

Lengths are in world units, angles in degrees. Rays are cast by embree, through trimesh.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from latent_prior import rasteriser
from latent_prior.evaluate.text_to_3d import surface, views
from latent_prior.evaluate.text_to_3d.surface import piece_of_face
from latent_prior.pocket import cameras

SAMPLES = 20_000
THIN_SAMPLES, THIN_SHARE = 4000, 0.01
AROUND = ((-60.0, 8), (-20.0, 12), (20.0, 12), (60.0, 8), (89.0, 1), (-89.0, 1))  # elevation and number of views
AROUND_SIZE = 256  # pixels
TOUCH = 1e-4  # of an edge's length; nearer to its ends it does not count as passing through a face
# Solids that are open above, and how far from the axis their hollow is looked at; deeper than so much it is a hollow.
HOLLOW = {"mug": 0.3, "wine glass": 0.25, "jug": 0.12}
DEEP = 0.1
RAYS = 24  # along either axis, straight down into a hollow


@dataclass(frozen=True)
class SolidFigures:
    """normals_to, normals_from: mean angle between the normals of points on the mesh and of the truth's nearest points,
    and the other way round. area, volume: as multiples of the truth's. crossings: faces that an edge of another face
    passes through. hidden: pieces of the surface that no outside view shows. thinnest: the wall's thickness that one
    percent of the surface is below. hollow: how deep the inside lies below the top, seen from above, as a multiple of
    the truth's; None where the truth is not hollow.
    """

    normals_to: float
    normals_from: float
    area: float
    volume: float
    watertight: bool
    crossings: int
    hidden: int
    thinnest: float
    hollow: float | None


def figures(mesh: trimesh.Trimesh, kind: str) -> SolidFigures:
    """Measure a mesh in world coordinates whose equal vertices are one."""
    truth = surface.truth_mesh(kind)
    to, back = normal_errors(mesh, truth)
    return SolidFigures(
        normals_to=to,
        normals_from=back,
        area=float(mesh.area / truth.area),
        volume=float(mesh.volume / truth.volume),
        watertight=bool(mesh.is_watertight),
        crossings=crossings(mesh),
        hidden=hidden_pieces(mesh),
        thinnest=thinnest_wall(mesh),
        hollow=hollow_depth(mesh, kind) / hollow_depth(truth, kind) if kind in HOLLOW else None,
    )


def normal_errors(mesh: trimesh.Trimesh, truth: trimesh.Trimesh, count: int = SAMPLES) -> tuple[float, float]:
    """Mean angle between the normals of points drawn on either mesh and of the nearest points drawn on the other."""
    points, normals = _surface(mesh, count, seed=0)
    others, theirs = _surface(truth, count, seed=1)
    near, back = cKDTree(others).query(points)[1], cKDTree(points).query(others)[1]
    return _angle(normals, theirs[near]), _angle(theirs, normals[back])


def _surface(mesh: trimesh.Trimesh, count: int, seed: int) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return np.asarray(points), mesh.face_normals[faces]


def _angle(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "N 3"]) -> float:
    return float(np.degrees(np.arccos((a * b).sum(axis=1).clip(-1, 1))).mean())


def crossings(mesh: trimesh.Trimesh) -> int:
    """The number of faces that an edge passes through; faces that share one of its ends do not count."""
    edges = mesh.edges_unique
    start, along = mesh.vertices[edges[:, 0]], mesh.vertices[edges[:, 1]] - mesh.vertices[edges[:, 0]]
    length = np.linalg.norm(along, axis=1)
    edges, start, along, length = (each[length > 0] for each in (edges, start, along, length))
    unit = along / length[:, None]
    face, ray, place = mesh.ray.intersects_id(start, unit, multiple_hits=True, max_hits=8, return_locations=True)
    if len(face) == 0:
        return 0
    at = ((place - start[ray]) * unit[ray]).sum(axis=1) / length[ray]
    within = (at > TOUCH) & (at < 1 - TOUCH)
    shares = (mesh.faces[face][:, :, None] == edges[ray][:, None]).any(axis=(1, 2))
    return len(np.unique(face[within & ~shares]))


def hidden_pieces(mesh: trimesh.Trimesh) -> int:
    """The number of connected pieces of which none of the views all around shows a pixel."""
    pieces = piece_of_face(mesh)
    if pieces.max() == 0:
        return 0
    seen: Int[np.ndarray, "K"] = np.unique(np.concatenate([pieces[_visible(mesh, *ring)] for ring in AROUND]))
    return int(pieces.max() + 1 - len(seen))


def _visible(mesh: trimesh.Trimesh, elevation: float, count: int) -> Int[np.ndarray, "K"]:
    """The faces that a ring of views shows."""
    angles = views.Angles(*cameras.ring(count, elevation))
    vertices = torch.tensor(np.array(mesh.vertices), dtype=torch.float32)
    clip = F.pad(vertices, (0, 1), value=1.0) @ views.world_to_clip(angles).transpose(1, 2)
    triangles = torch.tensor(np.array(mesh.faces), dtype=torch.int32)
    rast, _ = rasteriser.rasterize(rasteriser.RasterizeCudaContext(), clip, triangles, (AROUND_SIZE, AROUND_SIZE))
    return rast[..., 3][rast[..., 3] > 0].long().unique().numpy() - 1


def thinnest_wall(mesh: trimesh.Trimesh) -> float:
    """The length that THIN_SHARE of the rays straight into the surface stay below, until they leave the solid."""
    points, normals = _surface(mesh, THIN_SAMPLES, seed=0)
    inwards = points - 1e-3 * normals
    _, ray, place = mesh.ray.intersects_id(inwards, -normals, multiple_hits=False, return_locations=True)
    if len(ray) == 0:
        return 0.0
    return float(np.quantile(np.linalg.norm(place - points[ray], axis=1), THIN_SHARE))


@cache
def _downwards(kind: str) -> Float[np.ndarray, "N 2"]:
    """Where to look straight down into the hollow of a solid."""
    side = np.linspace(-HOLLOW[kind], HOLLOW[kind], RAYS)
    x, y = (axis.ravel() for axis in np.meshgrid(side, side))
    places = np.stack([x, y], axis=1)[np.hypot(x, y) <= HOLLOW[kind]]
    truth = surface.truth_mesh(kind)
    return places[truth.vertices[:, 2].max() - _heights(truth, places) > DEEP]


def _heights(mesh: trimesh.Trimesh, places: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N"]:
    """The height of what is seen straight from above; that of the lowest vertex where nothing is."""
    above = np.concatenate([places, np.full((len(places), 1), 2.0)], axis=1)
    down = np.tile([0.0, 0.0, -1.0], (len(places), 1))
    _, ray, place = mesh.ray.intersects_id(above, down, multiple_hits=False, return_locations=True)
    heights = np.full(len(places), mesh.vertices[:, 2].min())
    heights[ray] = place[:, 2]
    return heights


def hollow_depth(mesh: trimesh.Trimesh, kind: str) -> float:
    """Mean depth below the top of what is seen straight from above, where the truth is hollow."""
    return float(mesh.vertices[:, 2].max() - _heights(mesh, _downwards(kind)).mean())
