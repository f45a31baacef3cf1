"""The gallery of many runs: a sweep's, an evaluation's with the truth beside each result, or those in any folder."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from latent_prior import OptionError
from latent_prior.evaluate.bench import contact_sheet
from latent_prior.files.pictures import read_picture
from latent_prior.report import NAME, embedding
from latent_prior.runs import folder as run_folder

SUMMARY = "summary.json"
COLUMNS = {"seconds": "seconds"}  # heading and figure, of runs that nothing else is known of
VIEW_SIDE = 96  # pixels of a view


@dataclass(frozen=True)
class Cell:
    """One run: what it was to make, what came out, and how good that is."""

    prompt: str
    variant: str
    seed: str
    link: str = ""  # to its page, relative to the gallery
    truth: str | None = None  # data URIs
    result: str | None = None
    shown: Mapping[str, str] = field(default_factory=dict)  # figures by heading, as text
    numbers: Mapping[str, float] = field(default_factory=dict)  # those that can be sorted by
    missed: bool = False
    error: str = ""


def write(folder: Path) -> Path:
    """Write the gallery of the runs in `folder`; returns its path. OptionError if there are none."""
    title, columns, rows = _listed(folder)
    cells = [_cell(folder, columns, row) for row in rows]
    if not cells:
        raise OptionError.because(f"{folder} is not a run folder and holds none (no configs/{run_folder.PARSED})")
    values = {
        "title": title,
        "cells": cells,
        "variants": list(dict.fromkeys(cell.variant for cell in cells)),
        "seeds": list(dict.fromkeys(cell.seed for cell in cells)),
        "figures": list(dict.fromkeys(name for cell in cells for name in cell.numbers)),
        "tables": [name for name in ("table.md", "paired.csv", "runs.csv") if (folder / name).is_file()],
    }
    return embedding.write_page(folder / NAME, "gallery.html.j2", values)


def runs(folder: Path) -> list[Path]:
    """The folders of the gallery's runs, as far as they are there."""
    found = [_run_of(folder, row) for row in _listed(folder)[2]]
    return [run for run in found if run is not None]


def _listed(folder: Path) -> tuple[str, Mapping[str, str], Sequence[Mapping[str, Any]]]:
    """The title, figures by their headings, and a row for each run: those of summary.json, else runs below `folder`."""
    title = folder.resolve().name
    try:
        summary = json.loads((folder / SUMMARY).read_text())
        rows = [row for row in summary["runs"] if row.get("run")]
        return str(summary.get("title", title)), dict(summary.get("columns") or COLUMNS), rows
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return title, COLUMNS, list(_found(folder))


def _found(folder: Path) -> Iterator[Mapping[str, Any]]:
    from latent_prior import host

    for parsed in sorted(folder.glob(f"**/configs/{run_folder.PARSED}")):
        cfg, run = host.read_config(parsed), parsed.parents[1]
        prompt, name, seed = (host.select(cfg, key) for key in ("system.prompt_processor.prompt", "name", "seed"))
        yield {"prompt": prompt or run.name, "label": name or "", "seed": seed, "run": str(run)}


def _run_of(folder: Path, row: Mapping[str, Any]) -> Path | None:
    """The run's folder, also where the whole folder was moved; None if it is gone."""
    run = Path(str(row["run"]))
    for place in (folder.joinpath(*run.parts[-3:]), run):
        if place.is_dir():
            return place
    return None


def _cell(folder: Path, columns: Mapping[str, str], row: Mapping[str, Any]) -> Cell:
    run = _run_of(folder, row)
    result, truth = (_strip(folder, row.get(name)) for name in ("strip", "truth"))
    if result is None and run is not None:
        result = contact_sheet.side_by_side(run_folder.views(run))
    numbers = {name: row.get(figure) for name, figure in columns.items()}
    return Cell(
        prompt=str(row.get("prompt") or ""),
        variant=str(row.get("label") or ""),
        seed="–" if row.get("seed") is None else str(row["seed"]),
        link="" if run is None else os.path.relpath(run / NAME if (run / NAME).is_file() else run, folder),
        truth=truth and _small(truth),
        result=result and _small(result),
        shown=row.get("shown") or {name: f"{numbers[name]:.0f}" for name in COLUMNS if numbers.get(name) is not None},
        numbers={name: float(value) for name, value in numbers.items() if isinstance(value, int | float)},
        missed=bool(row.get("missed") or row.get("error")),
        error=str(row.get("error") or ("" if result is not None else "no picture")),
    )


def _strip(folder: Path, name: Any) -> Image.Image | None:
    path = folder / str(name or "")
    return read_picture(path, "report") if name and path.is_file() else None


def _small(strip: Image.Image) -> str:
    views = max(1, round(strip.width / strip.height))
    return embedding.data_uri(strip.resize((views * VIEW_SIDE, VIEW_SIDE), Image.Resampling.LANCZOS))
