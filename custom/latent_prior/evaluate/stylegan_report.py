"""What an evaluation of adapted generators keeps and shows: a result beside its strip of pictures, tables, a sheet."""

import dataclasses
import importlib.metadata
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latent_prior import OptionError, run_folder
from latent_prior.evaluate import contact_sheet, stylegan_table
from latent_prior.evaluate.jobs import Job, slug
from latent_prior.evaluate.launches import Launch
from latent_prior.evaluate.results import notes_on, write_texts
from latent_prior.evaluate.stylegan_measure import SHEET_PICTURES, Measured, Measurer
from latent_prior.evaluate.stylegan_result import REFERENCES, SOURCE, TRUTH, Result
from latent_prior.evaluate.stylegan_table import percent
from latent_prior.evaluate.table import grid, number, to_csv
from latent_prior.generators.stylegan2_files import load_generator
from latent_prior.pocket.captions import is_held_out, parse

TITLE = "StyleGAN2 adapted to a prompt"
TILE = 64  # pixels a side on the sheet: the pocket generator's own size


def with_references(jobs: Sequence[Job], source: Path, out: Path) -> list[Job]:
    """The jobs, before each prompt's first the truth and the generator that runs start from."""
    found: list[Job] = []
    for job in jobs:
        if job.label in REFERENCES:
            raise OptionError.because(
                f"--config: the label {job.label!r} is taken; choose another with --config LABEL=NAME"
            )
        if all(other.prompt != job.prompt for other in found):
            for label, of in ((TRUTH, out / "truth"), (SOURCE, source)):
                found.append(Job(label, job.prompt, None, of, out / "results" / label / f"{slug(job.prompt)}.json"))
        found.append(job)
    return found


def generator_file(job: Job) -> Path:
    """The generator of a job: what the run exported, or the source itself."""
    return job.run if job.label == SOURCE else job.run / "save" / "generator.safetensors"


def is_current(job: Job, settings: str) -> bool:
    """Whether the job's result stands: of these settings, and of the run as it is (or one that was thrown away since)."""
    result = Result.read(job.result)
    if result is None or result.settings != settings or (job.launch is not None and not job.launch.is_file()):
        return False
    return job.label == TRUTH or not job.run.exists() or result.state == _state(job)


def measure_job(job: Job, launch: Launch, measurer: Measurer) -> Result:
    """Measure a job's generator (or the truth), and keep its result and its pictures. What fails has no figures.

    Raises ValueError if it is a reference that fails.
    """
    result = Result(
        job.label,
        job.prompt,
        job.seed,
        is_held_out(parse(job.prompt)) if measurer.real is None else None,
        seconds=launch.seconds,
        peak_bytes=launch.peak_bytes,
        error=launch.error,
        run="" if job.label in REFERENCES else str(job.run),
        state=_state(job),
        settings=measurer.digest,
    )
    picture = job.result.with_suffix(".png")
    picture.unlink(missing_ok=True)
    if job.label != TRUTH and not generator_file(job).is_file():
        result = dataclasses.replace(result, error=launch.error or f"no {generator_file(job)}")
    else:
        try:
            measured = _measured(job, measurer)
        except ValueError as error:
            if job.label in REFERENCES:
                raise
            result = dataclasses.replace(result, error=launch.error or str(error))
        else:
            result = dataclasses.replace(result, **dataclasses.asdict(measured.figures))
            picture.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet.to_strip(measured.pictures).save(picture)
    result.write(job.result)
    return result


def _measured(job: Job, measurer: Measurer) -> Measured:
    if job.label == TRUTH:
        return measurer.truth(job.prompt)
    return measurer.generator(job.prompt, load_generator(generator_file(job)))


def told(result: Result) -> str:
    """A result in one line, without accents, which the sheet's font lacks. FD: Fréchet distance."""
    if result.diversity is None:
        return result.error or "not measured"
    figures = {
        "FD": number(result.frechet, 2),
        "CLIP": number(result.clip_score, 1),
        "div.": number(result.diversity, 3),
        "dB": number(result.psnr, 1),
        "rec.": percent(result.recognised),
    }
    return "   ".join(f"{name} {figure}" for name, figure in figures.items() if figure != "–")


@dataclass(frozen=True)
class Report:
    """Where tables go, and what they say of how they were made."""

    jobs: Sequence[Job]
    out: Path
    workers: int
    described: str  # the table's legend

    def results(self) -> list[Result]:
        """What is measured so far."""
        return [result for job in self.jobs if (result := Result.read(job.result)) is not None]

    def summary(self) -> str:
        """The table of what is measured, and what it comes to."""
        rows = stylegan_table.summarise(self.results())
        return "\n".join([grid(stylegan_table.COLUMNS, rows), "", *stylegan_table.summary_lines(rows)])

    def write_tables(self) -> list[Path]:
        """Write the tables of what is measured so far; returns their paths."""
        results = self.results()
        rows = stylegan_table.summarise(results)
        comparison = stylegan_table.compare(rows)
        notes = notes_on(len(results), len(self.jobs), self.workers, "rows (source and truth among them)")
        summary = {
            "runs": [dataclasses.asdict(result) for result in results],
            "means": [dataclasses.asdict(row) for row in rows],
            "verdicts": [dataclasses.asdict(verdict) for verdict in stylegan_table.verdicts(rows)],
            "comparison": comparison and dataclasses.asdict(comparison),
            "described": self.described,
            "versions": run_folder.versions() | {"torchmetrics": importlib.metadata.version("torchmetrics")},
            "jobs": self.workers,
        }
        texts = {
            "table.md": stylegan_table.to_markdown(results, TITLE, self.described, notes),
            "runs.csv": to_csv(results),
            "summary.json": json.dumps(summary, indent=2) + "\n",
        }
        return write_texts(self.out, texts)

    def write_sheets(self) -> list[Path]:
        """Write one contact sheet a seed, a prompt a row: source, variants, truth; returns their paths."""
        labels = [SOURCE, *dict.fromkeys(job.label for job in self.jobs if job.label not in REFERENCES), TRUTH]
        paths = []
        for seed in sorted({job.seed for job in self.jobs if job.seed is not None}):
            own = [job for job in self.jobs if job.seed in (None, seed)]
            prompts = dict.fromkeys(job.prompt for job in own if job.seed == seed)
            sections = [contact_sheet.Section(prompt, _rows(prompt, own, labels)) for prompt in prompts]
            paths.append(self.out / f"contact_sheet-seed{seed}.png")
            contact_sheet.draw(sections, len(labels), SHEET_PICTURES, TILE).save(paths[-1])
        return paths


def _rows(prompt: str, jobs: Sequence[Job], labels: Sequence[str]) -> list[list[contact_sheet.Cell]]:
    """The prompt's rows: one, or more where a variant has several runs of it (--runs)."""
    columns = [[job for job in jobs if job.prompt == prompt and job.label == label] for label in labels]
    return [
        [_cell(job, label) for label, job in zip(labels, row, strict=True)] for row in itertools.zip_longest(*columns)
    ]


def _cell(job: Job | None, label: str) -> contact_sheet.Cell:
    result = None if job is None else Result.read(job.result)
    if result is None:
        return contact_sheet.Cell(None, label, "" if label in REFERENCES else "not run")
    strip = contact_sheet.read_strip(job.result.with_suffix(".png"))
    return contact_sheet.Cell(strip, label, told(result), missed=result.diversity is None)


def _state(job: Job) -> str:
    """What tells a generator from that of another moment; empty where there is none."""
    path = generator_file(job)
    if job.label == TRUTH or not path.is_file():
        return ""
    return f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
