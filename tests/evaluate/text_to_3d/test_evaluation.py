"""The command from end to end, with runs that are there and with a stand-in for `latent-prior generate`."""

import dataclasses
import json
import sys

import pytest
from code_run import command
from latent_prior import cli
from latent_prior.evaluate.bench import existing
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.text_to_3d import measure
from latent_prior.evaluate.text_to_3d.evaluation import evaluation
from latent_prior.runs.sweep import jobs
from PIL import Image


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Runs the command in an empty folder and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: cli.main(["evaluate", "text-to-3d", *map(str, arguments)])


def test_runs_that_are_there(evaluate, true_run, tmp_path, capsys, monkeypatch):
    assert evaluate("--runs", true_run, "--judge", "none", "--out", "out") == 0
    printed = capsys.readouterr().out
    out = tmp_path / "out"
    for name in ("table.md", "runs.csv", "summary.csv", "summary.json", "contact_sheet-seed0.png"):
        assert (out / name).is_file() and str(name) in printed
    (run,) = json.loads((out / "summary.json").read_text())["runs"]
    assert run["prompt"] == "a red mug" and run["iou"] > 0.95 and run["r_single"] is None and run["one_body"]
    assert Image.open(out / "contact_sheet-seed0.png").width > 800

    def never(*args):
        raise AssertionError("measured twice")

    monkeypatch.setattr(measure, "measure_run", never)
    assert evaluate("--runs", true_run, "--judge", "none", "--out", "out") == 0


def stand_in(job, source, log):
    """A job whose command copies a run folder in place of generating one."""
    code = f"import shutil; shutil.copytree({str(source)!r}, {str(job.run)!r}); open({str(log)!r}, 'a').write('x')"
    return dataclasses.replace(job, command=command(code))


def test_launched_runs_are_taken_up_again(evaluate, true_run, tmp_path, monkeypatch):
    launched, plan = tmp_path / "launched", jobs.planned
    monkeypatch.setattr(jobs, "planned", lambda *args: [stand_in(job, true_run, launched) for job in plan(*args)])
    command = ("--prompts", "a red mug", "a yellow mug", "--seeds", 0, "--judge", "none", "--out", "out")

    real, calls = measure.measure_run, []

    def stopped_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(measure, "measure_run", stopped_at_the_second)
    with pytest.raises(SystemExit, match="130"):
        evaluate(*command)
    assert "1 of 2 runs" in (tmp_path / "out" / "table.md").read_text()
    assert evaluate(*command) == 0
    assert len(calls) == 3  # the first run was measured once, the second begun twice
    assert launched.read_text() == "xx"  # and each was launched once
    red, yellow = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"]
    assert (red["held_out"], yellow["held_out"]) == (False, True)
    assert red["seconds"] > 0 and red["peak_bytes"] > 0
    assert red["iou"] == yellow["iou"] and red["psnr"] > yellow["psnr"] + 5
    assert (red["colour_right"], yellow["colour_right"]) == (True, False)
    assert yellow["colour"] == "red"


def test_a_result_lasts_until_its_run_or_its_judge_changes(true_run, tmp_path):
    (job,) = existing.given([true_run], tmp_path)
    declared = evaluation([job], None)
    assert not declared.is_current(job)
    result = Result(job.label, job.prompt, 0, False, state=declared._state(job), settings="j")
    result.write(job.result)
    by_j = dataclasses.replace(declared, settings="j")
    assert by_j.is_current(job)
    assert not declared.is_current(job)
    dataclasses.replace(result, state="of another checkpoint").write(job.result)
    assert not by_j.is_current(job)
    assert by_j.is_current(dataclasses.replace(job, run=tmp_path / "thrown away"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "a red elephant"], "--prompts: the pocket world has no subject"),
        (["--prompts", "a red mug", "a red mug"], "--prompts: 'a red mug' is duplicated"),
        (["--prompts-file", "nowhere.txt"], "--prompts-file: there is no file nowhere.txt"),
        (["--prompts", "a red mug", "--seeds", "1", "1"], "--seeds: 1 is duplicated"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--runs", "."], "--runs: . is not a run folder"),
        (
            ["--runs", ".", "--config", "latent_prior"],
            "--runs: measures existing runs: --config, --seeds and",
        ),
        (["--config", "no_such_config"], "--config: 'no_such_config'"),
        (["seed=1"], "use --seeds"),
        (["--judge", "."], "--judge: . has no judge"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(evaluate, capsys, tmp_path, arguments, message):
    assert evaluate(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_prompts_file(evaluate, tmp_path, monkeypatch):
    (tmp_path / "prompts.txt").write_text("# two of them\na red mug\n\n  a golden duck\n")
    asked = []
    monkeypatch.setattr(jobs, "planned", lambda variants, tasks, *rest: asked.extend(tasks) or [])
    evaluate("--prompts-file", "prompts.txt", "--judge", "none")
    assert [task.prompt for task in asked] == ["a red mug", "a golden duck"]


def test_the_help_needs_neither_torch_nor_transformers():
    import subprocess

    from latent_prior.runs.sweep.engine import environment

    code = (
        "import sys\nfrom latent_prior import cli\n"
        "try:\n    cli.main(['evaluate', 'text-to-3d', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(' '.join({'torch', 'transformers', 'scipy', 'PIL'} & set(sys.modules)) or 0)"
    )
    with environment() as env:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
