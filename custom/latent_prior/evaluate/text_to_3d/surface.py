"""Comparing an exported mesh with the truth's: shape, bodies and colour.

Colours are display values in [0, 1]. A mesh's mean colour is the mean of its colours over its area. The truth's
is that of its shaded surface, because a field includes the shading in its colours. A colour is named after the nearest
of those means among all alternatives to the prompt: all colours of that kind and surface, and for a golden one, which
has no other colours, gold and all colours of the plain kind. The distance is Euclidean in CIELAB (CIE 1976).
"""

from functools import cache

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from skimage.color import rgb2lab

from latent_prior.meshes.asset import Asset
from latent_prior.meshes.parts import cross_products
from latent_prior.metrics import chamfer_distance
from latent_prior.pocket import renderer
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.palette import COLOURS
from latent_prior.pocket.truth import truth_mesh

SAMPLES = 30_000  # points on either surface; half their spacing is about 0.005
# Mean cosine between a surface and the cameras that see it, each weighted by the surface's pixels there: for uniformly
# distributed cameras, E[cos^2] / E[cos].
FACING = 2 / 3


def surface_points(mesh: trimesh.Trimesh, count: int = SAMPLES, seed: int = 0) -> Float[np.ndarray, "N 3"]:
    """Points drawn uniformly from a mesh's surface."""
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return np.asarray(points)


def chamfer_to_truth(mesh: trimesh.Trimesh, kind: str) -> float:
    """Chamfer distance between points on the mesh and points on the truth."""
    return chamfer_distance(surface_points(mesh), _truth_points(kind))


@cache
def _truth_points(kind: str) -> Float[np.ndarray, "N 3"]:
    return surface_points(truth_mesh(kind), seed=1)


def welded(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> trimesh.Trimesh:
    """The bare mesh; vertices at the same place are one, whatever their colours and normals."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    return mesh


def piece_of_face(mesh: trimesh.Trimesh) -> Int[np.ndarray, "F"]:
    """The connected piece, numbered from 0, that each face belongs to."""
    labels = trimesh.graph.connected_component_labels(mesh.edges_unique, node_count=len(mesh.vertices))
    return np.unique(labels[mesh.faces[:, 0]], return_inverse=True)[1]


def count_bodies(mesh: trimesh.Trimesh) -> int:
    """Connected pieces, as of `welded`."""
    return int(piece_of_face(welded(mesh.vertices, mesh.faces)).max()) + 1


@cache
def truth_bodies(kind: str) -> int:
    """Connected pieces of the truth."""
    return count_bodies(truth_mesh(kind))


def mean_colour(asset: Asset, count: int = SAMPLES, seed: int = 0) -> Float[np.ndarray, "3"]:
    """The mean display colour over the surface, by points drawn uniformly on it."""
    draw = np.random.default_rng(seed)
    corners = np.concatenate([part.vertices[part.faces] for part in asset.parts])
    area = np.linalg.norm(cross_products(corners), axis=1)
    faces = draw.choice(len(area), count, p=area / area.sum())
    weights = draw.dirichlet(np.ones(3), count)  # uniform on a triangle
    return asset.colours_at(faces, weights).mean(axis=0)


@cache
def truth_mean_colours(kind: str, surface: str) -> dict[str, tuple[float, float, float]]:
    """The mean surface colour of every alternative for a colour on this kind and surface."""
    subjects = [Subject(kind, colour, "plain" if surface == "golden" else surface) for colour in COLOURS]
    if surface == "golden":
        subjects.append(Subject(kind, "golden", "golden"))
    mesh = truth_mesh(kind)
    points = torch.tensor(np.array(mesh.vertices), dtype=torch.float32)
    normals = renderer.normals(kind, points)
    means = {}
    for subject in subjects:
        paint = torch.tensor(subject.rgb).expand_as(points)
        shaded = renderer.shade(subject, paint, points, normals, FACING * normals)
        means[subject.colour] = tuple(_area_mean(mesh, shaded.double().numpy()).tolist())
    return means


def nearest_colour(rgb: Float[np.ndarray, "3"], kind: str, surface: str) -> str:
    """The name of the colour whose mean on the truth is nearest to `rgb`."""
    means = truth_mean_colours(kind, surface)
    distances = np.linalg.norm(rgb2lab(np.array(list(means.values()))) - rgb2lab(np.asarray(rgb)), axis=-1)
    return list(means)[int(distances.argmin())]


def _area_mean(mesh: trimesh.Trimesh, values: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "3"]:
    """Mean over the surface of values at the vertices, interpolated linearly in each face."""
    return np.average(values[mesh.faces].mean(axis=1), axis=0, weights=mesh.area_faces)
