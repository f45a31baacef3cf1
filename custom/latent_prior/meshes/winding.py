"""Winding numbers of triangle meshes, which tell inside from outside also where a mesh is not closed.

The generalised winding number of a point (Jacobson et al. 2013) is the sum of the solid angles of all faces seen from it,
over 4 pi: 1 inside a closed surface that is wound counter-clockwise as seen from outside, 0 outside of it, 2 where two
such overlap, and a fraction near the holes of an open one.
"""

import math

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

PAIRS = 1 << 17  # of a point and a face, computed at a time: they stay in the processor's cache
FLAT = 1e-6  # of area^(3/2): a piece that encloses less is flat and has no outside


def winding_number(
    points: Float[Tensor, "P 3"], vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "P"]:
    """The generalised winding number at each point.

    With the corners a, b, c of a face as seen from the point, its solid angle is 2 atan2(a . (b x c), |a||b||c| +
    (a . b)|c| + (b . c)|a| + (c . a)|b|) (van Oosterom and Strackee 1983). Products are written out in terms of the
    point p, such as a . b = A . B - p . (A + B) + p . p, so that matrix products compute them. Float32 is enough where
    coordinates are of order one.
    """
    corners = [vertices[column] for column in faces.T]
    normal = torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0])
    height = (corners[0] * normal).sum(dim=1, keepdim=True)
    edges = [(corners[k], corners[(k + 1) % 3]) for k in range(3)]
    products = [((start * end).sum(dim=1, keepdim=True), start + end) for start, end in edges]
    found = []
    for some in points.split(max(1, PAIRS // max(1, len(faces)))):
        p = some.T.contiguous()  # faces by points: what is gathered then are rows
        square, distance = p.square().sum(dim=0), torch.cdist(vertices, some)
        a, b, c = (distance[column] for column in faces.T)
        ab, bc, ca = ((product + square).addmm_(total, p, alpha=-1) for product, total in products)
        below = (a * b).mul_(c).addcmul_(ab, c).addcmul_(bc, a).addcmul_(ca, b)
        found.append(torch.atan2(height - normal @ p, below).sum(dim=0) / (2 * math.pi))
    return torch.cat(found)


def wound_outwards(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with each connected piece wound in one way, and that outwards; flat pieces stay as they are.

    Outwards is where the volume is positive that the piece encloses together with straight lines to its centre. A
    shell within another thus becomes a solid of its own, so that a cavity is filled.
    """
    mesh = mesh.copy()
    trimesh.repair.fix_winding(mesh)
    piece = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    weight = np.bincount(piece, mesh.area_faces)
    centre = [np.bincount(piece, mesh.area_faces * mesh.triangles_center[:, axis]) / weight for axis in range(3)]
    corners = mesh.triangles - np.stack(centre, axis=1)[piece][:, None]
    volume = np.bincount(piece, np.linalg.det(corners)) / 6
    inwards = volume < -FLAT * weight**1.5
    return trimesh.Trimesh(
        mesh.vertices, np.where(inwards[piece][:, None], mesh.faces[:, ::-1], mesh.faces), process=False
    )
