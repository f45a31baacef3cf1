"""A run's figures as they are kept between evaluations: one JSON file a run."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from latent_prior.files import atomic_write

Record = TypeVar("Record")


@dataclass(frozen=True)
class Result:
    """One run's figures, None where there are none. See measure.py for those of the field and of the mesh."""

    label: str
    prompt: str
    seed: int
    held_out: bool
    r_single: bool | None = None
    r_ring: float | None = None
    r_ring_mean: bool | None = None
    iou: float | None = None
    psnr: float | None = None  # dB
    fog: float | None = None
    chamfer: float | None = None  # world units
    loads: bool = False
    bodies: int | None = None
    one_body: bool = False
    colour: str | None = None
    colour_right: bool = False
    mean_colour: tuple[float, float, float] | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    error: str | None = None
    run: str = ""  # the run folder
    state: str = ""  # of the run folder's checkpoint and mesh when it was measured
    judge: str = ""  # digest of the judge's weights; empty where there was none

    def write(self, path: Path) -> None:
        """Write the file at once or not at all."""
        write_record(self, path)

    @staticmethod
    def read(path: Path) -> "Result | None":
        """None if the file is not there, or is of another version."""
        return read_record(Result, path)


def write_record(record: Any, path: Path) -> None:
    """Write a dataclass as JSON, at once or not at all."""
    write_whole(path, json.dumps(dataclasses.asdict(record), indent=2) + "\n")


def read_record(cls: type[Record], path: Path) -> Record | None:
    """The dataclass that is written there, lists as tuples. None if the file is not there, or is of another version."""
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(path.read_text())
    if set(values) != {field.name for field in dataclasses.fields(cls)}:
        return None
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a kill, never finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as beside:
        beside.write_text(text)


def notes_on(measured: int, planned: int, workers: int, rows: str = "runs") -> list[str]:
    """What a table says below itself of how far it is, and of its seconds. rows: what its rows are."""
    notes = [f"{measured} of {planned} {rows} are measured."] if measured < planned else []
    if workers > 1:
        notes.append(f"Seconds are of {workers} runs at a time on one machine.")
    return notes


def write_texts(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write text files by name; returns their paths."""
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]
