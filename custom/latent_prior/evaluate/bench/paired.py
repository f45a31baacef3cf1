"""Paired differences: every variant against one of them, over the runs of the same prompt and seed.

Prompts differ far more than variants do, so the means of two variants say little where the mean of their differences says
much. Its interval is a percentile bootstrap over the pairs (Efron 1979). A figure that only one run of a pair has leaves
the pair out.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.bench.table import NONE, Column, labels_of
from latent_prior.files import atomic_write
from latent_prior.files.csv_files import to_csv

CONFIDENCE = 0.95
RESAMPLES = 10_000
LEAST_PAIRS = 5  # fewer have no interval: a bootstrap of them hardly leaves their own range
ACROSS, PANEL = 4, (2.6, 0.34)  # panels side by side; inches: a panel's width, and a variant's height in it


@dataclass(frozen=True)
class Difference:
    """A variant's figure minus the baseline's: the mean over pairs, and its interval (None with less than LEAST_PAIRS)."""

    label: str
    column: Column
    pairs: int
    mean: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Better or worse where the interval is on one side of zero, else empty."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return ""
        return "better" if (self.low > 0) == (self.column.better == "more") else "worse"

    @property
    def cell(self) -> str:
        """Mean and interval, in bold where zero is outside."""
        if self.mean is None:
            return NONE
        signed = [f"{value:+.{self.column.digits}f}" for value in (self.mean, self.low, self.high) if value is not None]
        text = signed[0] + (f" [{signed[1]}, {signed[2]}]" if len(signed) == 3 else "")
        return f"**{text}**" if self.verdict else text

    def record(self) -> dict[str, Any]:
        """As one flat row."""
        figures = {"mean": self.mean, "low": self.low, "high": self.high, "verdict": self.verdict}
        return {"variant": self.label, "figure": self.column.figure, "pairs": self.pairs, **figures}


def differences(results: Sequence[Result], columns: Sequence[Column], baseline: str) -> list[Difference]:
    """Of every variant but the baseline, in their order, and every column that says which way is better."""
    found = []
    by_pair = {(result.label, result.prompt, result.seed): result for result in results}
    for label in labels_of(results):
        if label == baseline:
            continue
        for column in (column for column in columns if column.better):
            values = []
            for (name, *pair), result in by_pair.items():
                if name == label and (other := by_pair.get((baseline, *pair))) is not None:
                    both = [column.value([one]) for one in (result, other)]
                    if both[0] is not None and both[1] is not None:
                        values.append(float(both[0]) - float(both[1]))
            found.append(_difference(label, column, values))
    return found


def _difference(label: str, column: Column, values: Sequence[float]) -> Difference:
    if not values:
        return Difference(label, column, 0, None, None, None)
    low = high = None
    if len(values) >= LEAST_PAIRS:
        from scipy.stats import bootstrap

        resampled = {"n_resamples": RESAMPLES, "method": "percentile", "rng": np.random.default_rng(0)}
        interval = bootstrap((values,), np.mean, confidence_level=CONFIDENCE, **resampled).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Difference(label, column, len(values), statistics.fmean(values), low, high)


def to_markdown(found: Sequence[Difference], baseline: str) -> str:
    """A row a variant, and what the numbers are."""
    columns = list(dict.fromkeys(one.column for one in found))
    lines = [["minus " + baseline, "pairs", *(f"{column.name} ({column.better})" for column in columns)]]
    lines.append([":--", *["--:"] * (len(columns) + 1)])
    for label in dict.fromkeys(one.label for one in found):
        own = [one for one in found if one.label == label]
        lines.append([label, str(max(one.pairs for one in own)), *(one.cell for one in own)])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        f"{table}\n\nMean differences over runs of the same prompt and seed, with {CONFIDENCE:.0%} bootstrap intervals; "
        "bold where zero lies outside. In brackets behind a figure: which way is better."
    )


def write(found: Sequence[Difference], baseline: str, out: Path) -> list[Path]:
    """paired.csv, and paired.png: a panel a figure, a line a variant; returns their paths."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with atomic_write(out / "paired.csv") as beside:
        beside.write_text(to_csv([one.record() for one in found]))
    columns = list(dict.fromkeys(one.column for one in found))
    labels = list(dict.fromkeys(one.label for one in found))
    across = min(ACROSS, len(columns))
    down = -(-len(columns) // across)
    size = (1.6 + PANEL[0] * across, 0.4 + (0.8 + PANEL[1] * len(labels)) * down)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
    for empty in panels[len(columns) :]:
        empty.set_visible(False)
    for panel, column in zip(panels, columns, strict=False):
        panel.axvline(0, color="0.6", linewidth=1)
        for place, label in enumerate(labels):
            one = next(one for one in found if one.label == label and one.column is column)
            if one.mean is None:
                continue
            colour = {"better": "#1b7837", "worse": "#b2182b"}.get(one.verdict, "0.35")
            if one.low is not None:
                panel.plot([one.low, one.high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
            panel.plot(one.mean, place, "o", color=colour, markersize=5)
        panel.set_title(f"{column.name} ({column.better} is better)", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.margins(y=0.5 / len(labels))
        panel.grid(axis="x", color="0.92")
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    figure.suptitle(f"Differences from {baseline}, {CONFIDENCE:.0%} intervals", fontsize=10)
    with atomic_write(out / "paired.png") as beside:
        figure.savefig(beside, dpi=120)
    return [out / "paired.csv", out / "paired.png"]
