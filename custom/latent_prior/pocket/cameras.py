"""Cameras of the pocket world: threestudio's orbit cameras as plain functions of their angles.

z is up; azimuth 0 looks from +x, azimuth 90 from +y; elevation is above the horizon. Angles and the vertical field of
view are in degrees here (threestudio's batches hold fovy in radians). Rays pass through pixel centres, row 0 is the
top of the picture.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Cameras of the pocket prior's training pictures: mostly from about eye level and from one distance, like a
# photographer's. Where captions do not mention them, the prior cannot know what varies here, and a solid made under it
# is blurred over that variation. Beside these there are pictures from all round, whose captions always say the camera.
EYE_LEVEL = (0.0, 40.0)
EYE_LEVEL_SHARE = 0.75
ELEVATION_RANGE = (-10.0, 80.0)  # the other pictures
ALL_ROUND = (-20.0, 88.0)  # the pictures from all round
DISTANCE_RANGE = (2.95, 3.05)
FOVY_RANGE = (35.5, 36.5)
DISTANCE, FOVY = 3.0, 36.0  # used for evaluation


@dataclass(frozen=True)
class Rays:
    """Origins and unit directions, one ray per pixel."""

    origins: Float[Tensor, "B H W 3"]
    directions: Float[Tensor, "B H W 3"]


def orbit_positions(
    elevation: Float[Tensor, " B"], azimuth: Float[Tensor, " B"], distance: Float[Tensor, " B"]
) -> Float[Tensor, "B 3"]:
    """Camera positions on the sphere of radius `distance` about the origin."""
    e, a = torch.deg2rad(elevation), torch.deg2rad(azimuth)
    return torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], -1) * distance[:, None]


def orbit_rays(
    elevation: Float[Tensor, " B"],
    azimuth: Float[Tensor, " B"],
    distance: Float[Tensor, " B"],
    fovy: Float[Tensor, " B"],
    size: int,
) -> Rays:
    """Rays for square pictures of side `size`, from cameras that look at the origin."""
    position = orbit_positions(elevation, azimuth, distance)
    forward = F.normalize(-position, dim=-1)
    right = F.normalize(torch.cross(forward, forward.new_tensor([0.0, 0.0, 1.0]).expand_as(forward), dim=-1), dim=-1)
    up = torch.cross(right, forward, dim=-1)
    centres = (torch.arange(size, dtype=position.dtype) + 0.5) / size * 2 - 1
    half = torch.tan(torch.deg2rad(fovy) / 2)[:, None]
    x = (centres * half)[:, None, :, None]
    y = (-centres * half)[:, :, None, None]
    directions = forward[:, None, None] + x * right[:, None, None] + y * up[:, None, None]
    directions = F.normalize(directions, dim=-1)
    return Rays(position[:, None, None].expand_as(directions), directions)


def ring(count: int, elevation: float) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Elevations and azimuths (degrees) of `count` cameras evenly spaced on a circle, the first at the front."""
    return torch.full((count,), float(elevation)), torch.arange(count) * (360.0 / count)


def near_far(origins: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], radius: float) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave the ball about the origin; near > far where they miss it."""
    b = -(origins * directions).sum(-1)
    disc = radius**2 - ((origins * origins).sum(-1) - b * b)
    root = disc.clamp(min=0).sqrt()
    miss = disc <= 0
    return torch.where(miss, math.inf, b - root), torch.where(miss, -math.inf, b + root)
