"""The whole job at small size: what it writes, how it resumes, and what it says to bad input."""

import copy
import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError
from latent_prior.cli import launch, main
from latent_prior.cli.errors import guarded
from latent_prior.evaluate.text_to_3d.surface import mean_colour
from latent_prior.files import lock
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.files import load_mesh
from latent_prior.runs import experiment, gpus
from latent_prior.runs import folder as run_folder
from latent_prior.runs.folder import config_path, last_checkpoint
from omegaconf import OmegaConf
from small_configs import small_job
from tiny_checkpoints import GEOMETRIES, write_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "custom" / "latent_prior.yaml")


def losses(run: Path) -> dict[int, float]:
    """The loss of every step, over all sessions of a run; later sessions win."""
    found = {}
    for log in sorted(run.glob("csv_logs/*/metrics.csv")):
        with log.open() as f:
            found |= {int(r["step"]): float(r["train/loss"]) for r in csv.DictReader(f) if r.get("train/loss")}
    return found


def python(*arguments: str) -> None:
    """A process of its own: without the type checks of the tests, which draw from Python's random numbers."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "custom")}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def finished(tiny_prior, tmp_path_factory) -> Path:
    """A run of the whole job."""
    out = tmp_path_factory.mktemp("out")
    python(str(ROOT / "launch.py"), "--config", CONFIG, *small_job(tiny_prior, out))
    return out / "latent_prior" / "run"


def test_the_whole_job_writes_what_it_promises(finished):
    path = finished / "save" / "it6-export" / "model.glb"
    assert trimesh.load_mesh(path).visual.material.baseColorTexture.size == (64, 64)
    mesh = load_mesh(path)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert len(mesh.faces) > 100 and mesh.body_count == 1
    assert (finished / "save" / "it6-test.mp4").stat().st_size > 500
    assert not (finished / "save" / "before_after.png").exists()  # that is of given meshes
    assert list((finished / "save").glob("it4-*.png")) and list((finished / "tb_logs").rglob("events*"))
    origin = json.loads((finished / "configs" / "origin.json").read_text())
    assert origin["seed"] == 0 and origin["versions"]["torch"] == torch.__version__
    assert (finished / "configs" / "parsed.yaml").is_file()
    assert torch.load(last_checkpoint(finished), weights_only=True)["global_step"] == 6
    assert set(losses(finished)) == set(range(6))


def test_same_seed_same_checkpoint_to_the_bit(finished, tiny_prior, tmp_path):
    python(str(ROOT / "launch.py"), "--config", CONFIG, "--train", *small_job(tiny_prior, tmp_path))
    again = tmp_path / "latent_prior" / "run"
    first, second = (torch.load(last_checkpoint(f), weights_only=True)["state_dict"] for f in (finished, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(finished, tiny_prior, tmp_path):
    """SIGKILL as soon as the checkpoint of step 4 is there, then `resume`."""
    folder = tmp_path / "latent_prior" / "run"
    command = [sys.executable, str(ROOT / "launch.py"), "--config", CONFIG, "--train"]
    process = subprocess.Popen(
        [*command, *small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 6})], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (folder / "ckpts" / "epoch=0-step=4.ckpt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for late in ("last.ckpt", "epoch=0-step=6.ckpt"):  # what a slower kill would have left
        (folder / "ckpts" / late).unlink(missing_ok=True)
    python("-m", "latent_prior", "resume", str(folder))
    whole = losses(finished)
    resumed = losses(folder)
    assert {0, 4, 5} <= resumed.keys()  # the kill may have cost the row of the step it fell into
    for step in resumed:
        assert resumed[step] == pytest.approx(whole[step], abs=1e-5), step


@pytest.mark.slow  # test_interruption.py is quicker
def test_interrupt_saves_before_it_leaves(tiny_prior, tmp_path):
    command = [sys.executable, str(ROOT / "launch.py"), "--config", CONFIG, "--train"]
    process = subprocess.Popen(
        [
            *command,
            *small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 5000, "checkpoint.every_n_train_steps": 4}),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "latent_prior" / "run"
    while process.poll() is None and not (folder / "ckpts" / "last.ckpt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"latent-prior resume {folder}" in said
    assert torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] >= 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_saves_the_step_it_falls_into(tiny_prior, tmp_path, capsys, monkeypatch, number):
    """No checkpoint is due: what is there was saved because of the signal, and a resumed run renews that file."""
    from latent_prior.systems.text_to_3d import LatentPriorSystem

    step = LatentPriorSystem.training_step

    def stopped(self, batch, batch_idx):
        if self.global_step == 2:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    folder, before = tmp_path / "latent_prior" / "run", signal.getsignal(number)
    overrides = small_job(tiny_prior, tmp_path, **{"checkpoint.every_n_train_steps": 50})
    with monkeypatch.context() as patch:
        patch.setattr(LatentPriorSystem, "training_step", stopped)
        assert launch.main(["--config", CONFIG, "--train", *overrides]) == 130
    assert f"latent-prior resume {folder}" in capsys.readouterr().err and signal.getsignal(number) is before
    assert torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert main(["resume", str(folder), "trainer.max_steps=4", "checkpoint.every_n_train_steps=1"]) == 0
    assert torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert not list(folder.glob("ckpts/last-v*"))


def strike(number: int):
    """A function that sends the signal to this process."""
    return lambda *args, **options: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_an_export_stops_it_and_names_the_way_to_export(tiny_prior, tmp_path, capsys, monkeypatch, number):
    from latent_prior.meshes.exporter import VertexColorMeshExporter

    folder, before = tmp_path / "latent_prior" / "run", signal.getsignal(number)
    steps = {
        "trainer.max_steps": 1,
        "system.mesh_stage.from_step": "null",
    }  # else training extracts the surface as well
    with monkeypatch.context() as patch:
        patch.setattr(VertexColorMeshExporter, "extract", strike(number))
        arguments = [CONFIG], small_job(tiny_prior, tmp_path, **steps), ("train", "export")
        assert guarded(lambda: experiment.run(*arguments)) == 130
    assert signal.getsignal(number) is before
    assert f"latent-prior export {folder}\n" in capsys.readouterr().err
    assert not list(folder.rglob("*.glb"))
    assert main(["export", str(folder)]) == 0 and len(list(folder.rglob("*.glb"))) == 1


def test_a_resumed_run_stopped_before_its_first_step_is_resumed_again(tiny_prior, tmp_path, capsys, monkeypatch):
    from latent_prior.systems.text_to_3d import LatentPriorSystem

    steps = {"trainer.max_steps": 2, "checkpoint.every_n_train_steps": 1}
    folder = experiment.run([CONFIG], small_job(tiny_prior, tmp_path, **steps), ("train",)).folder
    last = (folder / "ckpts" / "last.ckpt").read_bytes()
    for place in ("on_fit_start", "training_step"):
        with monkeypatch.context() as patch:
            patch.setattr(LatentPriorSystem, place, twice(strike(signal.SIGINT)))
            assert main(["resume", str(folder), "trainer.max_steps=3"]) == 130
        assert f"Continue with: latent-prior resume {folder}\n" in capsys.readouterr().err
        assert (folder / "ckpts" / "last.ckpt").read_bytes() == last


def twice(action):
    return lambda *args, **options: (action(), action())


def test_in_a_thread_a_run_needs_no_handlers(tiny_prior, tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with ThreadPoolExecutor(1) as pool:
        overrides = small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 1})
        run = pool.submit(experiment.run, [CONFIG], overrides, ("train",)).result()
    assert torch.load(run.folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == 1
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


@pytest.mark.slow
def test_a_signal_at_any_line_before_the_first_step_leaves_nothing(tiny_prior, tmp_path, monkeypatch):
    """One run for every line of ours between the config and the model."""
    out, own = tmp_path / "out", [module.__file__ for module in (experiment, run_folder, lock)]
    out.mkdir()
    read = experiment._read([CONFIG], small_job(tiny_prior, out / "new"), ("train",), 1, {})
    monkeypatch.setattr(experiment, "_read", lambda *_: replace(read, cfg=copy.deepcopy(read.cfg)))
    monkeypatch.setattr(experiment, "_build", strike(signal.SIGTERM))
    for line in itertools.count(1):
        left = line

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in own:
                return None
            left -= event == "line"
            if not left:
                left = -1
                os.kill(os.getpid(), signal.SIGINT)
            return trace

        sys.settrace(trace)
        try:
            with pytest.raises(KeyboardInterrupt):
                experiment.run([CONFIG])
        finally:
            sys.settrace(None)
        assert not list(out.iterdir()), line
        if left > 0:
            break
    assert line > 50


def test_ctrl_c_before_the_first_step_leaves_nothing(tiny_prior, tmp_path, capsys, monkeypatch):
    from latent_prior.systems.text_to_3d import LatentPriorSystem

    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LatentPriorSystem, "on_fit_start", press)
    assert launch.main(["--config", CONFIG, *small_job(tiny_prior, tmp_path / "out")]) == 130
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_ctrl_c_after_training_names_the_way_back(tiny_prior, tmp_path, capsys, monkeypatch):
    from latent_prior.systems.text_to_3d import LatentPriorSystem

    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LatentPriorSystem, "test_step", press)
    folder = tmp_path / "latent_prior" / "run"
    assert launch.main(["--config", CONFIG, *small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 1})]) == 130
    assert f"latent-prior resume {folder}" in capsys.readouterr().err
    assert torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == 1


def test_a_finished_run_resumed_in_a_new_folder_is_a_run(finished, tiny_prior, tmp_path):
    overrides = [f"resume={last_checkpoint(finished)}", "trainer.enable_progress_bar=true"]
    folder = experiment.run([CONFIG], [*small_job(tiny_prior, tmp_path), *overrides], ("train",)).folder
    assert torch.load(last_checkpoint(folder), weights_only=True)["global_step"] == 6


def test_gpus_are_chosen_by_the_flag_unless_the_environment_has(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.choose_gpus("2") == 1 and os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert gpus.choose_gpus("0") == 1 and os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(ValueError, match="--gpu"):
        gpus.choose_gpus("0,")


def test_export_again_in_other_formats(finished, tmp_path):
    folder = tmp_path / "name" / "moved"
    shutil.copytree(finished, folder)
    assert main(["export", str(folder), "--format", "ply,obj"]) == 0
    export = folder / "save" / "it6-export"
    assert {p.suffix for p in export.iterdir()} >= {".ply", ".obj", ".glb"}
    colours = [mean_colour(Asset.read(export / f"model.{s}")) for s in ("ply", "glb", "obj")]
    assert np.abs(np.subtract(colours, colours[0])).max() < 0.01


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("system.geometry.raduis=1", "system.geometry.raduis"),
        ("system.guidance.fm_layers=[up_9]", "fm_layers"),
        ("system.guidance.use_fm=perhaps", "system.guidance.use_fm is 'perhaps'"),
        ("system.guidance.guidance_scale=high", "system.guidance.guidance_scale is 'high'"),
        ("system.exporter.smoothing=-1", "exporter.smoothing is -1"),
        ("system.exporter.smoothin=1", "smoothin"),
        ("system.prompt_processor.prompt=''", "system.prompt_processor.prompt"),
        ("system.guidance.pretrained_model_name_or_path=./nowhere", "pretrained_model_name_or_path"),
        ("system.loss.lambda_fm=-1", "system.loss.lambda_fm"),
        ("system.loss.lambda_fm=[0,1,-1,5]", "system.loss.lambda_fm"),
        ("system.loss.lambda_gan=1", "system.loss.lambda_gan"),
        ("system.space=hsv", "system.space"),
        ("system.random_background=[1,0]", "system.random_background"),
        ("system_type=latent-prior-sistem", "latent-prior-system"),
        ("resume=nowhere.ckpt", "resume"),
        (f"resume={CONFIG}", "resume: "),
        ("data_type=random-camera", "data_type: unknown type 'random-camera'"),
        ("data.batch_size=2.5", "data.batch_size are positive ints"),
        ("data.eval_height=0", "data.eval_height"),
        ("data.progressive_until=-1", "data.progressive_until"),
        ("system.background.color=1", "background.color"),
        ("system.geometry.levels=[16,8]", "system.geometry.levels is [16, 8]; expected whole numbers"),
        ("system.mesh_stage.from_step=-1", "system.mesh_stage.from_step is -1"),
        ("system.renderer.inv_std=0", "system.renderer.inv_std is 0; expected positive numbers"),
        ("system.scheduler.name=null", "system.scheduler.name"),
        ("system.optimizer.params=geometry", "system.optimizer.params"),
        ("system.optimizer.args.lr=-1", "system.optimizer.args"),
        ("trainer.max_stepz=3", "trainer.max_stepz: Trainer has no such argument; did you mean 'max_steps'"),
        ("trainer.num_sanity_val_steps=some", "trainer.num_sanity_val_steps is 'some'; expected a number or null"),
        ("trainer.val_check_interval=0", "trainer.val_check_interval is 0"),
        ("trainer.devices=2", "trainer.devices"),
        ("checkpoint.save_top_k=3", "checkpoint.save_top_k=3"),
        (
            "system.optimizer.params={geometry.levels: {lr: fast}}",
            "system.optimizer.params.geometry.levels.lr is 'fast'; expected a number",
        ),
        ("system.exporter_type=mesh", "system.exporter_type: unknown type 'mesh'"),
        ("system.background={color: [1.0], n_output_dims: 4}", "system.background.n_output_dims is 4; expected 3"),
        ("system.guidance.max_step_percent=null", "system.guidance.max_step_percent is None; expected a number"),
        ("system.guidance_type=prior", "system.guidance_type: unknown type 'prior'"),
        ("system.geometry.levels=[2,4,8,20000]", "system.geometry.levels=[2, 4, 8, 20000]"),
        ("system.geometry.isosurface_resolution=100000", "system.geometry.isosurface_resolution=100000: needs"),
        ("data.width=1000000000", "data.width=1000000000"),
        ("seed=-1", "seed"),
        (f"tag={'long' * 80}", "exp_root_dir"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tiny_prior, tmp_path, capsys, override, message):
    assert launch.main(["--config", CONFIG, *small_job(tiny_prior, tmp_path / "out"), override]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_config_is_refused(finished, tiny_prior, tmp_path, capsys):
    overrides = small_job(tiny_prior, tmp_path / "out", **{"system.geometry.feature_size": 8})
    assert launch.main(["--config", CONFIG, *overrides, f"resume={last_checkpoint(finished)}"]) == 2
    assert (
        "its geometry.features has shape (1, 3, 16, 16, 16), this config's (1, 3, 8, 8, 8)" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_image_size_the_encoder_cannot_take(tiny_prior, tmp_path, capsys):
    overrides = small_job(tiny_prior, tmp_path / "out", **{"data.height": 18, "system.guidance.resize_input": "false"})
    assert launch.main(["--config", CONFIG, *overrides]) == 2
    assert "data.height" in capsys.readouterr().err


def test_corrupt_weights_and_unfitting_text_encoder(tmp_path, capsys):
    prior = write_checkpoint(tmp_path / "prior", GEOMETRIES["pocket"])
    config = json.loads((prior / "unet" / "config.json").read_text())
    (prior / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 48}))
    assert launch.main(["--config", CONFIG, *small_job(prior, tmp_path / "out")]) == 2
    assert "cross_attention_dim 48" in capsys.readouterr().err
    (prior / "unet" / "config.json").write_text(json.dumps(config))
    weights = prior / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert launch.main(["--config", CONFIG, *small_job(prior, tmp_path / "out")]) == 2
    assert "safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps", [0, -1, 2.5, "many", "true"])
def test_a_number_of_steps_that_cannot_be_trained(tiny_prior, tmp_path, steps):
    with pytest.raises(OptionError, match="^trainer.max_steps is .*at least 1"):
        experiment.run([CONFIG], small_job(tiny_prior, tmp_path / "out", **{"trainer.max_steps": steps}))
    assert not (tmp_path / "out").exists()


def test_a_taken_folder_is_refused_and_left_alone(finished, tiny_prior):
    last = last_checkpoint(finished).read_bytes()
    files = sorted(finished.rglob("*"))
    with pytest.raises(OptionError, match=f"{finished} is taken.*latent-prior resume.*tag"):
        experiment.run([CONFIG], small_job(tiny_prior, finished.parents[1]))
    assert last_checkpoint(finished).read_bytes() == last and sorted(finished.rglob("*")) == files


def test_two_runs_of_the_same_second_have_a_folder_each(tiny_prior, tmp_path):
    overrides = [*small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 1}), "timestamp='@20260101-120000'"]
    folders = [experiment.run([CONFIG], overrides, ("train",)).folder for _ in range(2)]
    assert [folder.name for folder in folders] == ["run@20260101-120000", "run@20260101-120000-1"]
    parsed = OmegaConf.load(folders[1] / "configs" / "parsed.yaml")
    assert parsed.trial_dir == str(folders[1]) and parsed.timestamp == "@20260101-120000-1"
    assert all((folder / "ckpts" / "last.ckpt").is_file() for folder in folders)


def test_fewer_steps_than_the_run_has_reached_are_refused(finished, tmp_path):
    copied = shutil.copytree(finished, tmp_path / "name" / "copied", copy_function=shutil.copyfile)
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert main(["resume", str(copied), "trainer.max_steps=5"]) == 2
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_run_is_not_overwritten_from_an_earlier_checkpoint(finished, tmp_path):
    copied = shutil.copytree(finished, tmp_path / "name" / "copied")
    checkpoint = torch.load(copied / "ckpts" / "last.ckpt", weights_only=True)
    torch.save(checkpoint | {"global_step": 4}, copied / "ckpts" / "early.ckpt")
    here = [f"exp_root_dir={tmp_path}", "name=name", "tag=copied", "timestamp=''"]
    with pytest.raises(OptionError, match="^resume: .*step 4.*reached step 6.*another tag"):
        experiment.run([str(copied / "configs" / "parsed.yaml")], [f"resume={copied / 'ckpts' / 'early.ckpt'}", *here])
    assert torch.load(copied / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_a_cut_checkpoint_is_passed_over(finished, tmp_path, caplog):
    copied = shutil.copytree(finished, tmp_path / "name" / "copied")
    last = copied / "ckpts" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert main(["resume", str(copied), "trainer.max_steps=7"]) == 0
    assert "last.ckpt is not a readable checkpoint" in caplog.text
    assert torch.load(last, weights_only=True)["global_step"] == 7


def test_a_broken_checkpoint_that_is_named_names_one_that_is_whole(finished, tmp_path, capsys):
    copied = shutil.copytree(finished, tmp_path / "name" / "copied")
    last, parsed = copied / "ckpts" / "last.ckpt", copied / "configs" / "parsed.yaml"
    whole = last.read_bytes()
    here = [f"exp_root_dir={tmp_path}", "name=name", "tag=copied", "timestamp=''", f"resume={last}"]
    for content in (whole[:5000], whole[:40_000] + bytes(4096) + whole[44_096:]):
        last.write_bytes(content)
        before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
        assert launch.main(["--config", str(parsed), "--test", *here]) == 2
        (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert "next to it, epoch=0-step=6.ckpt of step 6 is readable" in error
        assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_another_number_of_threads_is_said(finished, tmp_path, caplog):
    copied = shutil.copytree(finished, tmp_path / "name" / "copied")
    origin = copied / "configs" / "origin.json"
    record = json.loads(origin.read_text())
    assert record["threads"] == torch.get_num_threads()
    assert main(["resume", str(copied), "trainer.max_steps=7"]) == 0 and "continues with" not in caplog.text
    origin.write_text(json.dumps(record | {"threads": 99}))
    assert main(["resume", str(copied), "trainer.max_steps=8"]) == 0
    assert f"was trained with 99 threads and continues with {torch.get_num_threads()}" in caplog.text
    assert "OMP_NUM_THREADS=99" in caplog.text


def learning_rates(run: Path) -> dict[int, float]:
    found = {}
    for log in sorted(run.glob("csv_logs/*/metrics.csv")):
        with log.open() as f:
            for row in csv.DictReader(f):
                found |= {int(row["step"]): float(v) for k, v in row.items() if k.startswith("lr-") and v}
    return found


def test_a_longer_run_has_the_schedules_of_its_length(finished, tiny_prior, tmp_path):
    """Three steps, resumed up to six, against six at once."""
    folder = experiment.run([CONFIG], small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 3}), ("train",)).folder
    assert main(["resume", str(folder), "trainer.max_steps=6"]) == 0
    whole, longer = learning_rates(finished), learning_rates(folder)
    assert whole.keys() == longer.keys() == set(range(6))
    assert {step: longer[step] for step in (3, 4, 5)} == pytest.approx({step: whole[step] for step in (3, 4, 5)})
    parsed, theirs = (OmegaConf.load(run / "configs" / "parsed.yaml").system for run in (folder, finished))
    assert parsed.guidance == theirs.guidance and parsed.loss == theirs.loss and parsed.scheduler == theirs.scheduler
    assert not list(folder.glob("configs/raw-unresolved*"))


def test_a_run_of_an_older_version_says_that_its_schedules_stay(finished, tmp_path, caplog):
    copied = shutil.copytree(finished, tmp_path / "name" / "copied")
    (copied / "configs" / "unresolved.yaml").unlink()
    assert main(["resume", str(copied), "trainer.max_steps=7"]) == 0
    assert "schedules for trainer.max_steps=6, and they stay so under 7" in caplog.text


def test_a_failed_export_names_the_run_and_the_way_to_export_it(tiny_prior, tmp_path, monkeypatch):
    from latent_prior.meshes.exporter import VertexColorMeshExporter

    def refused(self):
        raise OptionError.because("there is no surface")

    monkeypatch.setattr(VertexColorMeshExporter, "__call__", refused)
    folder = tmp_path / "latent_prior" / "run"
    with pytest.raises(OptionError, match=f"no surface .*trained.*export failed.*latent-prior export {folder}"):
        experiment.run([CONFIG], small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 1}))
    assert torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == 1
    assert (folder / "save" / "it1-test.mp4").is_file()


def test_a_bug_in_an_export_stays_a_bug_but_names_the_run(tiny_prior, tmp_path, monkeypatch, caplog):
    from latent_prior.meshes.exporter import VertexColorMeshExporter

    monkeypatch.setattr(VertexColorMeshExporter, "__call__", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        experiment.run([CONFIG], small_job(tiny_prior, tmp_path, **{"trainer.max_steps": 1}), ("train", "export"))
    assert f"latent-prior export {tmp_path / 'latent_prior' / 'run'}" in caplog.text


@pytest.mark.parametrize("error", [OptionError.because("no"), ZeroDivisionError("a bug")])
def test_an_error_in_the_first_step_leaves_no_folder(tiny_prior, tmp_path, monkeypatch, error):
    from latent_prior.systems.text_to_3d import LatentPriorSystem

    def failing(self, batch, batch_idx):
        raise error

    monkeypatch.setattr(LatentPriorSystem, "training_step", failing)
    with pytest.raises(type(error)):
        experiment.run([CONFIG], small_job(tiny_prior, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_plain_value_error_is_a_bug(tiny_prior, tmp_path, monkeypatch):
    """Only OptionError means that the user can mend it."""
    from latent_prior.systems.text_to_3d import LatentPriorSystem

    monkeypatch.setattr(LatentPriorSystem, "on_fit_start", lambda self: list(zip([1], [], strict=True)))
    with pytest.raises(ValueError, match="zip") as raised:
        experiment.run([CONFIG], small_job(tiny_prior, tmp_path / "out"))
    assert not isinstance(raised.value, OptionError)


def test_a_users_own_empty_folder_survives_a_refusal(tiny_prior, tmp_path):
    own = tmp_path / "latent_prior" / "run"
    own.mkdir(parents=True)
    with pytest.raises(OptionError):
        experiment.run([CONFIG], [*small_job(tiny_prior, tmp_path), "system.guidance.use_fm=perhaps"])
    assert own.is_dir() and not list(own.iterdir())


def test_home_is_expanded(tiny_prior, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text(Path(CONFIG).read_text())
    overrides = small_job(tiny_prior, "~/out", **{"trainer.max_steps": 1})
    folder = experiment.run(["~/config.yaml"], overrides, ("train",)).folder
    assert folder == tmp_path / "out" / "latent_prior" / "run"
    again = [f"resume=~/{folder.relative_to(tmp_path)}/ckpts/last.ckpt", "tag=other", "trainer.max_steps=2"]
    assert experiment.run([CONFIG], [*overrides, *again], ("train",)).folder == folder.with_name("other")
    weights = [f"system.weights=~/{folder.relative_to(tmp_path)}/ckpts/last.ckpt", "tag=third"]
    assert experiment.run([CONFIG], [*overrides, *weights], ("train",)).folder == folder.with_name("third")


def test_a_run_folder_is_asked_for(tmp_path, capsys):
    assert main(["export", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_shipped_configs_are_found_by_name():
    assert config_path("latent_prior").samefile(CONFIG)
    with pytest.raises(ValueError, match="--config"):
        config_path("no_such_config")


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_training_loop_of_the_pocket_models_resumes(tmp_path, monkeypatch, every):
    """Interrupted in the seventh of 12 steps and called again, it ends where an uninterrupted run does."""
    from latent_prior.pocket.training import loop

    def go(folder: Path, stop: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
        calls = 0

        def loss(g):
            nonlocal calls
            calls += 1
            value = model(torch.randn(4, 3, generator=g)).square().mean()
            if calls > stop:
                raise KeyboardInterrupt
            return value, {}

        try:
            loop.train(folder, model, loss, 12, 1e-2, seed=5)
        except KeyboardInterrupt:
            pass
        return {name: value.clone() for name, value in model.state_dict().items()}

    monkeypatch.setattr(loop, "SAVE_EVERY", every)
    whole = go(tmp_path / "a", 99)
    go(tmp_path / "b", 6)
    assert torch.load(tmp_path / "b" / "state.pt", weights_only=True)["step"] == 6
    torch.testing.assert_close(go(tmp_path / "b", 99), whole, atol=0, rtol=0)


def test_a_lora_that_is_trained_along_resumes_exactly(tiny_prior, tmp_path):
    """Variational score distillation's, which is no part of the system."""
    given = small_job(
        tiny_prior, tmp_path, **{"name": "vsd", "system.guidance.score": "vsd", "checkpoint.save_top_k": -1}
    )
    assert launch.main(["--config", CONFIG, "--train", *given]) == 0
    folder = tmp_path / "vsd" / "run"
    middle = folder / "ckpts" / "epoch=0-step=4.ckpt"
    assert launch.main(["--config", CONFIG, "--train", *given, "tag=resumed", f"resume={middle}"]) == 0
    whole, resumed = (
        torch.load(tmp_path / "vsd" / tag / "ckpts" / "last.ckpt", weights_only=True) for tag in ("run", "resumed")
    )
    learned, again = (ckpt["latent_prior_resume"]["guidance"]["variational"]["weights"] for ckpt in (whole, resumed))
    assert any(weight.any() for name, weight in learned.items() if "lora_B" in name)
    assert all(torch.equal(weight, again[name]) for name, weight in learned.items())
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
