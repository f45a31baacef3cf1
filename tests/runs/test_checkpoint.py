"""Checkpoints are written whole, with an ordinary mode and the bytes that Lightning would write."""

import os

import pytest
import torch
from latent_prior.runs.checkpoint import WholeCheckpoints
from omegaconf import OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO


class Unwritable:
    def __reduce__(self):
        raise OSError("no room")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    path, writer = tmp_path / "ckpts" / "last.ckpt", WholeCheckpoints()
    writer.save_checkpoint({"global_step": 1, "state_dict": {"x": torch.ones(2)}}, path)
    with pytest.raises(OSError, match="no room"):
        writer.save_checkpoint({"global_step": 2, "state_dict": {"x": torch.ones(2)}, "y": Unwritable()}, path)
    assert torch.load(path, weights_only=True)["global_step"] == 1 and len(list(path.parent.iterdir())) == 1


def test_the_bytes_are_lightnings(tmp_path):
    checkpoint = {"global_step": 1, "state_dict": {"x": torch.arange(5.0)}}
    before = os.umask(0o022)
    try:
        WholeCheckpoints().save_checkpoint(checkpoint, tmp_path / "ours.ckpt")
    finally:
        os.umask(before)
    TorchCheckpointIO().save_checkpoint(checkpoint, tmp_path / "theirs.ckpt")
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()
    assert (tmp_path / "ours.ckpt").stat().st_mode & 0o777 == 0o644


def test_config_nodes_become_plain_data(tmp_path):
    """threestudio gives optimisers and schedules what the config holds as it is."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], betas=OmegaConf.create([0.9, 0.99]))
    parts = [torch.optim.lr_scheduler.ConstantLR(optimizer), torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=OmegaConf.create([3]))
    states = {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": [schedule.state_dict()]}
    WholeCheckpoints().save_checkpoint({"global_step": 1, **states}, tmp_path / "last.ckpt")
    found = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert tuple(found["optimizer_states"][0]["param_groups"][0]["betas"]) == (0.9, 0.99)
    assert found["lr_schedulers"][0]["_milestones"] == [3]
