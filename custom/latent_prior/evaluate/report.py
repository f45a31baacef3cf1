"""What an evaluation keeps and shows: a run's result beside its pictures, then tables and contact sheets of them all."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from latent_prior import run_folder
from latent_prior.evaluate import contact_sheet, measure, table, views
from latent_prior.evaluate.jobs import Job
from latent_prior.evaluate.launches import Launch
from latent_prior.evaluate.results import Result, notes_on, write_texts
from latent_prior.pocket.captions import is_held_out, parse
from latent_prior.pocket.judge import Judge

TITLE = "Text to 3D against the truth of the pocket world"


def is_current(job: Job, judge_digest: str) -> bool:
    """Whether the job's result stands: of this judge, and of the run as it is (or of one that was thrown away since)."""
    result = Result.read(job.result)
    if result is None or result.judge != judge_digest or (job.launch is not None and not job.launch.is_file()):
        return False
    return not job.run.is_dir() or result.state == _state(job.run)


def measure_job(job: Job, launch: Launch, judge: Judge | None, judge_digest: str) -> Result:
    """Measure a run, and keep its result and its pictures. A run that failed has what figures it can have."""
    result = Result(
        job.label,
        job.prompt,
        job.seed,
        is_held_out(job.subject),
        seconds=launch.seconds,
        peak_bytes=launch.peak_bytes,
        error=launch.error,
        run=str(job.run),
        judge=judge_digest,
    )
    picture = job.result.with_suffix(".png")
    picture.unlink(missing_ok=True)
    if _has_checkpoint(job.run):
        measured = measure.measure_run(job.run, job.subject, judge)
        figures = dataclasses.asdict(measured.field) | dataclasses.asdict(measured.mesh)
        result = dataclasses.replace(result, **figures, state=_state(job.run))
        picture.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet.to_strip(measured.pictures).save(picture)
    elif launch.error is None:
        result = dataclasses.replace(result, error=f"no checkpoint in {job.run / 'ckpts'}")
    result.write(job.result)
    return result


def write_tables(jobs: Sequence[Job], out: Path, workers: int) -> list[Path]:
    """Write the tables of what is measured so far; returns their paths."""
    results = _results(jobs)
    summaries = table.summarise(results)
    notes = notes_on(len(results), len(jobs), workers)
    summary = {
        "runs": [dataclasses.asdict(result) for result in results],
        "means": [dataclasses.asdict(summary) for summary in summaries],
        "versions": run_folder.versions(),
        "jobs": workers,
    }
    texts = {
        "table.md": table.to_markdown(results, TITLE, notes),
        "runs.csv": table.to_csv(results),
        "summary.csv": table.to_csv(summaries),
        "summary.json": json.dumps(summary, indent=2) + "\n",
    }
    return write_texts(out, texts)


def summary_of(jobs: Sequence[Job]) -> str:
    """The means of what is measured, as a Markdown table."""
    return table.grid(table.SUMMARY_COLUMNS, table.summarise(_results(jobs)))


def write_sheets(jobs: Sequence[Job], out: Path) -> list[Path]:
    """Write one contact sheet a seed; returns their paths."""
    paths = []
    labels = list(dict.fromkeys(job.label for job in jobs))
    for seed in sorted({job.seed for job in jobs}):
        own = [job for job in jobs if job.seed == seed]
        sections = []
        for heading, held_out in (("Training prompts", False), ("Held-out prompts", True)):
            prompts = dict.fromkeys(job.prompt for job in own if is_held_out(job.subject) == held_out)
            if prompts:
                sections.append(contact_sheet.Section(heading, [row for p in prompts for row in _rows(p, own, labels)]))
        paths.append(out / f"contact_sheet-seed{seed}.png")
        contact_sheet.draw(sections, 1 + len(labels), len(views.SHEET_AZIMUTHS)).save(paths[-1])
    return paths


def _rows(prompt: str, jobs: Sequence[Job], labels: Sequence[str]) -> list[list[contact_sheet.Cell]]:
    """The prompt's rows: one, or more where a variant has several runs of it (--runs)."""
    pictures = views.truth_views(parse(prompt), views.sheet(), views.SHEET_SIZE).rgb
    truth = contact_sheet.Cell(contact_sheet.to_strip(pictures), prompt, "truth")
    columns = [[job for job in jobs if job.prompt == prompt and job.label == label] for label in labels]
    rows = []
    for row in itertools.zip_longest(*columns):
        cells = [truth]
        for label, job in zip(labels, row, strict=True):
            result = None if job is None else Result.read(job.result)
            picture = Path() if job is None else job.result.with_suffix(".png")
            cells.append(contact_sheet.result_cell(result, picture, label))
        rows.append(cells)
    return rows


def _results(jobs: Sequence[Job]) -> list[Result]:
    return [result for job in jobs if (result := Result.read(job.result)) is not None]


def _has_checkpoint(run: Path) -> bool:
    return (run / "configs" / "parsed.yaml").is_file() and any((run / "ckpts").glob("*.ckpt"))


def _state(run: Path) -> str:
    """What tells a run's checkpoint and mesh from those of another moment; empty where there is no checkpoint."""
    if not _has_checkpoint(run):
        return ""
    files = [run_folder.last_checkpoint(run), measure.newest_mesh(run)]
    return " ".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files if path)
