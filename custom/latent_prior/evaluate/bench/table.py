"""Tables of results from declared columns: a row per group of runs, or a row per run; as Markdown and as CSV.

A run that could not be measured has no figures: it counts as the column's `missing` if that is set, is left out of the
mean otherwise, and is counted under `failed`. `±` is the population standard deviation of the per-seed means, if there
are several seeds.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latent_prior.evaluate.bench.results import Result

NONE = "–"
DERIVED = "derived"


@dataclass(frozen=True)
class Column:
    """A figure in the tables: its heading, aggregation over runs, and format."""

    name: str
    figure: str
    digits: int = 0
    how: str = "mean"  # mean, most, least; share: fraction of runs that have it; DERIVED: set by the evaluation
    unit: str = ""  # %: a fraction; MB: millions of bytes
    missing: float | None = None  # value of a run without figures
    spread: bool = False  # whether to show the spread over seeds
    better: str = ""  # more or less, for the figures that variants are compared by (paired.py)
    beside: "Column | None" = None  # shown in brackets after it; its name too, if it has one
    detail: Callable[[Result], str] = lambda result: ""  # text after the figure of a single run

    @property
    def key(self) -> str:
        """The heading."""
        return f"{self.how}_{self.figure}" if self.how in ("most", "least") else self.figure

    @property
    def heading(self) -> str:
        return self.name + (f" ({self.beside.name})" if self.beside is not None and self.beside.name else "")

    def value(self, results: Sequence[Result]) -> float | None:
        """The aggregated figure; None if there are no values."""
        found = [
            self.missing if not result.figures and value is None else value
            for result in results
            for value in [result.figure(self.figure)]
        ]
        values = [value for value in found if value is not None]
        if not values or self.how == DERIVED:
            return None
        return {"mean": statistics.fmean, "most": max, "least": min, "share": sum}[self.how](values)

    def cell(self, row: "Row") -> str:
        """The cell of a group of runs."""
        text = self.written(row.values[self.key], row.runs)
        if self.key in row.spread:
            text += f" ± {self.written(row.spread[self.key]).removesuffix(' %')}"
        if self.beside is not None:
            value = row.values[self.beside.key]
            if value is not None or self.beside.how in ("most", "least"):
                text += f" ({self.beside.written(value, row.runs)})"
        return text

    def single(self, result: Result) -> str:
        """The cell of one run."""
        value = result.figure(self.figure)
        text = tick(value) if self.how == "share" else self.written(value)
        return " ".join(part for part in (text, "" if value is None else self.detail(result)) if part)

    def written(self, value: float | None, runs: int = 1) -> str:
        if value is None or math.isnan(value):
            return NONE
        if self.how == "share":
            return f"{value}/{runs}"
        if self.unit == "%":
            return f"{100 * value:.{self.digits}f} %"
        return f"{value / 1e6:,.0f}" if self.unit == "MB" else f"{value:.{self.digits}f}"


SECONDS = Column("seconds", "seconds", spread=True, better="less")
SECONDS_AND_MOST = Column("seconds", "seconds", better="less", beside=Column("most", "seconds", how="most"))
PEAK = Column("peak MB", "peak_bytes", how="most", unit="MB")


@dataclass(frozen=True)
class Row:
    """The runs of one group. `heads` are its labels by column name."""

    heads: Mapping[str, str]
    runs: int
    failed: int
    values: dict[str, Any]
    spread: dict[str, float] = field(default_factory=dict)  # over the seeds; empty with a single seed

    @property
    def label(self) -> str:
        return self.heads["variant"]

    def record(self) -> dict[str, Any]:
        return {**self.heads, "runs": self.runs, "failed": self.failed, **self.values, "spread": self.spread}


Groups = Iterable[tuple[Mapping[str, str], Sequence[Result]]]


def rows_of(columns: Sequence[Column], groups: Groups) -> list[Row]:
    """One row per group; groups without runs are left out."""
    return [_row(columns, heads, results) for heads, results in groups if results]


def _row(columns: Sequence[Column], heads: Mapping[str, str], results: Sequence[Result]) -> Row:
    every = [part for column in columns for part in (column, column.beside) if part is not None]
    failed = sum(result.error is not None for result in results)
    values = {column.key: column.value(results) for column in every}
    seeds = {result.seed for result in results}
    spread = {}
    if len(seeds) > 1:
        for column in every:
            means = [column.value([result for result in results if result.seed == seed]) for seed in seeds]
            if column.spread and None not in means:
                spread[column.key] = statistics.pstdev(means)
    return Row(heads, len(results), failed, values, spread)


def labels_of(results: Iterable[Any], references: Sequence[str] = ()) -> list[str]:
    """The labels of results or jobs: the first reference, the variants in their order, the other references."""
    labels = dict.fromkeys(result.label for result in results)
    return [*references[:1], *(label for label in labels if label not in references), *references[1:]]


def summary_table(columns: Sequence[Column], rows: Sequence[Row], with_runs: bool = False) -> str:
    """Table of groups of runs; the number of failed runs follows the variant's name."""

    def head(name: str) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            failures = f" ({row.failed} of {row.runs} failed)" if row.failed and name == "variant" else ""
            return row.heads[name] + failures

        return cell

    words = {name: head(name) for row in rows[:1] for name in row.heads}
    figures = {"runs": lambda row: str(row.runs)} if with_runs else {}
    return _grid(words, figures | {column.heading: column.cell for column in columns}, rows)


def runs_table(columns: Sequence[Column], results: Sequence[Result]) -> str:
    """Table of single runs."""
    words = {"prompt": named, "variant": lambda result: result.label}
    figures = {"seed": lambda result: NONE if result.seed is None else str(result.seed)}
    return _grid(words, figures | {column.name: column.single for column in columns}, results)


def _grid(words: Mapping[str, Callable], figures: Mapping[str, Callable], rows: Sequence[Any]) -> str:
    """A Markdown table with text aligned left and figures right."""
    lines = [[*words, *figures], [":--"] * len(words) + ["--:"] * len(figures)]
    lines += [[cell(row).replace("|", "\\|") for cell in (*words.values(), *figures.values())] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash if there is none."""
    return Column("", "", digits).written(value)


def tick(value: bool | None) -> str:
    """Yes, no, or a dash."""
    return NONE if value is None else "✓" if value else "✗"


def named(result: Result) -> str:
    """A result's prompt, marked if it was held out of the prior's training."""
    return result.prompt + (" (held out)" if result.held_out else "")
