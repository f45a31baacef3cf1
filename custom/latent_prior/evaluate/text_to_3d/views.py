"""The pictures to measure: the truth's, a written mesh's and a trained field's, from the same cameras, on white.

Cameras are those of `pocket.cameras` at DISTANCE and FOVY, equal to the host's evaluation cameras at those values. A
field in latent space is rendered at the checkpoint's own latent size over the latents of a white picture, and decoded;
its opacity is rendered at the pictures' size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError, rasteriser
from latent_prior.host.embedded import camera_geometry
from latent_prior.meshes.asset import Asset
from latent_prior.pocket import cameras, renderer
from latent_prior.pocket.captions import Subject

SIZE = 64  # side in pixels of the judge's and the prior's pictures
RING_VIEWS, RING_ELEVATION = 16, 20.0
SINGLE_AZIMUTH, SINGLE_ELEVATION = 30.0, 45.0
SHEET_AZIMUTHS, SHEET_SIZE = (30.0, 120.0, 210.0, 300.0), 128  # for the contact sheet, at RING_ELEVATION
BATCH = 4  # views rendered at once
FINER = 2  # pixels of a mesh along each axis for one of a picture, as in the truth's


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


def in_world(asset: Asset) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Vertices in world coordinates, and faces, of a file as `save_mesh` writes it: turned, not moved and scaled."""
    points, faces = asset.joined()
    return asset.world_directions(points), faces


@torch.no_grad()
def mesh_views(asset: Asset, angles: Angles, size: int = SIZE) -> Views:
    """Pictures of the file in its own colours, on white, without light.

    The file is as `save_mesh` places a solid of the pocket world in it.
    """
    points, faces = in_world(asset)
    vertices = torch.tensor(points, dtype=torch.float32)
    triangles = torch.tensor(faces, dtype=torch.int32)
    clip = F.pad(vertices, (0, 1), value=1.0) @ world_to_clip(angles).transpose(1, 2)

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


def world_to_clip(angles: Angles) -> Float[Tensor, "B 4 4"]:
    """Projections of the evaluation's cameras, in the rasteriser's conventions."""
    like = torch.ones_like(angles.azimuth)
    positions = cameras.orbit_positions(angles.elevation, angles.azimuth, like * cameras.DISTANCE)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(positions)
    poses = camera_geometry.look_at(positions, torch.zeros_like(positions), up)
    return camera_geometry.mvp_matrix(poses, camera_geometry.projection_matrix(torch.deg2rad(like * cameras.FOVY), 1.0))
