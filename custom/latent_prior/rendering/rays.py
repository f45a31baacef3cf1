"""Intersections of rays with bounding volumes, and sample positions on rays.

Conventions. A ray is origin + t * direction; directions need not be unit vectors. Bounds are (near, far) in t; a ray
misses when far <= near.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def ray_box(
    origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], box: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where rays enter and leave the box between corners box[0] and box[1] (slab method, Kay and Kajiya 1986)."""
    tiny = torch.finfo(directions.dtype).tiny ** 0.5
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    first, second = (box[0] - origins) / safe, (box[1] - origins) / safe
    return torch.minimum(first, second).amax(dim=-1), torch.maximum(first, second).amin(dim=-1)


def ray_sphere(
    origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], radius: float
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where rays enter and leave the sphere of that radius around the world's origin."""
    squared_length = directions.square().sum(dim=-1)
    middle = -(origins * directions).sum(dim=-1) / squared_length
    distance = (origins + middle[:, None] * directions).square().sum(dim=-1)
    half = ((radius**2 - distance) / squared_length).clamp(min=0).sqrt()
    return middle - half, middle + half


def sample_bins(
    near: Float[Tensor, "R"], far: Float[Tensor, "R"], num_samples: int, jitter: bool
) -> tuple[Float[Tensor, "R S"], Float[Tensor, "R S"], Float[Tensor, "R S"]]:
    """Split [near, far] into equal bins with one sample each: (bin starts, bin ends, samples).

    jitter: draw the sample uniformly in its bin (global generator, as the hosts do), otherwise take the bin's middle.
    """
    width = ((far - near) / num_samples)[:, None]
    steps = torch.arange(num_samples + 1, dtype=near.dtype, device=near.device)
    edges = near[:, None] + width * steps
    offset = torch.rand_like(edges[:, 1:]) if jitter else 0.5
    return edges[:, :-1], edges[:, 1:], edges[:, :-1] + width * offset
