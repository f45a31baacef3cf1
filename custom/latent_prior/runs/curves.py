"""Training curves of a run, drawn from its CSV log."""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from latent_prior.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.9  # weight of the past in the running mean
MOST_POINTS = 500  # of a curve; of longer ones some are left out


def read(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of every `train/` metric over all versions of the log; a resumed run has several."""
    rows: dict[str, dict[int, float]] = {}
    files = sorted(folder.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    for file in files:
        lines = file.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # cut short by a kill
            del lines[-1]
        for row in csv.DictReader(lines):
            for name, value in row.items():
                if name.startswith("train/") and value:
                    rows.setdefault(name.removeprefix("train/"), {})[int(row["step"])] = float(value)
    return {name: (sorted(values), [values[step] for step in sorted(values)]) for name, values in rows.items()}


def running_mean(values: list[float]) -> list[float]:
    """Exponential running mean, corrected for the bias towards its start."""
    out, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = SMOOTHING * mean + (1 - SMOOTHING) * value, SMOOTHING * weight + 1 - SMOOTHING
        out.append(mean / weight)
    return out


def draw(folder: Path, picture: Path) -> None:
    """Write the curves of the log in `folder` as a PNG; nothing if nothing was logged."""
    figure = _figure(folder)
    if figure is not None:
        with atomic_write(picture) as beside:
            figure.savefig(beside, dpi=110)


def svg(folder: Path) -> str | None:
    """The curves as an SVG element for a page, light or dark; None if nothing was logged."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "curves"}):
        figure = _figure(folder, ink="#7d858f")
        if figure is None:
            return None
        with io.StringIO() as file:
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
            text = file.getvalue()
    return text[text.index("<svg") :]


def _figure(folder: Path, ink: str = "black") -> "Figure | None":
    """One panel per loss: its values and their running mean."""
    curves = {name: curve for name, curve in read(folder).items() if name.startswith("loss")}
    if not curves:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (name, (steps, values)) in enumerate(curves.items()):
        every = math.ceil(len(steps) / MOST_POINTS)
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.plot(steps[::every], values[::every], color="#9fb2d0", linewidth=0.8)
        axes.plot(steps[::every], running_mean(values)[::every], color="#3b6fc4", linewidth=1.6)
        axes.set_title(name, fontsize=10, color=ink)
        axes.set_xlabel("step", fontsize=8, color=ink)
        axes.tick_params(labelsize=8, colors=ink)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(ink)
    return figure
