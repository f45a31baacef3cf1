"""What logs and folders of runs say."""

import json
import os

import pytest
from latent_prior.app import history, progress, results
from latent_prior.files import lock
from tqdm import tqdm


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


def test_the_newest_bar(log):
    with log.open("w") as file:
        print("Loading", file=file)
        with tqdm(total=250, desc="train", unit="step", file=file, mininterval=0) as bar:
            for _ in range(34):
                bar.update()
                bar.set_postfix(loss="0.5")
        assert progress.of_log(log).done == 34
        with tqdm(total=36, desc="turntable", unit="view", file=file, mininterval=0) as bar:
            bar.update(9)
        print("error: something", file=file)
    now = progress.of_log(log)
    assert (now.stage, now.done, now.total) == ("Rendering the turntable", 9, 36)
    assert progress.said(log) == "Loading\nerror: something"


def test_no_bar_of_an_earlier_process(log):
    log.write_text("train:  50%|#####     | 5/10 [00:10<1:02:03,  1.00step/s]\n")
    assert progress.of_log(log).left == 3723
    assert progress.of_log(log, log.stat().st_size) is None
    assert progress.of_log(log.with_name("none.txt")) is None


def test_time_left_is_unknown_at_first(log):
    log.write_text("train:   0%|          | 0/6 [00:00<?, ?step/s]")
    assert progress.of_log(log) == progress.Progress("Training", 0, 6, None)


def write_run(folder, cfg, steps=3):
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "parsed.yaml").write_text(json.dumps(cfg))
    (folder / "csv_logs" / "version_0").mkdir(parents=True)
    rows = "\n".join(f"0,{step},0.5" for step in range(steps))
    (folder / "csv_logs" / "version_0" / "metrics.csv").write_text(f"epoch,step,train/loss\n{rows}\n,{steps},\n")
    (folder / "save").mkdir()
    return folder


def config(system="latent-prior-system", **more):
    prompt = {"prompt_processor": {"prompt": "a red mug"}}
    return {"system_type": system, "system": prompt | more, "trainer": {"max_steps": 8}, "data": {"n_grid": 2}}


def test_the_state_of_a_run(tmp_path):
    run = write_run(tmp_path / "latent_prior" / "run", config())
    past = history.read(run)
    assert (past.kind, past.prompt, past.state, past.steps) == ("text", "a red mug", "interrupted", (3, 8))
    (run / "csv_logs" / "version_1").mkdir()
    (run / "csv_logs" / "version_1" / "metrics.csv").write_text("epoch,step\n")  # resumed, before its first step
    assert history.read(run).steps == (3, 8)
    assert not past.can_resume  # without a checkpoint
    (run / "ckpts").mkdir()
    (run / "ckpts" / "last.ckpt").touch()
    assert history.read(run).can_resume
    with lock.owned(run, "run"):
        assert history.read(run).state == "running" and not history.read(run).can_resume
    assert history.read(run).state == "interrupted"
    # of a process that was killed, whose number another has now
    (run / ".lock").write_text(json.dumps({"process": os.getpid(), "since": "2001-01-01 00:00:00"}))
    assert history.read(run).state == "interrupted"
    (run / ".lock").unlink()
    (run / "save" / "it8-export").mkdir()
    (run / "save" / "it8-export" / "model.glb").touch()
    assert history.read(run).state == "done"


@pytest.mark.parametrize(
    ("cfg", "kind"),
    [
        (config(geometry_type="textured-mesh"), "texture"),
        (config("layered-editing-system"), "edit"),
        (config("stylegan-adaptation-system"), "stylegan"),
        (config("of-another-plugin"), "other"),
    ],
)
def test_kinds(tmp_path, cfg, kind):
    assert history.read(write_run(tmp_path / "run", cfg)).kind == kind


def test_history_is_newest_first_and_skips_what_is_no_run(tmp_path):
    for number in range(3):
        run = write_run(tmp_path / "latent_prior" / f"run{number}", config())
        os.utime(run / "configs" / "parsed.yaml", (number, number))
    edit = tmp_path / "edit_masked" / "edit"
    edit.mkdir(parents=True)
    (edit / "origin.json").write_text(json.dumps({"arguments": {"prompt": "a <b>mug</b>", "mask": "m"}}))
    broken = tmp_path / "latent_prior" / "broken" / "configs"
    broken.mkdir(parents=True)
    (broken / "parsed.yaml").write_text("a: [1\n")
    assert [past.folder.name for past in history.below(tmp_path)] == ["edit", "run2", "run1", "run0"]


@pytest.mark.parametrize("where", ["save", "."])
@pytest.mark.parametrize("after", ["after.png", "composite.png"])
def test_before_and_after(tmp_path, where, after):
    (tmp_path / "save").mkdir()
    assert results.of(tmp_path).before_after is None
    (tmp_path / where / "before.png").touch()
    assert results.of(tmp_path).before_after is None
    (tmp_path / where / after).touch()
    assert results.of(tmp_path).before_after == (tmp_path / where / "before.png", tmp_path / where / after)
