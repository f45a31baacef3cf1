"""The pictures to measure: the truth's and a trained field's, from the same cameras, on white.

Cameras are those of `pocket.cameras` at DISTANCE and FOVY, equal to the host's evaluation cameras at those values. A
field in latent space is rendered at the checkpoint's own latent size over the latents of a white picture, and decoded;
its opacity is rendered at the pictures' size.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.pocket import cameras, renderer
from latent_prior.pocket.captions import Subject

SIZE = 64  # side in pixels of the judge's and the prior's pictures
RING_VIEWS, RING_ELEVATION = 16, 20.0
SINGLE_AZIMUTH, SINGLE_ELEVATION = 30.0, 45.0
SHEET_AZIMUTHS, SHEET_SIZE = (30.0, 120.0, 210.0, 300.0), 128  # for the contact sheet, at RING_ELEVATION
BATCH = 4  # views rendered at once


@dataclass(frozen=True)
class Angles:
    """Camera angles in degrees."""

    elevation: Float[Tensor, " B"]
    azimuth: Float[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.azimuth)


@dataclass(frozen=True)
class Views:
    """Pictures on white, in [0, 1], and the coverage of each pixel."""

    rgb: Float[Tensor, "B 3 H W"]
    opacity: Float[Tensor, "B 1 H W"]


def ring() -> Angles:
    """The views for the comparison with the truth: evenly spaced, the first in front."""
    return Angles(*cameras.ring(RING_VIEWS, RING_ELEVATION))


def single() -> Angles:
    """The one view of Dream Fields' R-precision (Jain et al. 2022)."""
    return Angles(torch.tensor([SINGLE_ELEVATION]), torch.tensor([SINGLE_AZIMUTH]))


def sheet() -> Angles:
    """The views of the contact sheet."""
    return Angles(torch.full((len(SHEET_AZIMUTHS),), RING_ELEVATION), torch.tensor(SHEET_AZIMUTHS))


def truth_views(subject: Subject, angles: Angles, size: int = SIZE, phase: float = 0.0) -> Views:
    """Ground truth views of the subject; phase: of its pattern (see palette.albedo)."""
    count = len(angles)
    picture = renderer.render(
        [subject] * count,
        angles.elevation,
        angles.azimuth,
        torch.ones(count, 3),
        size=size,
        phase=torch.full((count,), phase),
    )
    return Views(picture.rgb, picture.mask)


def rays(angles: Angles, size: int) -> cameras.Rays:
    """The rays of the evaluation's cameras."""
    like = torch.ones_like(angles.azimuth)
    return cameras.orbit_rays(angles.elevation, angles.azimuth, like * cameras.DISTANCE, like * cameras.FOVY, size)


@torch.no_grad()
def field_views(system: Any, angles: Angles, size: int = SIZE) -> Views:
    """Views of a text-to-3D system's field; the system is in evaluation mode."""
    parts = []
    for i in range(0, len(angles), BATCH):
        part = Angles(angles.elevation[i : i + BATCH], angles.azimuth[i : i + BATCH])
        if getattr(system.cfg, "space", "rgb") == "latent":
            parts.append(_latent_views(system, part, size))
        else:
            out = _render(system, part, torch.ones(size, size, 3))
            parts.append((out["comp_rgb"].permute(0, 3, 1, 2), out["opacity"].permute(0, 3, 1, 2)))
    rgb, opacity = (torch.cat(pieces).float().cpu().clamp(0, 1) for pieces in zip(*parts, strict=True))
    return Views(rgb, opacity)


def _latent_views(system: Any, angles: Angles, size: int) -> tuple[Tensor, Tensor]:
    system.load_guidance()
    autoencoder = system.guidance.prior.autoencoder
    height, width = system.guidance.prior.denoiser.sample_size
    if height != width:
        raise OptionError.because(
            f"the checkpoint's pictures are {height} x {width} latents, but only square ones are supported"
        )
    side = height * autoencoder.downscale
    white = autoencoder.encode(torch.ones(1, 3, side, side, device=system.device))[0].permute(1, 2, 0)
    latents = _render(system, angles, white)["comp_rgb"].permute(0, 3, 1, 2)
    rgb = system.guidance.decode_latents(latents)
    if rgb.shape[-1] != size:
        rgb = F.interpolate(rgb, (size, size), mode="bilinear", align_corners=False, antialias=True)
    opacity = _render(system, angles, torch.zeros(size, size, white.shape[-1]))["opacity"].permute(0, 3, 1, 2)
    return rgb, opacity


def _render(system: Any, angles: Angles, background: Float[Tensor, "H W C"]) -> dict[str, Tensor]:
    """Render one batch over a background picture, at its size."""
    batch = rays(angles, background.shape[0])
    position = cameras.orbit_positions(
        angles.elevation, angles.azimuth, torch.full_like(angles.azimuth, cameras.DISTANCE)
    )
    device = system.device
    return system.renderer(
        rays_o=batch.origins.to(device),
        rays_d=batch.directions.to(device),
        light_positions=position.to(device),
        bg_color=background.to(device).expand(len(angles), -1, -1, -1),
        render_normal=False,
    )
