"""The ground truth as a mesh, for comparison with exported meshes."""

from functools import cache

import numpy as np
import torch
import trimesh
from skimage.measure import marching_cubes

from latent_prior.pocket.solids import RADIUS, signed_distance


@cache
def truth_mesh(kind: str, resolution: int = 128) -> trimesh.Trimesh:
    """The surface of a solid by marching cubes on a grid of `resolution`^3, z up, outward normals."""
    side = torch.linspace(-RADIUS - 0.05, RADIUS + 0.05, resolution)
    grid = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1)
    distance = torch.cat([signed_distance(kind, plane) for plane in grid.split(16)])
    step = (side[1] - side[0]).item()
    vertices, faces, _, _ = marching_cubes(distance.numpy(), 0.0, spacing=(step,) * 3)
    mesh = trimesh.Trimesh(vertices + side[0].item(), faces[:, ::-1].astype(np.int64))
    if mesh.volume < 0:
        mesh.invert()
    return mesh
