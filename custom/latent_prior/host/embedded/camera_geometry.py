"""Camera geometry: spherical positions, look-at poses, pixel rays and projections.

World: right-handed, x towards the front view's camera, y right, z up; azimuth counts from +x to +y, elevation from the
xy plane to +z. Camera: x right, y up, looking along -z (OpenGL). Pixel (i, j) has its centre at (i + 0.5, j + 0.5).
Everything is float32, with the operations in threestudio's order, so that results are bit-identical.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

NEAR, FAR = 0.01, 100.0  # clip planes; not configurable, as in threestudio


def spherical_to_cartesian(
    elevation: Float[Tensor, "B"], azimuth: Float[Tensor, "B"], distance: Float[Tensor, "B"]
) -> Float[Tensor, "B 3"]:
    """Camera position from angles in radians and the distance from the origin."""
    return torch.stack(
        [
            distance * torch.cos(elevation) * torch.cos(azimuth),
            distance * torch.cos(elevation) * torch.sin(azimuth),
            distance * torch.sin(elevation),
        ],
        dim=-1,
    )


def look_at(
    position: Float[Tensor, "B 3"], center: Float[Tensor, "B 3"], up: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """Camera-to-world matrix of a camera at `position` that looks at `center`, with `up` as the image's vertical."""
    forward = F.normalize(center - position, dim=-1)
    # threestudio passes no dim to torch.cross, which picks the batch axis for a batch of three; we do not copy that bug
    right = F.normalize(torch.cross(forward, up, dim=-1), dim=-1)
    up = F.normalize(torch.cross(right, forward, dim=-1), dim=-1)
    c2w = torch.zeros(position.shape[0], 4, 4, dtype=position.dtype)
    c2w[:, :3] = torch.cat([torch.stack([right, up, -forward], dim=-1), position[:, :, None]], dim=-1)
    c2w[:, 3, 3] = 1.0
    return c2w


def ray_directions(height: int, width: int) -> Float[Tensor, "h w 3"]:
    """Unnormalised directions through the pixel centres in camera space, for a focal length of one pixel."""
    i, j = torch.meshgrid(
        torch.arange(width, dtype=torch.float32) + 0.5, torch.arange(height, dtype=torch.float32) + 0.5, indexing="xy"
    )
    return torch.stack([i - width / 2, -(j - height / 2), -torch.ones_like(i)], dim=-1)


def camera_rays(
    unit_focal: Float[Tensor, "h w 3"], fovy: Float[Tensor, "B"], c2w: Float[Tensor, "B 4 4"], normalize: bool = True
) -> tuple[Float[Tensor, "B h w 3"], Float[Tensor, "B h w 3"]]:
    """World-space origins and directions of the rays through all pixels.

    unit_focal: from `ray_directions`; fovy: vertical field of view in radians; normalize: directions of unit length.
    """
    focal = 0.5 * unit_focal.shape[0] / torch.tan(0.5 * fovy)
    directions = unit_focal[None].repeat(fovy.shape[0], 1, 1, 1)
    directions[..., :2] = directions[..., :2] / focal[:, None, None, None]
    rays_d = (directions[..., None, :] * c2w[:, None, None, :3, :3]).sum(-1)
    rays_o = c2w[:, None, None, :3, 3].expand(rays_d.shape)
    return rays_o, F.normalize(rays_d, dim=-1) if normalize else rays_d


def projection_matrix(
    fovy: Float[Tensor, "B"], aspect: float, near: float = NEAR, far: float = FAR
) -> Float[Tensor, "B 4 4"]:
    """OpenGL perspective projection with y flipped, as nvdiffrast's image rows require; aspect is width / height."""
    proj = torch.zeros(fovy.shape[0], 4, 4, dtype=torch.float32)
    proj[:, 0, 0] = 1.0 / (torch.tan(fovy / 2.0) * aspect)
    proj[:, 1, 1] = -1.0 / torch.tan(fovy / 2.0)
    proj[:, 2, 2] = -(far + near) / (far - near)
    proj[:, 2, 3] = -2.0 * far * near / (far - near)
    proj[:, 3, 2] = -1.0
    return proj


def mvp_matrix(c2w: Float[Tensor, "B 4 4"], proj: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """World to clip space: projection times the inverse of the rigid camera-to-world matrix."""
    rotation = c2w[:, :3, :3].permute(0, 2, 1)
    w2c = torch.zeros_like(c2w)
    w2c[:, :3, :3] = rotation
    w2c[:, :3, 3:] = -rotation @ c2w[:, :3, 3:]
    w2c[:, 3, 3] = 1.0
    return proj @ w2c
