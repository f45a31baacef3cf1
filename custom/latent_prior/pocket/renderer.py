"""Ground-truth pictures of the pocket world by sphere tracing.

Except for a weak headlight, light depends only on the position and normal of the surface (rendering/light.py). A
radiance field with view-independent colour can therefore match the truth closely.
Pictures are anti-aliased by supersampling. Runs on any device, batched over scenes of different kinds; deterministic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.pocket import cameras, palette, solids
from latent_prior.pocket.captions import Subject
from latent_prior.rendering.light import REACH, open_share, overcast

SURFACE_BAND = 0.02  # normals come from finite differences over this length / 20
MARCH_STEPS = 56
HIT = 1.5e-3
STEP = 0.9  # step as a fraction of the distance, which is over-estimated far from flat ellipsoids


@dataclass(frozen=True)
class Picture:
    """One batch of renders: rgb in [0, 1], mask (covered fraction of a pixel), depth along the ray (0 where nothing was
    hit), normals in world space (0 where nothing was hit)."""

    rgb: Float[Tensor, "B 3 H W"]
    mask: Float[Tensor, "B 1 H W"]
    depth: Float[Tensor, "B 1 H W"]
    normal: Float[Tensor, "B 3 H W"]


def march(kind: str, origins: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Distance along each ray to the solid, infinity for a miss."""
    near, far = cameras.near_far(origins, directions, solids.RADIUS + 0.02)
    out = torch.full_like(near, torch.inf)
    index = torch.nonzero(near < far).squeeze(1)
    t, far, o, d = near[index].clamp(min=0), far[index], origins[index], directions[index]
    for step in range(MARCH_STEPS):
        distance = solids.signed_distance(kind, o + d * t[:, None])
        t = t + distance * STEP
        if step % 4 == 3 or step == MARCH_STEPS - 1:  # every few steps, drop the rays that are done
            hit = distance < (HIT if step < MARCH_STEPS - 1 else 2 * HIT)
            out[index[hit]] = t[hit]
            going = ~hit & (t < far)
            index, t, far, o, d = index[going], t[going], far[going], o[going], d[going]
            if index.numel() == 0:
                break
    return out


def normals(kind: str, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Unit outward normals by central differences on a tetrahedron."""
    step = SURFACE_BAND / 20
    out = torch.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k = points.new_tensor(corner)
        out += k * solids.signed_distance(kind, points + k * step)[:, None]
    return F.normalize(out, dim=-1)


def shade(
    subject: Subject,
    rgb: Float[Tensor, "N 3"],
    points: Float[Tensor, "N 3"],
    normal: Float[Tensor, "N 3"],
    towards_camera: Float[Tensor, "N 3"],
    phase: Float[Tensor, " N"] | float = 0.0,
) -> Float[Tensor, "N 3"]:
    """Colour of surface points as the camera sees them."""
    in_front = solids.signed_distance(subject.kind, points + normal * REACH)
    facing = (normal * towards_camera).sum(-1).clamp(0, 1)
    if subject.surface == "golden":
        # a metal reflects its surroundings: a bright sky, a dark horizon, a warm ground
        mirror = torch.sin(normal[:, 2] * 2.4 - 0.2) * 0.5 + 0.5
        light = (0.30 + 0.62 * mirror + 0.22 * facing) * open_share(in_front)
        glint = ((mirror - 0.72) / 0.28).clamp(0, 1) * 0.35
        return (rgb * light[:, None] * (1 - glint[:, None]) + glint[:, None] * light[:, None]).clamp(0, 1)
    light = overcast(normal[:, 2], facing, in_front)
    return (palette.albedo(subject.surface, rgb, points, phase) * light[:, None]).clamp(0, 1)


def _trace(subject, rgb, phase, origins, directions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour, coverage, depth and normal of flat rays of one kind and surface; rgb (N 3) is the paint of each ray."""
    t = march(subject.kind, origins, directions)
    index = torch.nonzero(torch.isfinite(t)).squeeze(1)
    colour, normal, depth = torch.zeros_like(origins), torch.zeros_like(origins), torch.zeros_like(t)
    points = origins[index] + directions[index] * t[index, None]
    n = normals(subject.kind, points)
    colour[index] = shade(subject, rgb[index], points, n, -directions[index], phase[index])
    normal[index], depth[index] = n, t[index]
    return colour, torch.isfinite(t).to(colour), depth, normal


def render(
    subjects: Sequence[Subject],
    elevation: Float[Tensor, " B"],
    azimuth: Float[Tensor, " B"],
    background: Float[Tensor, "B 3"],
    distance: Float[Tensor, " B"] | float = cameras.DISTANCE,
    fovy: Float[Tensor, " B"] | float = cameras.FOVY,
    size: int = 64,
    supersample: int = 2,
    paint: Float[Tensor, "B 3"] | None = None,
    phase: Float[Tensor, " B"] | None = None,
) -> Picture:
    """Pictures of `subjects`, one camera each (degrees; threestudio's conventions), `size` x `size` pixels.

    `paint` replaces the exact colour of the palette (the training sets jitter it), `phase` shifts stripes. Raises
    ValueError if the numbers of subjects and cameras differ.
    """
    count = len(subjects)
    if not (len(elevation) == len(azimuth) == len(background) == count):
        raise OptionError.because(
            f"got {count} subjects, {len(elevation)} elevations, {len(azimuth)} azimuths and {len(background)} "
            "backgrounds: expected equal numbers"
        )
    elevation, azimuth = elevation.float(), azimuth.float()
    distance = torch.as_tensor(distance, dtype=torch.float32).expand(count)
    fovy = torch.as_tensor(fovy, dtype=torch.float32).expand(count)
    if paint is None:
        paint = torch.tensor([s.rgb for s in subjects])
    if phase is None:
        phase = torch.zeros(count)
    fine = size * supersample
    rays = cameras.orbit_rays(elevation, azimuth, distance, fovy, fine)
    channels = torch.zeros(count, 8, fine, fine)
    for like in dict.fromkeys((s.kind, s.surface) for s in subjects):
        rows = [i for i, s in enumerate(subjects) if (s.kind, s.surface) == like]
        pixels = fine * fine
        colour, mask, depth, normal = _trace(
            subjects[rows[0]],
            paint[rows].repeat_interleave(pixels, 0),
            phase[rows].repeat_interleave(pixels, 0),
            rays.origins[rows].reshape(-1, 3),
            rays.directions[rows].reshape(-1, 3),
        )
        packed = torch.cat([colour, mask[:, None], depth[:, None], normal], -1)
        channels[rows] = packed.view(len(rows), fine, fine, 8).permute(0, 3, 1, 2)
    if supersample > 1:
        channels = F.avg_pool2d(channels, supersample)
    mask = channels[:, 3:4]
    covered = mask.clamp(min=1e-6)
    return Picture(
        rgb=channels[:, :3] + (1 - mask) * background[:, :, None, None],
        mask=mask,
        depth=channels[:, 4:5] / covered,
        normal=F.normalize(channels[:, 5:8], dim=1) * (mask > 0),
    )
