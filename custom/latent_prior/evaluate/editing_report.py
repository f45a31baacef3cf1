"""What an evaluation of edits keeps and shows: a result beside its picture, tables, a contact sheet."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latent_prior import run_folder
from latent_prior.evaluate import contact_sheet, editing_table
from latent_prior.evaluate.editing_jobs import EditJob
from latent_prior.evaluate.editing_measure import Measurer, Result
from latent_prior.evaluate.editing_table import BEFORE, REFERENCES, TRUTH
from latent_prior.evaluate.launches import Launch
from latent_prior.evaluate.results import notes_on, write_texts
from latent_prior.evaluate.table import grid, number, to_csv
from latent_prior.pocket.captions import is_held_out, parse

TITLE = "Edits of pocket pictures"
TILE = 96  # pixels a side on the sheet


def pictures_folder(job: EditJob) -> Path:
    """Where a job's composite lies: a layered run keeps it in `save`, the masked editor in its own folder."""
    save = job.run / "save"
    return save if save.is_dir() else job.run


def is_current(job: EditJob, settings: str) -> bool:
    """Whether the job's result stands: of these settings, and of the run as it is (or one that was thrown away since)."""
    result = Result.read(job.result)
    if result is None or result.settings != settings or (job.launch is not None and not job.launch.is_file()):
        return False
    return job.label in REFERENCES or not job.run.exists() or result.state == _state(job)


def measure_job(job: EditJob, launch: Launch, measurer: Measurer) -> Result:
    """Measure a job's picture, and keep its result and the picture. What fails has no figures."""
    edit = job.edit
    result = Result(
        label=job.label,
        edit=edit.told,
        seed=job.seed,
        held_out=is_held_out(parse(edit.target)),
        changes_kind=edit.changes_kind,
        seconds=launch.seconds,
        peak_bytes=launch.peak_bytes,
        error=launch.error,
        run="" if job.label in REFERENCES else str(job.run),
        state=_state(job),
        settings=measurer.digest,
    )
    strip = job.result.with_suffix(".png")
    strip.unlink(missing_ok=True)
    try:
        if job.label in REFERENCES:
            picture = getattr(measurer.scene(edit), job.label)
            figures, alpha = measurer.figures(edit, picture), None
        else:
            figures, picture, alpha = measurer.run(edit, pictures_folder(job))
    except ValueError as error:
        result = dataclasses.replace(result, error=launch.error or str(error))
    else:
        result = dataclasses.replace(result, **dataclasses.asdict(figures))
        strip.parent.mkdir(parents=True, exist_ok=True)
        right = torch.ones_like(picture) if alpha is None else alpha.expand_as(picture)
        contact_sheet.to_strip(torch.stack([picture, right])).save(strip)
    result.write(job.result)
    return result


def told(result: Result) -> str:
    """A result in one line: dB to the truth, dB outside the mask to the picture as it was, IoU."""
    if result.truth_psnr is None:
        return result.error or "not measured"
    parts = [f"{number(result.truth_psnr, 1)} dB", f"out {number(result.outside_psnr, 0)}"]
    return "  ".join(parts if result.iou is None else [*parts, f"IoU {number(result.iou, 2)}"])


@dataclass(frozen=True)
class Report:
    """Where tables go, and what they say of how they were made."""

    jobs: Sequence[EditJob]
    out: Path
    workers: int

    def results(self) -> list[Result]:
        """What is measured so far."""
        return [result for job in self.jobs if (result := Result.read(job.result)) is not None]

    def summary(self) -> str:
        """The table of means, and what it comes to."""
        rows = editing_table.summarise(self.results())
        return "\n".join([grid(editing_table.SUMMARY_COLUMNS, rows), "", *editing_table.bar_lines(rows)])

    def write_tables(self) -> list[Path]:
        """Write the tables of what is measured so far; returns their paths."""
        results = self.results()
        rows = editing_table.summarise(results)
        notes = notes_on(len(results), len(self.jobs), self.workers, "rows (before and truth among them)")
        summary = {
            "runs": [dataclasses.asdict(result) for result in results],
            "means": [dataclasses.asdict(row) for row in rows],
            "bars": [dataclasses.asdict(bar) for bar in editing_table.bars(rows)],
            "versions": run_folder.versions() | {"diffusers": importlib.metadata.version("diffusers")},
            "jobs": self.workers,
        }
        texts = {
            "table.md": editing_table.to_markdown(results, TITLE, notes),
            "runs.csv": to_csv(results),
            "summary.json": json.dumps(summary, indent=2) + "\n",
        }
        return write_texts(self.out, texts)

    def write_sheets(self) -> list[Path]:
        """Write one contact sheet a seed, an edit a row: before, each editor's picture beside its alpha, truth."""
        editors = list(dict.fromkeys(job.label for job in self.jobs if job.label not in REFERENCES))
        labels, paths = [BEFORE, *editors, TRUTH], []
        for seed in sorted({job.seed for job in self.jobs if job.seed is not None}):
            own = {(job.edit, job.label): job for job in self.jobs if job.seed in (None, seed)}
            edits = dict.fromkeys(edit for edit, _ in own)
            sections = [
                contact_sheet.Section(edit.told, [[_cell(own.get((edit, label)), label) for label in labels]])
                for edit in edits
            ]
            paths.append(self.out / f"contact_sheet-seed{seed}.png")
            contact_sheet.draw(sections, len(labels), 2, TILE).save(paths[-1])
        return paths


def _cell(job: EditJob | None, label: str) -> contact_sheet.Cell:
    result = None if job is None else Result.read(job.result)
    if result is None:
        return contact_sheet.Cell(None, label, "not run")
    missed = label != BEFORE and not result.recognised
    return contact_sheet.Cell(contact_sheet.read_strip(job.result.with_suffix(".png")), label, told(result), missed)


def _state(job: EditJob) -> str:
    """What tells a picture from that of another moment; empty where there is none."""
    path = pictures_folder(job) / "composite.png"
    if job.label in REFERENCES or not path.is_file():
        return ""
    return f"{path.stat().st_size}:{path.stat().st_mtime_ns}"
