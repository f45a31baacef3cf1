"""Pictures of a grid of distances as a body of clay: one colour, in the light of an overcast day (light.py).

They show shape and nothing else, at once and without training: what is deep is darker.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior.host.embedded.voxels import read_voxels
from latent_prior.rendering.light import REACH, overcast
from latent_prior.rendering.rays import ray_sphere

SAMPLES = 96  # on a ray, between which the surface is interpolated


def clay_pictures(
    light: Float[Tensor, "B H W 1"], colour: Float[Tensor, "3"], background: float = 0.6
) -> Float[Tensor, "B H W 3"]:
    """Pictures of clay of a colour under the light of `clay_light`, on grey."""
    return torch.where(light > 0, (colour.to(light) * light).clamp(0, 1), background)


@torch.no_grad()
def clay_light(
    distances: Float[Tensor, "1 1 G G G"],
    box: Float[Tensor, "2 3"],
    rays_o: Float[Tensor, "B H W 3"],
    rays_d: Float[Tensor, "B H W 3"],
) -> Float[Tensor, "B H W 1"]:
    """The light on what each ray meets of the body in the largest ball of the box; 0 for nothing. Unit directions."""
    origins, directions = rays_o.reshape(-1, 3), rays_d.reshape(-1, 3)
    radius = float(box[1].min())
    near, far = ray_sphere(origins, directions, radius)
    crossing = (far > near).nonzero().squeeze(1)
    origins, directions = origins[crossing], directions[crossing]
    steps = (torch.arange(SAMPLES, device=near.device) + 0.5) / SAMPLES
    t = near[crossing, None] + (far - near)[crossing, None] * steps
    along = read_voxels(distances, origins[:, None] + directions[:, None] * t[..., None], box, "border")[..., 0]
    first = (along < 0).float().argmax(dim=1, keepdim=True)  # 0 where a ray starts inside or meets nothing
    hit = (first > 0).squeeze(1)
    before, after = (along.gather(1, index) for index in ((first - 1).clamp(min=0), first))
    share = before / (before - after).clamp(min=1e-6)
    t0, t1 = (t.gather(1, index) for index in ((first - 1).clamp(min=0), first))
    place = (origins + directions * (t0 + share * (t1 - t0)))[hit]

    spacing = 2 * radius / distances.shape[-1]
    slope = torch.cat([torch.gradient(distances, spacing=spacing, dim=axis)[0] for axis in (4, 3, 2)], dim=1)
    normal = F.normalize(read_voxels(slope, place, box, "border"), dim=-1)
    in_front = read_voxels(distances, place + REACH * normal, box, "border")[:, 0]
    facing = -(normal * directions[hit]).sum(dim=-1)
    light = rays_d.new_zeros(rays_d.shape[:3].numel())
    light[crossing[hit]] = overcast(normal[:, 2], facing.clamp(0, 1), in_front)
    return light.view(*rays_d.shape[:3], 1)
