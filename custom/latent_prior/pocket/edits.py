"""Edits with known ground truth: a picture of one subject, and the same scene with the prompt's subject instead.

The ten edits for reported results, and four for tuning weights, were chosen before any result: colours, surfaces, two
other solids, and three targets that the prior never saw.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior.files import atomic_write
from latent_prior.files.pictures import to_picture
from latent_prior.pocket.captions import Subject, parse
from latent_prior.pocket.renderer import render

SIZE = 64


@dataclass(frozen=True)
class Scene:
    """Pictures in [0, 1] before and after; `mask` is 1 wherever either shows a solid, else 0."""

    before: Float[Tensor, "3 H W"]
    truth: Float[Tensor, "3 H W"]
    mask: Float[Tensor, "1 H W"]


@dataclass(frozen=True)
class Edit:
    """The source and the target, as captions of the pocket world, and the camera in degrees."""

    source: str
    target: str
    azimuth: float
    elevation: float = 15.0
    background: float = 0.6  # grey level

    @property
    def description(self) -> str:
        """A description in words."""
        return f"{self.source} to {self.target}"

    @property
    def name(self) -> str:
        """A form for file names."""
        return self.description.replace(" ", "_")

    def scene(self, size: int = SIZE) -> Scene:
        """The pictures, `size` x `size` pixels."""
        subjects: list[Subject] = [parse(self.source), parse(self.target)]
        two = torch.ones(2)
        pictures = render(
            subjects,
            two * self.elevation,
            two * self.azimuth,
            (two * self.background)[:, None].expand(-1, 3),
            size=size,
        )
        before, truth = pictures.rgb.clamp(0, 1)
        return Scene(before, truth, (pictures.mask.amax(0) > 0).float())


EDITS = (
    Edit("a red mug", "a golden mug", azimuth=30),
    Edit("a blue chair", "a red chair", azimuth=40, elevation=25),
    Edit("a yellow house", "a blue house", azimuth=-35),
    Edit("an orange jug", "a striped orange jug", azimuth=60, background=0.85),
    Edit("a white mushroom", "a red mushroom", azimuth=0, background=0.35),
    Edit("a blue cylinder", "a blue mug", azimuth=45, elevation=25, background=0.75),
    Edit("a yellow cone", "a yellow tree", azimuth=10, background=0.4),
    # never seen in training: golden ducks, yellow mugs, purple wine glasses
    Edit("a green duck", "a golden duck", azimuth=-50),
    Edit("a purple mug", "a yellow mug", azimuth=-40, background=0.5),
    Edit("a green wine glass", "a purple wine glass", azimuth=0, background=0.8),
)
TUNING_EDITS = (
    Edit("a green mug", "a turquoise mug", azimuth=50),
    Edit("a red rocket", "a striped red rocket", azimuth=20, background=0.8),
    Edit("a white bird", "an orange bird", azimuth=-60, background=0.4),
    Edit("a pink cylinder", "a pink jug", azimuth=60, background=0.5),
)


def paths(edit: Edit, folder: Path) -> tuple[Path, Path, Path]:
    """Where `write` puts the picture, its truth and its mask."""
    return tuple(folder / f"{edit.name}.{part}.png" for part in ("before", "truth", "mask"))


def write(edit: Edit, folder: Path, size: int = SIZE) -> tuple[Path, Path, Path]:
    """Write the picture, its truth and its mask as PNG into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = edit.scene(size)
    for path, pixels in zip(paths(edit, folder), (scene.before, scene.truth, scene.mask), strict=True):
        with atomic_write(path) as beside:
            to_picture(pixels).save(beside)
    return paths(edit, folder)
