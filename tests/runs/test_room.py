"""The room that a run's checkpoints need is told before it trains, and never too much."""

import tempfile

import pytest
import torch
from latent_prior import OptionError
from latent_prior.files import refusals
from latent_prior.runs import room
from omegaconf import OmegaConf


def peak(steps: int, every: int | None, kept: int, last: bool) -> int:
    """By listing Lightning's writes and removals in turn; each new file is written before an old one goes."""
    files, most = [], 0
    for step in range(1, steps + 1):
        if every and step % every == 0 and kept:
            files.append(step)
            most = max(most, len(files))
            if kept > 0 and len(files) > kept + ("last" in files):
                files.remove(min(name for name in files if name != "last"))
        if every and step % every == 0 and last:
            most = max(most, len(files) + 1)
            files = [name for name in files if name != "last"] + ["last"]
    return max(most, len(files) + 1)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("steps, every", [(6, 2), (5, 2), (3, 2), (1, 2), (6, 6), (6, None)])
def test_the_files_that_exist_at_once(steps, every, kept, last):
    options = OmegaConf.create({"every_n_train_steps": every, "save_top_k": kept, "save_last": last})
    assert room._files(options, steps) == peak(steps, every, kept, last)
    assert room._files(OmegaConf.merge(options, {"save_top_k": -1}), steps) <= peak(steps, every, -1, last)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_a_checkpoint_is_no_smaller_than_told(tmp_path, name):
    system = torch.nn.Linear(300, 200)
    system(torch.ones(1, 300)).sum().backward()
    optimizer = getattr(torch.optim, name)(system.parameters(), lr=0.1)
    optimizer.step()
    torch.save({"state_dict": system.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.ckpt")
    size = (tmp_path / "x.ckpt").stat().st_size
    assert 0.95 * size < room._size(system, name) < size


def config(**trainer) -> OmegaConf:
    values = {"trainer": {"max_steps": 10, **trainer}, "checkpoint": {"every_n_train_steps": 2, "save_last": True}}
    return OmegaConf.create({**values, "system": {"optimizer": {"name": "Adam"}}})


def test_a_run_without_room_is_refused_before_it_trains(tmp_path, monkeypatch):
    size = room._size(torch.nn.Linear(300, 200), "Adam")
    for free, step, said in (
        (3 * size, 0, ""),
        (3 * size - 1, 0, "^the run, for 3 checkpoints at once, needs about 2.2 MB, but 2.2 MB are free in"),
        (size, 4, ""),
        (size - 1, 4, "^the checkpoint needs about"),
    ):
        monkeypatch.setattr(refusals, "free_space", lambda folder, free=free: free)
        if not said:
            room.check(tmp_path, config(), torch.nn.Linear(300, 200), step)
            continue
        with pytest.raises(OptionError, match=said):
            room.check(tmp_path, config(), torch.nn.Linear(300, 200), step)


def test_a_machine_without_a_folder_for_temporary_files_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    with pytest.raises(OptionError, match="No usable temporary directory.*nowhere.*TMPDIR"):
        room.check(tmp_path, config(), torch.nn.Linear(3, 2), 0)
