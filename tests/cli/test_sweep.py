"""`latent-prior sweep`: what it plans, what it writes, and what it says to bad input."""

import csv
import json
import sys

import pytest
from latent_prior import cli
from latent_prior.files import write_text
from latent_prior.runs.sweep import arguments
from latent_prior.runs.sweep.work import Record
from PIL import Image


class Draws:
    """An engine whose runs are a picture of before and after; those of a prompt with "broken" fail."""

    at_once = 2

    def __init__(self):
        self.started = []

    def stream(self, works):
        for work in works:
            self.started.append(work)
            if "broken" in work.run.name:
                Record(1, 2.0, 10, "exit code 1: OSError: it broke").write(work.record)
            else:
                (work.run / "save").mkdir(parents=True)
                Image.new("RGB", (90, 30), "teal").save(work.run / "save" / "before_after.png")
                Record(0, 61.0, 10).write(work.record)
            yield work


@pytest.fixture
def engine(monkeypatch):
    drawing = Draws()
    monkeypatch.setattr(arguments, "engine", lambda args, out, jobs: drawing)
    return drawing


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        try:
            return cli.main(["sweep", *map(str, words)])
        except SystemExit as end:  # of a sweep with failures
            return end.code

    return run


def test_every_prompt_seed_config_and_value(sweep, engine, tmp_path, capsys):
    grid = ("--grid", "system.loss.lambda_fm=0,0.1", "--grid", "data.batch_size=1,[2,1]")
    assert sweep("a red mug", "trainer.max_steps=7", "a duck", "--seeds", 0, 3, *grid) == 0
    assert len(engine.started) == 2 * 2 * 4
    commands = {work.command[2:7] for work in engine.started}
    assert ("a red mug", "trainer.max_steps=7", "system.loss.lambda_fm=0.1", "data.batch_size=[2,1]") in {
        words[:4] for words in commands
    }
    out = tmp_path / "outputs" / "sweep"
    rows = list(csv.DictReader((out / "runs.csv").open()))
    assert len(rows) == 16 and {row["state"] for row in rows} == {"done"} and rows[0]["seconds"] == "61.0"
    assert rows[0]["label"] == "latent_prior, lambda_fm=0, batch_size=1"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["done"] == 16 and summary["sweep"] == 1 and "torch" in summary["versions"]
    gallery = (out / "report.html").read_text()
    assert gallery.count("data-prompt=") == 16 and gallery.count("data:image/webp") == 16
    assert "16 of 16 runs are done; 16 were started now." in capsys.readouterr().out
    engine.started.clear()
    assert sweep("a red mug", "trainer.max_steps=7", "a duck", "--seeds", 0, 3, *grid) == 0 and not engine.started
    assert sweep("a red mug", "trainer.max_steps=8", "--seeds", 0) == 0 and len(engine.started) == 1


def test_failures_are_listed_and_repeated_when_asked(sweep, engine, capsys):
    assert sweep("a broken mug", "a red mug") == 1
    said = capsys.readouterr()
    assert "1 of 2 runs are done; 2 were started now." in said.out and "--again" in said.out
    assert "failed: a broken mug [latent_prior, seed 0]: exit code 1: OSError: it broke" in said.out
    assert "a red mug [latent_prior, seed 0]: done in 61 s" in said.err
    assert sweep("a broken mug", "a red mug") == 1 and len(engine.started) == 2
    assert sweep("a broken mug", "a red mug", "--again") == 1 and len(engine.started) == 3


def test_a_prompts_file_and_the_configs_own_prompt(sweep, engine, tmp_path):
    (tmp_path / "p.txt").write_text("# two\na red mug\n\na golden duck\n")
    assert sweep("--prompts-file", "p.txt") == 0 and len(engine.started) == 2
    engine.started.clear()
    assert sweep("--out", "own") == 0
    (work,) = engine.started
    assert work.command[2] == "a red mug"  # custom/latent_prior.yaml's


def test_prompts_that_look_alike_have_folders_of_their_own(sweep, engine):
    assert sweep("a red mug", "a red mug!", "A red mug", "a-red-mug", "लाल मग", "लाल घर", "🔥", "x" * 300) == 0
    names = [work.run.name for work in engine.started]
    assert len(set(names)) == 8 and names[0] == "a_red_mug-seed0" and max(map(len, names)) < 80
    engine.started.clear()
    grids = [word for key in "abcdefgh" for word in ("--grid", f"system.loss.lambda_{key}={'1' * 20}")]
    assert sweep("a red mug", *grids) == 0
    assert len(engine.started[0].run.parent.name) < 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a mug", "--prompts-file", "none.txt"], "--prompts-file: there is no file none.txt"),
        (["--prompts-file", "empty.txt"], "--prompts-file: empty.txt holds no prompt"),
        (["a mug", "a mug"], "PROMPT: 'a mug' is duplicated"),
        ([" "], "PROMPT: an empty prompt"),
        (["a mug", "--grid", "system.loss.lambda_fm"], "--grid is 'system.loss.lambda_fm'; expected key=value1,value2"),
        (["a mug", "--grid", "system.loss.lambda_fm=1,"], "--grid is"),
        (["a mug", "--grid", "system.guidance.guidance_scal=1"], "did you mean 'system.guidance.guidance_scale'?"),
        (["a mug", "--grid", "sytem.guidance.x=1"], "--grid: the config has no key 'sytem.guidance.x'"),
        (["a mug", "--grid", "seed=1,2"], "--grid: seed cannot be in a grid: use --seeds"),
        (["a mug", "tag=x"], "tag cannot be overridden here"),
        (["a mug", "--seeds", "1", "1"], "--seeds: 1 is duplicated"),
        (["a mug", "--config", "none"], "--config: 'none'"),
        (["a mug", "--out", "file"], "--out: file is a file; expected a folder"),
        (["a mug", "--out", "other"], "--out: other is of a sweep of version 9, and this is 1"),
        (["a mug", "--out", "evaluation"], "--out: evaluation is not of a sweep"),
        (["a mug", "--jobs", "0"], "--jobs is 0; expected at least 1"),
        (["a mug", "--partition", "gpu"], "--partition: is for --on slurm"),
        (["a mug", "--on", "slurm", "--time", "soon"], "--time is 'soon'; expected minutes, HH:MM:SS"),
        (["a mug", "--on", "slurm", "--sbatch", "x"], "--sbatch is 'x'; expected KEY=VALUE"),
    ],
)
def test_bad_input_is_one_line(sweep, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    (tmp_path / "file").touch()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for name, text in {"other": '{"sweep": 9}', "evaluation": '{"runs": []}'}.items():
        (tmp_path / name).mkdir()
        write_text(tmp_path / name / "summary.json", text)
    assert sweep(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_without_submitit_or_slurm(sweep, capsys, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert sweep("a mug", "--on", "slurm") == 2
    assert "--on: slurm needs the programs of a SLURM cluster, and there is no sbatch" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert sweep("a mug") == 2
    assert "pip install submitit (the extra `sweep`)" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(sweep, capsys):
    assert sweep("a mug", "--out", "/proc/none") == 2
    error = capsys.readouterr().err
    assert "--out: cannot write to the folder /proc/none" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("2:00:00", 120), ("1-00:00", 1440), ("30:30", 31), ("1-2:03:04", 1564), ("0:00:01", 1)],
)
def test_forms_of_a_time(text, minutes):
    assert arguments.minutes(text) == minutes


def test_the_help_needs_no_torch():
    import subprocess

    from latent_prior.runs.sweep.engine import environment

    code = (
        "import sys\nfrom latent_prior import cli\n"
        "try:\n    cli.main(['sweep', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(' '.join({'torch', 'submitit', 'omegaconf', 'PIL'} & set(sys.modules)) or 0)"
    )
    with environment() as env:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "--grid KEY=V1,V2" in done.stdout and "examples:" in done.stdout
