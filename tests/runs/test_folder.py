"""A run's folder belongs to it alone, and its newest checkpoint is the one of the latest step."""

import logging
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from latent_prior import OptionError
from latent_prior.runs.folder import PARSED, UNRESOLVED, claim, config_of, last_checkpoint


def run_with(folder: Path, **steps: int) -> Path:
    """A run folder with checkpoints of these steps, each written a second before the one named before it."""
    (folder / "ckpts").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "configs" / PARSED).touch()
    for age, (name, step) in enumerate(steps.items()):
        path = folder / "ckpts" / f"{name}.ckpt"
        torch.save({"global_step": step, "state_dict": {"x": torch.ones(3)}}, path)
        os.utime(path, (2e9 - age, 2e9 - age))
    return folder


def test_the_step_inside_decides_whatever_the_file_times(tmp_path):
    run = run_with(tmp_path / "run", early=200, last=250, first=100)
    assert last_checkpoint(run).name == "last.ckpt"
    shutil.copytree(run, tmp_path / "copied", copy_function=shutil.copyfile)
    assert last_checkpoint(tmp_path / "copied").name == "last.ckpt"
    assert last_checkpoint(run_with(tmp_path / "other", last=3, numbered=5)).name == "numbered.ckpt"


@pytest.mark.parametrize("order", [("last", "numbered"), ("numbered", "last")])
def test_among_equals_it_is_the_last(tmp_path, order):
    assert last_checkpoint(run_with(tmp_path / "run", **dict.fromkeys(order, 7))).name == "last.ckpt"


def test_what_cannot_be_read_is_passed_over_with_a_notice(tmp_path, caplog):
    run = run_with(tmp_path / "run", last=250, whole=200)
    last = run / "ckpts" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])  # cut short
    (run / "ckpts" / "other.ckpt").write_text("no checkpoint")
    torch.save([1, 2], run / "ckpts" / "list.ckpt")
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(run).name == "whole.ckpt"
    said = " ".join(caplog.messages)
    assert all(name in said for name in ("last.ckpt", "other.ckpt", "list.ckpt")) and "whole.ckpt" not in said
    (run / "ckpts" / "whole.ckpt").unlink()
    with pytest.raises(OptionError, match="no readable checkpoint"):
        last_checkpoint(run)


def test_a_taken_timestamped_folder_gets_a_number(tmp_path):
    folder = tmp_path / "out" / "name" / "t@20260101-120000"
    claims = [claim(folder, numbered=True) for _ in range(3)]
    names = [each.folder.name for each in claims]
    assert names == [folder.name, f"{folder.name}-1", f"{folder.name}-2"]


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    claims, start = [], threading.Barrier(8)

    def one() -> None:
        start.wait()
        claims.append(claim(tmp_path / "out" / "t@now", numbered=True))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.folder for each in claims}) == 8


def test_of_two_runs_in_the_same_empty_folder_one_is_refused(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    first = claim(folder)
    with pytest.raises(OptionError, match="in use by"):
        claim(folder)
    first.release()
    (folder / "save").mkdir()
    with pytest.raises(OptionError, match="taken") as refused:
        claim(folder)
    assert "latent-prior resume" in str(refused.value) and "tag" in str(refused.value)


def test_only_what_was_made_is_taken_back(tmp_path):
    new = claim(tmp_path / "out" / "name" / "t")
    (new.folder / "tb_logs").mkdir()
    new.release(remove=True)
    assert not (tmp_path / "out").exists()

    own = tmp_path / "mine" / "name" / "t"
    own.mkdir(parents=True)
    used = claim(own)
    (own / "csv_logs").mkdir()
    (own / "notes.txt").touch()  # somebody else's
    used.release(remove=True)
    assert [path.name for path in own.iterdir()] == ["notes.txt"]

    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty" / "name" / "t").release(remove=True)
    assert (tmp_path / "empty").is_dir() and not list((tmp_path / "empty").iterdir())


def test_a_folder_in_use_says_by_whom_and_is_free_again_afterwards(tmp_path):
    run = run_with(tmp_path / "run", last=2)
    own = {"resume": run / "ckpts" / "last.ckpt"}
    first = claim(run, **own)
    with pytest.raises(OptionError, match=rf"in use by .*process {os.getpid()} .*since") as refused:
        claim(run, **own)
    assert str(run) in str(refused.value)
    first.release()
    claim(run, **own).release()
    assert (run / ".lock").read_bytes() == b""


def test_the_folder_of_a_killed_run_that_never_began_can_be_claimed(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / ".lock").write_text('{"process": 1}')  # nobody holds it
    claim(tmp_path / "t").release()


def test_a_run_goes_on_in_its_own_folder(tmp_path):
    run = run_with(tmp_path / "run", last=2)
    again = claim(run, resume=run / "ckpts" / "last.ckpt")
    again.release(remove=True)
    assert again.folder == run and (run / "ckpts" / "last.ckpt").is_file()
    with pytest.raises(OptionError, match="taken"):
        claim(run, resume=tmp_path / "elsewhere" / "ckpts" / "last.ckpt")


@pytest.mark.parametrize("numbered", [True, False])
def test_a_file_where_a_folder_should_be_is_said_in_one_line(tmp_path, numbered):
    (tmp_path / "out").touch()
    with pytest.raises(OptionError, match="cannot make the run folder .*exp_root_dir"):
        claim(tmp_path / "out" / "name" / "t", numbered=numbered)


def test_old_runs_go_on_from_what_they_have(tmp_path):
    run = run_with(tmp_path / "run", last=2)
    assert config_of(run).name == PARSED
    (run / "configs" / UNRESOLVED).touch()
    assert config_of(run).name == UNRESOLVED
