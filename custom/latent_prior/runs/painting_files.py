"""The files of `latent-prior paint`: the picture, its film, and the sheets of variants and of gradients."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from latent_prior.files import atomic_write, write_text
from latent_prior.files.films import write_film
from latent_prior.files.pictures import to_picture
from latent_prior.runs import folder as run_folder
from latent_prior.runs.painting import Painting

NAMES = ("picture.png", "film.mp4", "variants.png", "gradients.png")
FILM_SIDE = 256  # pixels at least of each picture in the film
FPS = 15

Labelled = tuple[str, Float[Tensor, "3 H W"]]


def write(out: Path, made: Sequence[Painting], columns: int, arguments: Mapping[str, Any]) -> None:
    """Write everything into the folder `out`; columns: of the sheet of variants, and the command's arguments."""
    with atomic_write(out / "picture.png") as beside:
        to_picture(made[0].picture).save(beside)
    _write_film(out / "film.mp4", made)
    if len(made) > 1:
        cells = [(painting.variant.label, painting.picture) for painting in made]
        _draw([cells[i : i + columns] for i in range(0, len(cells), columns)], out / "variants.png")
    rows: list[list[Labelled]] = []
    for painting in made:
        start = f"{painting.variant.label}, " if len(made) > 1 else ""
        rows += [[(f"{start}step {pull.step}", pull.picture), *pull.terms.items()] for pull in painting.pulls]
    if rows:
        _draw(rows, out / "gradients.png")
    kept = {name: value for name, value in arguments.items() if name not in ("action", "command")}
    origin = {**run_folder.made_with(), "command": sys.argv, "arguments": kept}
    write_text(out / run_folder.ORIGIN, json.dumps(origin, indent=2, default=str) + "\n")


def _write_film(path: Path, made: Sequence[Painting]) -> None:
    """How the pictures came about, side by side."""
    times = max(1, FILM_SIDE // made[0].picture.shape[-1])
    frames = [np.concatenate(row, 1) for row in zip(*(painting.frames for painting in made), strict=True)]
    write_film(path, [frame.repeat(times, 0).repeat(times, 1) for frame in frames], FPS)


def _draw(rows: Sequence[Sequence[Labelled]], path: Path) -> None:
    """A sheet of pictures, each under its label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    figure = Figure(figsize=(2.2 * columns, 2.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    for i, row in enumerate(rows):
        for k, (label, picture) in enumerate(row):
            axes = figure.add_subplot(len(rows), columns, i * columns + k + 1)
            axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_title(label.replace(", ", "\n"), fontsize=8)
            axes.set_axis_off()
    with atomic_write(path) as beside:
        figure.savefig(beside, dpi=130)
