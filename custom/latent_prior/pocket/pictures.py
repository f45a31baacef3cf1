"""Captioned picture sets of the pocket world, rendered once and stored on disk in shards.

A set is identified by its seed: shard k of a set depends only on seed + k, so that rendering a set can be interrupted
and resumed, and a larger set starts with the smaller one. Pictures are uint8 (N 3 H W).
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from latent_prior.files import atomic_write
from latent_prior.pocket import cameras
from latent_prior.pocket.captions import CAMERAS, Subject, is_held_out, view_word
from latent_prior.pocket.palette import COLOURS
from latent_prior.pocket.renderer import render
from latent_prior.pocket.solids import KINDS

SHARD = 500
PAINT_JITTER = 0.03  # standard deviation of the paint around the palette's colour
SURFACE_SHARES = {"plain": 0.55, "striped": 0.17, "checkered": 0.17, "golden": 0.11}


@dataclass(frozen=True)
class PictureSet:
    """Pictures with the subject, view words and camera words of each."""

    images: UInt8[Tensor, "N 3 H W"]
    subjects: list[Subject]
    views: list[str]
    cameras: list[str]

    def __len__(self) -> int:
        return len(self.subjects)


def joined(*sets: PictureSet) -> PictureSet:
    """The pictures of all sets, in order."""
    names = ("subjects", "views", "cameras")
    images = torch.cat([part.images for part in sets])
    return PictureSet(images, *([label for part in sets for label in getattr(part, name)] for name in names))


def draw_subject(rng: random.Random, held_out: bool | None) -> Subject:
    """A random subject; `held_out` None draws from all, False from the training ones, True from the held-out ones."""
    while True:
        surface = rng.choices(list(SURFACE_SHARES), list(SURFACE_SHARES.values()))[0]
        colour = "golden" if surface == "golden" else rng.choice(list(COLOURS))
        subject = Subject(rng.choice(KINDS), colour, surface)
        if held_out is None or is_held_out(subject) == held_out:
            return subject


def draw_shard(seed: int, held_out: bool | None, size: int, count: int, all_round: bool = False) -> PictureSet:
    """Render `count` pictures with cameras, paints and backgrounds drawn from `seed`.

    all_round: cameras at all elevations alike, and not mostly at eye level.
    """
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    subjects = [draw_subject(rng, held_out) for _ in range(count)]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=g) * (high - low) + low

    at_eye_level = torch.rand(count, generator=g) < cameras.EYE_LEVEL_SHARE
    elevation = torch.where(at_eye_level, uniform(*cameras.EYE_LEVEL), uniform(*cameras.ELEVATION_RANGE))
    if all_round:
        elevation = uniform(*cameras.ALL_ROUND)
    azimuth = uniform(-180.0, 180.0)
    distance, fovy = uniform(*cameras.DISTANCE_RANGE), uniform(*cameras.FOVY_RANGE)
    paint = torch.tensor([s.rgb for s in subjects]) + torch.randn(count, 3, generator=g) * PAINT_JITTER
    grey = torch.where(torch.rand(count, generator=g) < 0.15, torch.ones(count), uniform(0.04, 1.0))
    picture = render(
        subjects, elevation, azimuth, grey[:, None].expand(-1, 3), distance, fovy, size, paint=paint.clamp(0.02, 1)
    )
    views = [view_word(float(e), float(a)) for e, a in zip(elevation, azimuth, strict=True)]
    every = list(CAMERAS.cameras())
    placed = [CAMERAS.words(*every[k]) for k in CAMERAS.index(azimuth, elevation).tolist()]
    return PictureSet((picture.rgb.clamp(0, 1) * 255).round().byte(), subjects, views, placed)


def picture_set(
    folder: Path,
    count: int,
    seed: int,
    held_out: bool | None,
    size: int = 64,
    label: str = "pictures",
    all_round: bool = False,
) -> PictureSet:
    """A set of at least `count` pictures (whole shards), rendering the shards that `folder` lacks.

    Seeds of different sets must differ by more than their numbers of shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for k in tqdm(range((count + SHARD - 1) // SHARD), desc=label, unit="shard", disable=None):
        path = folder / f"{seed + k:09d}-{size}-cameras.safetensors"
        if not path.exists():
            _write(path, draw_shard(seed + k, held_out, size, SHARD, all_round))
        parts.append(_read(path))
    return joined(*parts)


def _write(path: Path, shard: PictureSet) -> None:
    subjects: Sequence = [(s.kind, s.colour, s.surface) for s in shard.subjects]
    with atomic_write(path) as beside:
        save_file({"images": shard.images}, beside, {"labels": json.dumps([subjects, shard.views, shard.cameras])})


def _read(path: Path) -> PictureSet:
    with safe_open(path, "pt") as f:
        subjects, views, placed = json.loads(f.metadata()["labels"])
        return PictureSet(f.get_tensor("images"), [Subject(*s) for s in subjects], views, placed)
