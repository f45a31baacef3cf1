"""Signals at every stage of every command: the exit code, what is left, and that what is said to continue does.

A table. Where a run trains, continued it ends with the very state of one that was left alone.
"""

import fcntl
import os
import pty
import random
import re
import shlex
import signal
import struct
import termios
import time
from pathlib import Path

import psutil
import pytest
import torch
from flattened import flat
from latent_prior.runs.sweep.work import Record
from reliability import tiny_systems
from reliability.accidents import LAUNCH, Moment, start

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
CLASSES = {
    "text_to_3d": "latent_prior.systems.text_to_3d:LatentPriorSystem",
    "stylegan_adaptation": "latent_prior.systems.stylegan_adaptation:StyleGANAdaptationSystem",
    "layered_editing": "latent_prior.systems.layered_editing:LayeredEditingSystem",
}
# a stage, its function, and which of its calls is struck
LOADING = {
    "building": ("{system}.configure", 1),
    "loading": ("{system}.on_fit_start", 1),
    "in the first step": ("{system}.training_step", 1),
}
TRAINING = {
    "step": ("{system}.training_step", 5),
    "backward": ("{system}.backward", 4),
    "batch": ("latent_prior.host.embedded.systems:BaseSystem.on_train_batch_start", 5),
    "optimiser": ("pytorch_lightning.plugins.precision.precision:Precision.clip_gradients", 3),
    "validation": ("{system}.validation_step", 1),
    "checkpoint": ("latent_prior.runs.checkpoint:WholeCheckpoints.save_checkpoint", 3),
}
AFTER = {
    "turntable": ("{system}.test_step", 1, "resume"),
    "curves": ("latent_prior.runs.curves:draw", 1, "resume"),
    "surface": ("latent_prior.meshes.exporter:VertexColorMeshExporter.extract", 1, "export"),
    "texture": ("latent_prior.meshes.exporter:best_atlas", 1, "export"),
    "mesh files": ("latent_prior.meshes.exporter:save_mesh", 1, "export"),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def systems(tiny_prior, tmp_path_factory):
    inputs = tmp_path_factory.mktemp("inputs")
    tiny_systems.write_inputs(inputs)
    found = tiny_systems.systems(tiny_prior, inputs)
    found["text_to_3d"][1]["system.renderer.prune_every"] = 2  # a buffer that every other step begins by changing
    return found


@pytest.fixture(scope="module")
def whole(systems, tmp_path_factory):
    """The final state of each system's run, left alone."""
    found = {}

    def of(name):
        if name not in found:
            out = tmp_path_factory.mktemp("whole")
            run = start(tiny_systems.launched(systems[name], out, "--train"), out / "said", program=LAUNCH)
            assert run.end() == 0, run.err
            found[name] = state(out / "name" / "run")
        return found[name]

    return of


def state(run: Path) -> dict:
    checkpoint = torch.load(run / "ckpts" / "last.ckpt", weights_only=True)
    counted = re.compile("/callbacks/|/latent_prior_resume/waiting/0/1$")  # paths; and batches since the start, unused
    return {key: value for key, value in flat(checkpoint).items() if not counted.match(key)}


def struck(system, name, out, place, signals, *more):
    function, call = place[:2]
    moment = Moment(function.format(system=CLASSES[name]), signals, call)
    return start(tiny_systems.launched(system, out, *more), out.parent / "said", moment, program=LAUNCH)


def continue_as_told(err: str, command: str, run: Path, *more: str) -> None:
    """Run the command that the message names."""
    told = re.search(r"^Saved (.*)\nContinue with: latent-prior (.*)$", err, re.MULTILINE)
    assert told and Path(told[1]).is_file() and "Traceback" not in err, err
    arguments = shlex.split(told[2])
    assert arguments == [command, str(run)]
    again = start([*arguments, *more], run.parent.parent / "again")
    assert again.end() == 0, again.err


@pytest.mark.parametrize("number", [INT, TERM, HUP], ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("stage", ["building", "loading", "in the first step"])
def test_before_the_first_step_nothing_is_left(systems, tmp_path, stage, number):
    out = tmp_path / "out"
    run = struck(systems["text_to_3d"], "text_to_3d", out / "new", LOADING[stage], (number, number))
    assert run.end() == 130, run.err
    assert run.err.endswith("Interrupted\n") and "Traceback" not in run.err
    assert not (out / "new").exists()


@pytest.mark.parametrize(
    ("name", "stage", "signals"),
    [
        *(("text_to_3d", stage, signals) for stage in TRAINING for signals in ((HUP,), (TERM, INT))),
        *(
            (name, stage, (INT, INT, TERM, HUP))
            for name in list(CLASSES)[1:]
            for stage in ("step", "batch", "backward")
        ),
    ],
)
def test_a_training_goes_on_as_if_nothing_had_been(systems, whole, tmp_path, name, stage, signals):
    run = struck(systems[name], name, tmp_path / "out", TRAINING[stage], signals, "--train")
    assert run.end() == 130, run.err
    folder = tmp_path / "out" / "name" / "run"
    step = torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"]
    assert 3 <= step <= 5
    continue_as_told(run.err, "resume", folder)
    assert state(folder) == whole(name)


@pytest.mark.parametrize("stage", AFTER)
def test_after_the_training_the_rest_is_named(systems, tmp_path, stage):
    *place, command = AFTER[stage]
    more = ["trainer.max_steps=1", "system.exporter.texture=true", "system.exporter.texture_size=64"]
    more.append("system.mesh_stage.from_step=null")  # in training no surface is extracted
    run = struck(systems["text_to_3d"], "text_to_3d", tmp_path / "out", place, (TERM,), *more)
    assert run.end() == 130, run.err
    folder = tmp_path / "out" / "name" / "run"
    before = state(folder)
    assert before["/global_step"] == 1 and not list(folder.rglob("*.glb"))
    continue_as_told(run.err, command, folder)
    assert len(list(folder.rglob("*.glb"))) == 1 and list((folder / "save").glob("*.mp4"))
    assert state(folder)["/state_dict/geometry.features"] == before["/state_dict/geometry.features"]


@pytest.mark.parametrize("seed", range(6))
def test_a_storm_of_signals_leaves_a_whole_step(systems, whole, tmp_path, seed):
    """Signals of all kinds at random moments until the process has ended."""
    draw = random.Random(seed)
    out = tmp_path / "out"
    run = start(tiny_systems.launched(systems["text_to_3d"], out, "--train"), tmp_path / "said", program=LAUNCH)
    folder = out / "name" / "run"
    run.until((folder / "ckpts" / "last.ckpt").is_file)
    time.sleep(draw.random() / 2)
    while run.process.is_alive():
        run.send(draw.choice([INT, TERM, HUP]))
        time.sleep(draw.choice([0, 1e-4, 1e-2, 0.1]))
    assert run.end() in (0, 130, -TERM, -HUP), run.err  # it may be struck after its last line of Python
    again = start(["resume", str(folder)], tmp_path / "again")
    assert again.end() == 0, again.err
    assert state(folder) == whole("text_to_3d")


def test_a_run_whose_terminal_is_closed_saves_and_ends(systems, whole, tmp_path):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # rows and columns, for the bar
    out = tmp_path / "out"
    run = start(
        tiny_systems.launched(systems["text_to_3d"], out, "--train", "trainer.enable_progress_bar=true"),
        tmp_path / "said",
        program=LAUNCH,
        terminal=os.ttyname(slave),
    )
    shown = b""
    while not re.search(rb"[1-4]/6", shown):
        shown += os.read(master, 1000)
    os.close(slave)
    os.close(master)
    assert run.end() == 130
    again = start(["resume", str(out / "name" / "run")], tmp_path / "again")
    assert again.end() == 0, again.err
    assert state(out / "name" / "run") == whole("text_to_3d")


def test_an_export_of_a_finished_run_is_stopped_and_changes_nothing(systems, tmp_path):
    out = tmp_path / "out"
    run = start(tiny_systems.launched(systems["text_to_3d"], out, "--train"), tmp_path / "said", program=LAUNCH)
    assert run.end() == 0, run.err
    folder = out / "name" / "run"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    export = start(["export", str(folder)], tmp_path / "export", Moment(AFTER["surface"][0], (HUP,)))
    assert export.end() == 130 and export.err.endswith("Interrupted\n")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("argv", "moment"),
    [
        (
            ["convert-stylegan", "{inputs}/generator.pt", "{out}/a.safetensors"],
            "latent_prior.stylegan2.files:save_file",
        ),
        (["doctor"], "latent_prior.cli.doctor:report"),
        (["evaluate", "text-to-3d", "--out", "{out}/new"], "latent_prior.evaluate.text_to_3d.evaluation:plan"),
        (["evaluate", "stylegan", "--out", "{out}/new"], "latent_prior.evaluate.stylegan.evaluation:plan"),
        (["evaluate", "editing", "--out", "{out}/new"], "latent_prior.evaluate.editing.evaluation:plan"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("number", [INT, TERM, HUP], ids=lambda number: signal.Signals(number).name)
def test_other_commands_end_and_leave_nothing(tmp_path, argv, moment, number):
    tiny_systems.write_inputs(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    filled = [word.format(inputs=tmp_path, out=out) for word in argv]
    run = start(filled, tmp_path / "said", Moment(moment, (number,)))
    assert run.end() == 130, run.err
    assert "Traceback" not in run.err and not list(out.iterdir())


@pytest.mark.parametrize("signals", [(HUP,), (TERM, INT, HUP)], ids=["once", "thrice"])
def test_an_evaluation_stops_its_runs_and_goes_on_later(tmp_path, signals):
    out = tmp_path / "out"
    small = [f"{key}={value}" for key, value in {**tiny_systems.FIELD, "trainer.max_steps": 40}.items()]
    argv = ["evaluate", "text-to-3d", *small, "--prompts", "a red mug", "a golden duck", "--out", str(out)]
    first = start(argv, tmp_path / "said")
    # the second run trains; of the first, measured beside it, a result may be there or not
    first.until(lambda: len(list(out.glob("launches/*/*.json"))) == 1 and len(list(out.glob("runs/*/*"))) == 2)
    first.send(*signals)
    assert first.end() == 130, first.err
    assert "The same command continues from here" in first.err and "Traceback" not in first.err
    assert not [process.pid for process in psutil.process_iter(["cmdline"]) if str(out) in str(process.info["cmdline"])]
    (done,) = [path for path in out.glob("launches/*/*.json") if Record.read(path).exit_code == 0]
    before = done.stat().st_mtime_ns
    again = start(argv, tmp_path / "again")
    assert again.end() == 0, again.err
    assert len(list(out.glob("results/*/*.json"))) == 2 and done.stat().st_mtime_ns == before


def test_a_pocket_training_goes_on_where_it_was_interrupted(tmp_path):
    argv = ["train-pocket-stylegan", "--quick", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "weights")]
    loss = Moment("latent_prior.pocket.training.stylegan:regression_loss", (HUP, TERM), call=2)
    first = start(argv, tmp_path / "said", loss)
    assert first.end() == 130, first.err
    assert first.err.endswith("The same command continues from here.\nInterrupted\n") and "Traceback" not in first.err
    assert torch.load(tmp_path / "work" / "regression" / "state.pt", weights_only=True)["step"] == 1
    again = start(argv, tmp_path / "again")
    assert again.end() == 0, again.err
    assert (tmp_path / "weights" / "generator.safetensors").is_file()
