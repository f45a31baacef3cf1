"""The scene that a z of the pocket StyleGAN shows: a mug's camera, paint and background; so every z has a known truth.

The first eight entries of z, normalised to unit mean square as in the generator, are the scene: azimuth and hue each as
the direction of two numbers, elevation, background, saturation and value each through the normal distribution function.
The other entries are unused; they exist because rosinality's file format needs z and w of the same size.
"""

import colorsys
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior.pocket import cameras
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.renderer import render
from latent_prior.stylegan2.generator import normalised

KIND = "mug"
SCENE_ENTRIES = 8
BACKGROUND_RANGE = (0.2, 1.0)
SATURATION_RANGE = VALUE_RANGE = (0.5, 0.95)


@dataclass(frozen=True)
class Scenes:
    """Camera angles in degrees, paint in [0, 1], grey level of the background."""

    elevation: Float[Tensor, " B"]
    azimuth: Float[Tensor, " B"]
    paint: Float[Tensor, "B 3"]
    background: Float[Tensor, " B"]


def scenes(z: Float[Tensor, "B Z"]) -> Scenes:
    """The scenes of z (standard normal, at least SCENE_ENTRIES wide)."""
    s = normalised(z)[:, :SCENE_ENTRIES].cpu()

    def spread(column: int, low: float, high: float) -> Tensor:
        return torch.special.ndtr(s[:, column]) * (high - low) + low

    hue = torch.atan2(s[:, 3], s[:, 4]) / (2 * math.pi) % 1.0
    hsv = torch.stack([hue, spread(6, *SATURATION_RANGE), spread(7, *VALUE_RANGE)], 1)
    return Scenes(
        elevation=spread(2, *cameras.EYE_LEVEL),
        azimuth=torch.rad2deg(torch.atan2(s[:, 0], s[:, 1])),
        paint=torch.tensor([colorsys.hsv_to_rgb(*row) for row in hsv.tolist()]).view(-1, 3),
        background=spread(5, *BACKGROUND_RANGE),
    )


def truth(
    z: Float[Tensor, "B Z"], subject: Subject | None = None, size: int = 64, own_paint: bool = False
) -> Float[Tensor, "B 3 H W"]:
    """True pictures of z in [0, 1]: mugs in z's own colour, or `subject` under z's camera and background.

    own_paint: `subject` in z's colour instead of its own.
    """
    s = scenes(z)
    picture = render(
        [subject or Subject(KIND, "red")] * len(z),
        s.elevation,
        s.azimuth,
        s.background[:, None].expand(-1, 3),
        size=size,
        paint=s.paint if subject is None or own_paint else None,
    )
    return picture.rgb.clamp(0, 1)
