"""An evaluation is its declarations: a toy one runs, resumes, and writes tables and sheets through bench alone."""

import argparse
import csv
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from latent_prior import OptionError, evaluate
from latent_prior.evaluate.bench import existing, loop
from latent_prior.evaluate.bench.evaluation import Evaluation, Findings, Measured
from latent_prior.evaluate.bench.table import Column
from latent_prior.runs.sweep import jobs
from latent_prior.runs.sweep.jobs import Task
from latent_prior.runs.sweep.work import Record
from PIL import Image


@dataclass(frozen=True)
class Writes:
    """A variant whose run is a number in a file."""

    label: str
    plus: int

    @property
    def folder(self):
        return self.label

    def command(self, task, run, seed):
        return [str(task.about + self.plus + seed)]


class Inline:
    """An engine that writes the number of the command."""

    at_once = 1

    def stream(self, works):
        for work in works:
            work.run.mkdir(parents=True)
            (work.run / "n").write_text(*work.command)
            Record(0, 1.5, 10).write(work.record)
            yield work


def toy(out, asked, refused=(), broken=()):
    tasks = [Task("one", about=1), Task("ten", about=10)]
    found = jobs.planned([Writes("plain", 0), Writes("more", 5)], tasks, [0, 1], out)
    found = existing.with_references(found, {"truth": out / "truth"}, out)

    def measure(job):
        asked.append((job.label, job.prompt, job.seed))
        if (job.label, job.seed) in refused:
            raise OptionError.because("it cannot be read")
        number = job.task.about if job.label == "truth" else int((job.run / "n").read_text())
        if (job.label, job.seed) in broken:
            return Measured({"number": float("nan")}, torch.zeros(2, 3, 8, 8))
        return Measured({"number": number, "even": number % 2 == 0}, torch.full((2, 3, 8, 8), number / 20))

    return Evaluation(
        title="Numbers",
        jobs=found,
        measure=measure,
        products=lambda job: [job.run / "n"],
        settings="1",
        columns=(Column("number", "number", 1, spread=True), Column("even", "even", how="share", missing=0)),
        legend="Numbers are numbers.",
        note=lambda result: f"n {result.figure('number')}",
        views=2,
        groups=lambda results: [
            ({"variant": label}, [r for r in results if r.label == label]) for label in ("truth", "plain", "more")
        ],
        findings=lambda rows: Findings([f"{len(rows)} rows"], {"rows": len(rows)}),
        references=("truth",),
    )


def test_declarations_are_enough(tmp_path, capsys):
    asked = []
    loop.run(toy(tmp_path, asked), tmp_path, Inline())
    assert len(asked) == 2 + 2 * 2 * 2 and asked[0] == ("truth", "one", None)
    text = (tmp_path / "table.md").read_text()
    assert "| variant | number | even |\n| :-- | --: | --: |\n| truth | 5.5 | 1/2 |" in text
    assert "| plain | 6.0 ± 0.5 | 2/4 |\n| more | 11.0 ± 0.5 | 2/4 |" in text and "Numbers are numbers." in text
    assert "| ten | more | 1 | 16.0 | ✓ |" in text
    assert "3 rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "summary.json").read_text())["rows"] == 3
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert len(rows) == 10 and float(rows[1]["seconds"]) > 0 and rows[1]["number"] == "1"
    sheet = Image.open(tmp_path / "contact_sheet-seed1.png")
    assert sheet.width > 3 * 2 * 96
    asked.clear()
    loop.run(toy(tmp_path, asked), tmp_path, Inline())
    assert asked == []
    (tmp_path / "runs" / "plain" / "ten-seed0" / "n").write_text("100")
    loop.run(toy(tmp_path, asked), tmp_path, Inline())
    assert asked == [("plain", "ten", 0)]


def test_what_cannot_be_measured_is_a_failure_but_a_reference_stops_it(tmp_path):
    loop.run(toy(tmp_path, [], refused=[("plain", 0)]), tmp_path, Inline())
    text = (tmp_path / "table.md").read_text()
    assert "| plain (2 of 4 failed) | 6.5 | 1/4 |" in text
    assert "- plain, ten, seed 0: it cannot be read" in text
    with pytest.raises(OptionError, match="cannot be read"):
        loop.run(toy(tmp_path, [], refused=[("truth", None)]), tmp_path, Inline(), measure_again=True)


def test_a_figure_that_is_not_a_number_is_a_failure(tmp_path):
    loop.run(toy(tmp_path, [], broken=[("plain", 0)]), tmp_path, Inline())
    assert "- plain, ten, seed 0: number is nan; it is not counted" in (tmp_path / "table.md").read_text()
    assert "NaN" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


def test_a_variant_may_not_take_the_name_of_a_reference(tmp_path):
    found = jobs.planned([Writes("truth", 0)], [Task("one", about=1)], [0], tmp_path)
    with pytest.raises(OptionError, match="--config: the label 'truth' is taken"):
        existing.with_references(found, {"truth": tmp_path}, tmp_path)


def test_every_package_of_evaluate_is_a_command():
    folder = Path(evaluate.__file__).parent
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == {*evaluate.KINDS, "bench"}
    parser = argparse.ArgumentParser()
    evaluate.add_commands(parser.add_subparsers())
    for kind in evaluate.KINDS:
        args = parser.parse_args([kind.replace("_", "-"), "--seeds", "1"])
        assert args.seeds == [1] and callable(args.action)


def test_a_variant_is_compared_with_another_run_by_run(tmp_path):
    evaluation = dataclasses.replace(toy(tmp_path, []), against="plain")
    evaluation = dataclasses.replace(evaluation, columns=(Column("number", "number", 1, better="more"),))
    loop.run(evaluation, tmp_path, Inline())
    assert "| more | 4 | +5.0 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "paired.csv").is_file() and (tmp_path / "paired.png").is_file()
