"""Pictures of a written mesh file, from the cameras of the truth's."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import rasteriser
from latent_prior.evaluate.text_to_3d.views import SIZE, Angles, Views
from latent_prior.host.embedded import camera_geometry
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.files import WORLD_TO_Y_UP
from latent_prior.meshes.parts import cross_products
from latent_prior.pocket import cameras

FINER = 2  # pixels along each axis for one of a picture, as in the truth's


def mesh_views(asset: Asset, angles: Angles, size: int = SIZE) -> Views:
    """Pictures of the file in its own colours, on white, without light.

    The file is as `save_mesh` places a solid of the pocket world in it.
    """
    points, faces = asset.joined()
    # the inverse of what placed it, since that is orthogonal
    vertices = torch.tensor(points @ WORLD_TO_Y_UP[:3, :3], dtype=torch.float32)
    triangles = torch.tensor(faces, dtype=torch.int32)
    clip = F.pad(vertices, (0, 1), value=1.0) @ _world_to_clip(angles).transpose(1, 2)

    fine = (size * FINER, size * FINER)
    rast, _ = rasteriser.rasterize(rasteriser.RasterizeCudaContext(), clip, triangles, fine)
    flat = rast.reshape(-1, 4)
    pixel = (flat[:, 3] > 0).nonzero().squeeze(1)
    u, v, _, number = flat[pixel].double().numpy().T
    layers = torch.zeros(len(flat), 4)
    weights = np.stack([u, v, 1 - u - v], axis=1)
    layers[pixel, :3] = torch.tensor(asset.colours_at(number.astype(np.int64) - 1, weights))
    layers[pixel, 3] = 1
    layers = rasteriser.antialias(layers.view(len(angles), *fine, 4), rast, clip, triangles)
    pictures = F.avg_pool2d(layers.permute(0, 3, 1, 2), FINER)
    rgb, opacity = pictures.split([3, 1], dim=1)
    return Views((rgb + 1 - opacity).clamp(0, 1), opacity)


def _world_to_clip(angles: Angles) -> Float[Tensor, "B 4 4"]:
    like = torch.ones_like(angles.azimuth)
    positions = cameras.orbit_positions(angles.elevation, angles.azimuth, like * cameras.DISTANCE)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(positions)
    poses = camera_geometry.look_at(positions, torch.zeros_like(positions), up)
    return camera_geometry.mvp_matrix(poses, camera_geometry.projection_matrix(torch.deg2rad(like * cameras.FOVY), 1.0))


def mean_colour(asset: Asset, count: int, seed: int = 0) -> Float[np.ndarray, "3"]:
    """The mean display colour over the surface, by points drawn uniformly on it."""
    draw = np.random.default_rng(seed)
    corners = np.concatenate([part.vertices[part.faces] for part in asset.parts])
    area = np.linalg.norm(cross_products(corners), axis=1)
    faces = draw.choice(len(area), count, p=area / area.sum())
    weights = draw.dirichlet(np.ones(3), count)  # uniform on a triangle
    return asset.colours_at(faces, weights).mean(axis=0)
