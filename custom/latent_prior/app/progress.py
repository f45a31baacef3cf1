"""How far a run is: read from what it prints, and from its folder."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

TAIL = 1 << 14  # bytes of a log or table that are read
BAR = re.compile(r"([\w -]+?):\s+\d+%\|[^|]*\|\s*(\d+)/(\d+) \[[\d:]+<([\d:]+|\?)")
# what the bars of the commands count, in words
STAGES = {
    "train": "Training",
    "turntable": "Rendering the turntable",
    "interpolation": "Rendering the interpolation",
    "edit": "Drawing samples",
    "background": "Fitting the background",
}


@dataclass(frozen=True)
class Progress:
    """A stage of a run: so many of so many steps are done; seconds left, None if that is not known."""

    stage: str
    done: int
    total: int
    left: float | None


def of_log(log: Path, offset: int = 0) -> Progress | None:
    """The newest bar that a process printed, from `offset` of its log on; None before the first."""
    found = None
    for found in BAR.finditer(_tail(log, offset)):  # noqa: B007
        pass
    if found is None:
        return None
    name = found[1].strip()
    return Progress(STAGES.get(name, name.capitalize()), int(found[2]), int(found[3]), _seconds(found[4]))


def said(log: Path, most: int = 12) -> str:
    """The last lines of a log, without its bars."""
    lines = [line.rstrip() for line in re.split(r"[\r\n]", _tail(log))]
    return "\n".join([line for line in lines if line and not BAR.search(line)][-most:])


def steps_logged(run: Path) -> int:
    """The last step in a run's tables of losses, of which each part of a resumed run has one; 0 if there is none."""
    return max((_last_step(table) for table in run.glob("csv_logs/version_*/metrics.csv")), default=0)


def _last_step(table: Path) -> int:
    with table.open(errors="replace") as file:
        header = next(csv.reader(file), [])
    rows = list(csv.reader(io.StringIO(_tail(table))))[-20:]
    if not {"epoch", "step"} <= set(header):
        return 0
    epoch, step = header.index("epoch"), header.index("step")
    # without an epoch it is the learning rate of a step that has only begun
    steps = [row[step] for row in rows if len(row) == len(header) and row[epoch]]
    return 1 + max((int(step) for step in steps if step.isdecimal()), default=-1)


def preview(run: Path) -> Path | None:
    """The newest picture that a run has written on its way."""
    found = [path for pattern in ("save/it*.png", "samples/*.png") for path in run.glob(pattern)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _tail(path: Path, offset: int = 0) -> str:
    try:
        with path.open("rb") as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(offset, end - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _seconds(clock: str) -> float | None:
    """Of hours:minutes:seconds, or minutes:seconds."""
    if "?" in clock:
        return None
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return float(total)
