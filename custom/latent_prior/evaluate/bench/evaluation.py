"""The declarations of an evaluation, and the results, tables and contact sheets derived from them."""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from latent_prior import Diverged, OptionError
from latent_prior.evaluate.bench import contact_sheet, paired, table
from latent_prior.evaluate.bench.contact_sheet import Cell, Section
from latent_prior.evaluate.bench.paired import Difference
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.bench.table import Column, Groups, Row
from latent_prior.files import atomic_write, write_text
from latent_prior.files.csv_files import to_csv
from latent_prior.runs import folder as run_folder
from latent_prior.runs.sweep.jobs import Job
from latent_prior.runs.sweep.work import Record


@dataclass(frozen=True)
class Measured:
    """A run's figures by name, and its views in [0, 1] for the contact sheet."""

    figures: Mapping[str, Any]
    pictures: Float[Tensor, "B 3 H W"]


@dataclass(frozen=True)
class Findings:
    """The summary of the rows, as text and as stored in summary.json."""

    lines: Sequence[str] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The declarations of one evaluation; `plan(args, out)` of its module makes them."""

    title: str
    jobs: Sequence[Job]
    measure: Callable[[Job], Measured]  # an OptionError is the run's error, or the evaluation's if it is a reference's
    products: Callable[[Job], Sequence[Path]]  # the files that `measure` reads; a result is valid until they change
    settings: str  # digest of the measurement settings; results of others are not valid
    columns: Sequence[Column]
    legend: str
    note: Callable[[Result], str]  # a measured result in one line, without accents (missing in the sheet's font)
    views: int  # of a strip on the sheet
    groups: Callable[[Sequence[Result]], Groups]  # groups of runs, one per table row
    with_runs: bool = False  # whether the table counts the runs
    derive: Callable[[list[Row]], None] = lambda rows: None  # sets the DERIVED figures
    findings: Callable[[list[Row]], Findings] = lambda rows: Findings()
    missed: Callable[[Result], bool] = lambda result: False  # framed in red, like results without figures
    held_out: Callable[[Job], bool | None] = lambda job: None  # whether held out of the prior's training
    references: Sequence[str] = ()  # labels of non-runs; the first comes before the variants
    truth: Callable[[str], Float[Tensor, "B 3 H W"]] | None = None  # the sheet's first column, if there is no reference
    halves: bool = False  # whether training and held-out prompts are listed separately
    tile: int = contact_sheet.TILE  # side of a view in pixels
    also_compared: Sequence[Column] = ()  # figures of comparisons alone
    against: str = ""  # the variant that the others are compared with, run by run

    def is_current(self, job: Job, again: bool = False) -> bool:
        """Whether the job's result is valid: same settings, and the run is unchanged (or was deleted since).

        again: a run that failed is not.
        """
        result = Result.read(job.result)
        if result is None or result.settings != self.settings:
            return False
        if job.record is not None and (
            (record := Record.read(job.record)) is None or not record.finished or (again and record.failed)
        ):
            return False
        return not job.run.exists() or result.state == self._state(job)

    def measure_job(self, job: Job, record: Record) -> Result:
        """Measure a job, and save its result and its pictures. A failed job has no figures."""
        result = Result(
            job.label,
            job.prompt,
            job.seed,
            self.held_out(job),
            seconds=record.seconds,
            peak_bytes=record.peak_bytes,
            error=record.error,
            run="" if job.label in self.references else str(job.run),
            state=self._state(job),
            settings=self.settings,
        )
        job.strip.unlink(missing_ok=True)
        try:
            measured = self.measure(job)
            _require_finite(measured.figures)
        except OptionError as error:
            if job.label in self.references:
                raise
            result = dataclasses.replace(result, error=record.error or str(error))
        else:
            result = dataclasses.replace(result, figures=measured.figures)
            job.strip.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(job.strip) as beside:
                contact_sheet.to_strip(measured.pictures).save(beside)
        result.write(job.result)
        return result

    def in_a_line(self, result: Result) -> str:
        """A result in one line, for progress output."""
        return result.error or self.note(result)

    def results(self) -> list[Result]:
        """The results so far."""
        return [result for job in self.jobs if (result := Result.read(job.result)) is not None]

    def rows(self, results: Sequence[Result]) -> list[Row]:
        """The table's rows."""
        rows = table.rows_of(self.columns, self.groups(results))
        self.derive(rows)
        return rows

    def summary(self) -> str:
        """The table of the results, and their summary."""
        results = self.results()
        rows = self.rows(results)
        parts = [self._table(rows), "", *self.findings(rows).lines]
        return "\n".join([*parts, "", *self._paired(results)] if self.against else parts)

    def write_tables(self, out: Path, workers: int) -> list[Path]:
        """Write the tables of the results so far; returns their paths."""
        results = self.results()
        rows = self.rows(results)
        summary = {
            "title": self.title,
            "columns": {column.name: column.figure for column in self.columns if column.how != table.DERIVED},
            "runs": [self._record(job, out) for job in self.jobs if job.result.is_file()],
            "means": [row.record() for row in rows],
            **self.findings(rows).record,
            "legend": self.legend,
            **run_folder.made_with(),
            "jobs": workers,
        }
        texts = {
            "table.md": self.to_markdown(results, self._notes(len(results), workers)),
            "runs.csv": to_csv([result.record() for result in results]),
            "summary.csv": to_csv([row.record() for row in rows]),
            "summary.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
        }
        for name, text in texts.items():
            write_text(out / name, text)
        return [out / name for name in texts]

    def to_markdown(self, results: Sequence[Result], notes: Sequence[str] = ()) -> str:
        """Means, summary, legend, and every run."""
        rows = self.rows(results)
        parts = [
            f"# {self.title}",
            self._table(rows),
            "\n".join(self.findings(rows).lines),
            *self._paired(results),
            self.legend.strip(),
            *notes,
        ]
        parts.append("## Runs")
        prompts = list(dict.fromkeys(result.prompt for result in results))
        for heading, group in self._halves(results):
            own = sorted(group, key=lambda result: prompts.index(result.prompt))
            parts += [f"### {heading}" if heading else "", table.runs_table(self.columns, own)]
        if failed := [result for result in results if result.error is not None]:
            lines = [f"- {r.label}, {r.prompt}{_seed_of(r)}: {r.error}" for r in failed]
            parts += ["## Failures", "\n".join(lines)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _record(self, job: Job, out: Path) -> dict[str, Any]:
        """A run in summary.json: its figures, also as text, and its pictures relative to `out`."""
        result = Result.read(job.result)
        if result is None:
            return {}
        return {
            **result.record(),
            "shown": {c.name: text for c in self.columns if (text := c.single(result)) not in ("", table.NONE)},
            "missed": not result.figures or self.missed(result),
            "strip": os.path.relpath(job.strip, out),
            "truth": os.path.relpath(_truth_strip(job), out),
        }

    def differences(self, results: Sequence[Result]) -> list[Difference]:
        """Of the other variants' runs from those of the one they are compared with."""
        return paired.differences(results, (*self.columns, *self.also_compared), self.against) if self.against else []

    def _paired(self, results: Sequence[Result]) -> list[str]:
        found = self.differences(results)
        return [paired.to_markdown(found, self.against)] if found else []

    def write_paired(self, out: Path) -> list[Path]:
        """Write the paired differences as CSV and as a plot; returns their paths, none without such differences."""
        found = self.differences(self.results())
        return paired.write(found, self.against, out) if found else []

    def write_sheets(self, out: Path) -> list[Path]:
        """Write one contact sheet per seed, and the truth's pictures; returns the sheets' paths."""
        labels = table.labels_of(self.jobs, self.references)
        paths = []
        for seed in sorted({job.seed for job in self.jobs if job.seed is not None}):
            own = [job for job in self.jobs if job.seed in (None, seed)]
            sections = []
            for heading, group in self._halves(own):
                prompts = dict.fromkeys(job.prompt for job in group if job.seed == seed)
                rows = {prompt: self._sheet_rows(prompt, group, labels) for prompt in prompts}
                if self.halves:
                    rows = {heading: list(itertools.chain(*rows.values()))}
                sections += [Section(title, cells) for title, cells in rows.items()]
            paths.append(out / f"contact_sheet-seed{seed}.png")
            columns = len(labels) + (self.truth is not None)
            with atomic_write(paths[-1]) as beside:
                contact_sheet.draw(sections, columns, self.views, self.tile).save(beside)
        return paths

    def _table(self, rows: list[Row]) -> str:
        return table.summary_table(self.columns, rows, self.with_runs)

    def _notes(self, measured: int, workers: int) -> list[str]:
        rows = f"rows ({' and '.join(self.references)} among them)" if self.references else "runs"
        notes = [f"{measured} of {len(self.jobs)} {rows} are measured."] if measured < len(self.jobs) else []
        return notes + ([f"Seconds are for {workers} runs at a time on one machine."] if workers > 1 else [])

    def _halves(self, items: Sequence[Any]) -> list[tuple[str, list[Any]]]:
        """Results or jobs under their headings: a single unnamed one, or training and held-out ones."""
        if not self.halves:
            return [("", list(items))]

        def held_out(item: Any) -> bool:
            return bool(item.held_out if isinstance(item, Result) else self.held_out(item))

        named = {"Training prompts": False, "Held-out prompts": True}
        found = [(name, [item for item in items if held_out(item) is half]) for name, half in named.items()]
        return [(name, group) for name, group in found if group]

    def _sheet_rows(self, prompt: str, jobs: Sequence[Job], labels: Sequence[str]) -> list[list[Cell]]:
        """The prompt's rows: one, or more if a variant has several runs of it (--runs)."""
        first = []
        if self.truth is not None:
            first = [Cell(contact_sheet.to_strip(self.truth(prompt)), prompt, "truth")]
            path = _truth_strip(next(job for job in jobs if job.prompt == prompt))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as beside:
                first[0].strip.save(beside)
        columns = [[job for job in jobs if job.prompt == prompt and job.label == label] for label in labels]
        return [
            first + [self._cell(job, label) for job, label in zip(row, labels, strict=True)]
            for row in itertools.zip_longest(*columns)
        ]

    def _cell(self, job: Job | None, label: str) -> Cell:
        result = None if job is None else Result.read(job.result)
        if result is None:
            return Cell(None, label, "not run")
        if not result.figures:
            return Cell(None, label, result.error or "not measured", missed=True)
        return Cell(contact_sheet.read_strip(job.strip), label, self.note(result), self.missed(result))

    def _state(self, job: Job) -> str:
        """A fingerprint of a job's output, to detect changes."""
        files = [path for path in self.products(job) if path.is_file()]
        return " ".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files)


def _truth_strip(job: Job) -> Path:
    """Where the truth's pictures for a job's task lie: those of the reference of that name, or of the sheets."""
    return job.result.parents[1] / "truth" / f"{job.task.file_name}.png"


def _require_finite(figures: Mapping[str, Any]) -> None:
    for name, value in figures.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
            raise Diverged(f"{name} is {value}", (name,), "it is not counted")


def _seed_of(result: Result) -> str:
    return "" if result.seed is None else f", seed {result.seed}"
