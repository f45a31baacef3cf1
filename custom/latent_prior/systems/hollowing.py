"""Hollowing: whether a body is a vessel is decided once, by asking the prior which pictures are likelier.

Score distillation does not hollow a mug. It moves a surface by what its pictures show, and a flat lid shows nothing of
the depth below it: dark paint on the lid explains the pictures nearly as well, and is nearer. The prior itself does know:
from the picture of a lid, its clean estimate is half-way to that of the hollow. So bodies are proposed that are hollowed
from above, with walls and depths of several sizes; each is drawn as clay (rendering/clay.py) from above, and the one
whose pictures the prior denoises best is taken (Li et al. 2023, "Your Diffusion Model is Secretly a Zero-Shot
Classifier", eq. 6), or none of them.

Conventions. Grids of distances as those of sdf-grid: 1 1 G G G, axes z, y, x, world units, negative inside.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.host import ranks
from latent_prior.host.embedded import camera_geometry
from latent_prior.rendering.clay import clay_light, clay_pictures

# The cameras that look at a proposal: elevations from above, all around.
ELEVATIONS = (30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 45.0, 65.0)
AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, -135.0, -90.0, -45.0)
TONES = (0.8, 0.95, 1.1, 1.25)  # brightness of the clay
LEAST_SHARE = 0.04  # of the body's volume that a proposal has to take away; less is a dent, and no hollow
DESCRIBED = 0.85  # share of its error without the prompt that clay may have with it; plain bodies have 0.45 to 0.76
SMOOTH = 0.8  # voxels, of the surface that is drawn
OPEN = 8  # voxels of air above the grid


@dataclass
class HollowingConfig:
    """`system.hollowing`."""

    # Step at which hollowed bodies are proposed; null: never.
    step: int | None = None
    # Thicknesses of the wall that are tried, in world units.
    walls: list[float] = field(default_factory=lambda: [0.08, 0.1])
    # Depths that are tried, as shares of the body's height.
    depths: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0])
    # The least share by which a hollowed body has to lower the prior's error.
    least_gain: float = 0.02


@dataclass(frozen=True)
class Proposal:
    """A body, what was taken away from it, and the same with a surface to look at: without noise and specks."""

    name: str
    distances: Float[Tensor, "1 1 G G G"]
    clean: Float[Tensor, "1 1 G G G"]


def check(cfg: Any, geometry: Any, guidance_type: str, space: str) -> None:
    """OptionError for a hollowing that could not be done; cfg: a HollowingConfig, as the host parses it."""
    if cfg.step is None:
        return
    if cfg.step < 0:
        raise OptionError("system.hollowing.step", cfg.step, "a step of at least 0, or null")
    if not hasattr(geometry, "reshape"):
        expected = f"null, since a {type(geometry).__name__} has no grid of distances: choose sdf-grid"
        raise OptionError("system.hollowing.step", cfg.step, expected)
    if (settled := geometry.settled_step) > cfg.step:
        expected = f"at least {settled}, when the last of system.geometry.level_steps has faded in, or null"
        raise OptionError("system.hollowing.step", cfg.step, expected)
    host.find(guidance_type, "system.guidance_type")
    if guidance_type != "latent-prior-guidance" or space != "rgb":
        raise OptionError("system.hollowing.step", cfg.step, "null, without latent-prior-guidance in system.space=rgb")
    for key, most in (("walls", float("inf")), ("depths", 1.0)):
        values = list(getattr(cfg, key))
        if not values or not all(0 < value <= most for value in values):
            expected = "positive lengths" if key == "walls" else "shares above 0, at most 1"
            raise OptionError(f"system.hollowing.{key}", values, expected)
    if not 0 <= cfg.least_gain < 1:
        raise OptionError("system.hollowing.least_gain", cfg.least_gain, "a share from 0 to below 1")


def proposals(distances: Float[Tensor, "1 1 G G G"], radius: float, cfg: Any) -> list[Proposal]:
    """The body itself, and bodies hollowed from above; radius: half the edge of the grid's box.

    What is taken away is at least a wall's thickness from the outside, but for the outside straight above: of each
    column, the air over its highest solid voxel counts as body. So a floor stays, stems and handles are too thin, and
    what lies under an overhang is not touched.
    """
    grid = distances[0, 0].detach().cpu().numpy().astype(np.float64)
    spacing = 2 * radius / len(grid)
    solid = grid < 0

    def add(name: str, values: Float[np.ndarray, "G G G"]) -> None:
        both = (
            torch.as_tensor(grid, dtype=torch.float32)[None, None] for grid in (values, _clean(values < 0, spacing))
        )
        found.append(Proposal(name, *(grid.to(distances) for grid in both)))

    found: list[Proposal] = []
    add("as it is", grid)
    if not solid.any():
        return found
    inside = distance_transform_edt(_open_above(solid)) * spacing - spacing / 2
    heights = (np.arange(len(grid)) + 0.5) * spacing - radius
    layers = heights[solid.any(axis=(1, 2))]
    for wall in cfg.walls:
        below_wall = np.where(_from_above(inside > wall), inside - wall, -spacing)[: len(grid)]
        for depth in cfg.depths:
            floor = layers.max() - depth * (layers.max() - layers.min())
            cavity = np.minimum(below_wall, heights[:, None, None] - floor)  # depth within what is taken away
            hollowed = np.maximum(grid, cavity)
            if (solid & (hollowed >= 0)).sum() >= LEAST_SHARE * solid.sum():
                add(f"hollow by {depth:.0%}, walls of {wall:g}", hollowed)
    return found


def _from_above(mask: Bool[np.ndarray, "H G G"]) -> Bool[np.ndarray, "H G G"]:
    """What of a mask is reached from the layer at the top."""
    pieces, _ = label(mask)
    return mask & np.isin(pieces, np.unique(pieces[-1]))


def _clean(solid: Bool[np.ndarray, "G G G"], spacing: float) -> Float[np.ndarray, "G G G"]:
    """Distances from the surface of the largest piece, smoothed by about a voxel."""
    pieces, count = label(solid)
    if count > 1:
        solid = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    half = spacing / 2  # voxels' centres are so far from the surface at least
    outwards, inwards = (distance_transform_edt(mask) * spacing - half for mask in (~solid, solid))
    return gaussian_filter(np.where(solid, -inwards, outwards), SMOOTH)


def _open_above(solid: Bool[np.ndarray, "G G G"]) -> Bool[np.ndarray, "H G G"]:
    """The body and the air above the highest solid voxel of each of its columns, up to above the grid."""
    count = len(solid)
    highest = count - 1 - solid[::-1].argmax(axis=0)
    above = solid.any(axis=0) & (np.arange(count)[:, None, None] > highest)
    return np.pad(solid | above, ((0, OPEN), (0, 0), (0, 0)), mode="edge")


@torch.no_grad()
def hollow(
    cfg: Any, geometry: Any, guidance: Any, prompt_utils: Any, batch: dict[str, Any], colour: Float[Tensor, "3"]
) -> str | None:
    """Hollow the geometry if the prior finds that likelier; returns what was done, if anything.

    batch: of cameras, whose distance, field of view and size the proposals are seen with. colour: of the clay, about;
    each proposal is seen in the tone of it that suits it best, since a hollow is darker than a lid of its colour, and
    would else be judged by that. Where the prompt hardly makes clay likelier than it is without, as of something
    striped, clay says nothing of the body, and it stays as it is.
    """
    device = geometry.bbox.device
    elevation, azimuth = torch.tensor(ELEVATIONS, device=device), torch.tensor(AZIMUTHS, device=device)
    distance = ranks.mean_over(batch["camera_distances"].mean()).expand_as(elevation).to(device)
    rays_o, rays_d = _rays(elevation, azimuth, distance, batch)

    def error(pictures: Float[Tensor, "B H W 3"], prompted: bool = True) -> float:
        return guidance.denoising_error(pictures, prompt_utils, elevation, azimuth, distance, prompted).mean().item()

    tried = proposals(geometry.distances(), float(geometry.cfg.radius), cfg)
    errors: list[float] = []
    likeliest = torch.empty(0)
    for proposal in tried:
        light = clay_light(proposal.clean, geometry.bbox, rays_o, rays_d)
        in_tones = [clay_pictures(light, (tone * colour).clamp(0, 1)) for tone in TONES]
        of_tones = [error(pictures) for pictures in in_tones]
        if min(of_tones) < min(errors, default=np.inf):
            likeliest = in_tones[int(np.argmin(of_tones))]
        errors.append(min(of_tones))
    best = int(np.argmin(errors))
    gain = 1 - errors[best] / errors[0]
    if gain <= cfg.least_gain or errors[best] > DESCRIBED * error(likeliest, prompted=False):
        best = 0
    best, gain = ranks.same_on_all((best, gain))
    if best == 0:
        return None
    geometry.reshape(tried[best].distances)
    return f"{tried[best].name}: the prior's error falls by {gain:.0%}"


def _rays(
    elevation: Float[Tensor, "B"], azimuth: Float[Tensor, "B"], distance: Float[Tensor, "B"], batch: dict[str, Any]
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
    angles = (torch.deg2rad(elevation).cpu(), torch.deg2rad(azimuth).cpu())
    position = camera_geometry.spherical_to_cartesian(*angles, distance.cpu())
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(position)
    poses = camera_geometry.look_at(position, torch.zeros_like(position), up)
    fovy = ranks.mean_over(batch["fovy"].mean()).cpu().expand_as(distance)
    rays = camera_geometry.camera_rays(camera_geometry.ray_directions(batch["height"], batch["width"]), fovy, poses)
    return rays[0].to(elevation.device), rays[1].to(elevation.device)
