"""Two commands at once in one folder: one works, the other says who does and changes nothing; no result is lost.

The first command stops itself (SIGSTOP) in the middle of its work, so that the second certainly meets it, and goes on
once the second has ended.
"""

import importlib
import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from latent_prior.files.pictures import to_picture
from latent_prior.meshes.files import load_mesh
from latent_prior.stylegan2.files import load_generator
from reliability import tiny_systems
from reliability.accidents import LAUNCH, MAIN, Moment, Running, start

STOP = (signal.SIGSTOP,)
STEP = Moment("latent_prior.systems.text_to_3d:LatentPriorSystem.training_step", STOP)
EXTRACT = Moment("latent_prior.meshes.exporter:VertexColorMeshExporter.extract", STOP)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Few:
    """A smaller number in a module."""

    module: str
    name: str
    value: int

    def arm(self) -> None:
        setattr(importlib.import_module(self.module), self.name, self.value)


@pytest.fixture(scope="module")
def system(tiny_prior, tmp_path_factory):
    inputs = tmp_path_factory.mktemp("inputs")
    tiny_systems.write_inputs(inputs)
    return tiny_systems.systems(tiny_prior, inputs)["text_to_3d"]


@pytest.fixture(scope="module")
def finished(system, tmp_path_factory) -> Path:
    """A run of four steps."""
    out = tmp_path_factory.mktemp("out")
    run = start(tiny_systems.launched(system, out, "--train", "trainer.max_steps=4"), out / "said", program=LAUNCH)
    assert run.end() == 0, run.err
    return out / "name" / "run"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "name" / "run")


def contents(folder: Path) -> dict[Path, Any]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def is_stopped(process: int) -> bool:
    shown = subprocess.run(["ps", "-o", "state=", "-p", str(process)], capture_output=True, text=True)
    return shown.stdout.startswith("T")


def meet(folder: Path, running: Running, second: Callable[[], Running]) -> None:
    """Start the second command once the first has stopped itself in `folder`, and then let that one end."""
    running.until(lambda: is_stopped(running.process.pid))
    before = contents(folder)
    refused = second()
    assert refused.end() == 2, refused.err
    (error,) = [line for line in refused.err.splitlines() if line.startswith("error:")]
    assert f"{folder} is in use by" in error and f"(process {running.process.pid} on " in error
    assert contents(folder) == before
    running.send(signal.SIGCONT)
    assert running.end() == 0, running.err
    assert not (folder / ".lock").exists() and not [path for path in folder.rglob("*") if ".partial" in path.name]


def step_of(run: Path) -> int:
    return torch.load(run / "ckpts" / "last.ckpt", weights_only=True)["global_step"]


def test_a_run_and_a_run_of_the_same_tag(system, tmp_path):
    argv = tiny_systems.launched(system, tmp_path, "--train")
    meet(
        tmp_path / "name" / "run",
        start(argv, tmp_path / "a", STEP, program=LAUNCH),
        lambda: start(argv, tmp_path / "b", program=LAUNCH),
    )
    assert step_of(tmp_path / "name" / "run") == tiny_systems.STEPS


def test_a_run_and_a_run_of_the_same_second(system, tmp_path):
    argv = tiny_systems.launched(system, tmp_path, "--train", "timestamp='@20260101-120000'", "trainer.max_steps=2")
    both = [start(argv, tmp_path / name, program=LAUNCH) for name in "ab"]
    assert [run.end() for run in both] == [0, 0], [run.err for run in both]
    folders = [tmp_path / "name" / f"run@20260101-120000{suffix}" for suffix in ("", "-1")]
    assert [step_of(folder) for folder in folders] == [2, 2]


OTHERS = {
    "resume": ["resume", "RUN", "trainer.max_steps=6"],
    "export": ["export", "RUN", "--format", "ply"],
    "test": ["launch", "--test"],
    "validate": ["launch", "--validate"],
}


@pytest.mark.parametrize(
    ("one", "pause", "other"),
    [
        ("resume", STEP, "resume"),
        ("resume", STEP, "export"),
        ("resume", STEP, "test"),
        ("resume", STEP, "validate"),
        ("export", EXTRACT, "export"),
        ("export", EXTRACT, "resume"),
    ],
)
def test_two_commands_in_the_folder_of_a_run(copied, tmp_path, one, pause, other):
    def command(name: str, said: str, *moments: Moment) -> Running:
        program, *rest = [str(copied) if word == "RUN" else word for word in OTHERS[name]]
        if program != "launch":
            return start([program, *rest], tmp_path / said, *moments, program=MAIN)
        here = [f"exp_root_dir={tmp_path}", "name=name", "tag=run", "timestamp=''"]
        argv = ["--config", str(copied / "configs" / "parsed.yaml"), *rest, *here]
        return start([*argv, f"resume={copied / 'ckpts' / 'last.ckpt'}"], tmp_path / said, *moments, program=LAUNCH)

    meet(copied, command(one, "a", pause), lambda: command(other, "b"))
    assert step_of(copied) == (6 if one == "resume" else 4)
    if one == "export":
        assert len(load_mesh(copied / "save" / "it4-export" / "model.ply").faces)


def test_an_export_of_a_run_that_trains(system, tmp_path):
    run = tmp_path / "name" / "run"
    meet(
        run,
        start(
            tiny_systems.launched(system, tmp_path, "--train"),
            tmp_path / "a",
            replace(STEP, call=4),
            program=LAUNCH,
        ),
        lambda: start(["export", str(run)], tmp_path / "b"),
    )
    assert step_of(run) == tiny_systems.STEPS


def test_two_edits_into_one_folder(tiny_prior, tmp_path):
    g = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:40, 24:56] = 1
    to_picture(torch.rand(3, 64, 64, generator=g)).save(tmp_path / "photo.png")
    to_picture(mask).save(tmp_path / "mask.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("not of an edit")
    flags = ["--mask", str(tmp_path / "mask.png"), "--checkpoint", str(tiny_prior), "--clip", "none", "--steps", "4"]
    argv = ["edit-masked", str(tmp_path / "photo.png"), *flags, "--reconstruction-steps", "0", "--out", str(out)]
    first, second = ([*argv, "--prompt", prompt] for prompt in ("a cat", "a dog"))
    meet(
        out,
        start(first, tmp_path / "a", Moment("latent_prior.runs.masked_editing:_save", STOP, call=2)),
        lambda: start(second, tmp_path / "b"),
    )
    assert json.loads((out / "origin.json").read_text())["arguments"]["prompt"] == "a cat"
    assert {path.name for path in out.iterdir()} >= {"composite.png", "samples.csv", "mine.txt"}


def test_two_evaluations_into_one_folder(copied, tmp_path):
    out = tmp_path / "evaluation"
    (out / "results").mkdir(parents=True)
    (out / "results" / ".one.99999999.1.partial.json").touch()  # of a killed one
    argv = ["evaluate", "text-to-3d", "--runs", str(copied), "--out", str(out)]
    meet(
        out,
        start(argv, tmp_path / "a", Moment("latent_prior.evaluate.bench.loop:run", STOP)),
        lambda: start(argv, tmp_path / "b"),
    )
    assert json.loads((out / "summary.json").read_text())["runs"][0]["error"] is None


@pytest.mark.parametrize("shared", ["work", "out"])
def test_two_trainings_of_the_pocket_prior(tmp_path, shared):
    few = Few("latent_prior.pocket.pictures", "SHARD", 12)

    def command(said: str, *moments: Any) -> Running:
        folders = {name: tmp_path / (name if name == shared else f"{name}-{said}") for name in ("work", "out")}
        flags = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
        return start(["train-pocket", "--quick", *flags], tmp_path / said, few, *moments)

    meet(
        tmp_path / shared,
        command("a", Moment("latent_prior.pocket.training.everything:train_clip", STOP)),
        lambda: command("b"),
    )
    assert (tmp_path / ("out" if shared == "out" else "out-a") / "quality.json").is_file()


def test_two_conversions_to_one_file(tmp_path):
    """Both write it whole, so that the one which ends last is there: as if they had come one after the other."""
    tiny_systems.write_inputs(tmp_path)
    target = tmp_path / "generator.safetensors"
    argv = ["convert-stylegan", str(tmp_path / "generator.pt"), str(target)]
    both = [start(argv, tmp_path / name) for name in "ab"]
    assert [each.end() for each in both] == [0, 0], [each.err for each in both]
    load_generator(target)
    assert not [path for path in tmp_path.iterdir() if ".partial" in path.name]


def test_the_lock_of_a_killed_run_holds_nobody_up(copied, tmp_path):
    first = start(
        ["resume", str(copied), "trainer.max_steps=6"], tmp_path / "a", replace(STEP, signals=(signal.SIGKILL,))
    )
    assert first.end() == -signal.SIGKILL and (copied / ".lock").exists()
    assert start(["resume", str(copied), "trainer.max_steps=6"], tmp_path / "b").end() == 0
    assert step_of(copied) == 6 and not (copied / ".lock").exists()
