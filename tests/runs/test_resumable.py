"""A checkpoint whose state training cannot go on from is refused by name, before torch and Lightning see it."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from latent_prior import OptionError
from latent_prior.files.torch_file import read_torch
from latent_prior.host.embedded.cameras import RandomCameraDataModule
from latent_prior.runs.checkpoint import WholeCheckpoints
from latent_prior.runs.resumable import check_resumable
from latent_prior.runs.resume import KEY, ExactResume
from pytorch_lightning.callbacks import ModelCheckpoint

PARTS = [
    {"name": "ConstantLR", "args": {"factor": 0.5, "total_iters": 2}},
    {"name": "ExponentialLR", "args": {"gamma": 0.9}},
]
SCHEDULE = {"name": "SequentialLR", "schedulers": PARTS, "milestones": [2], "interval": "step"}


def trainer_in(folder, steps=3):
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        plugins=[WholeCheckpoints()],
        callbacks=[ModelCheckpoint(dirpath=folder, every_n_train_steps=1), ExactResume()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


@pytest.fixture
def written(toy_system, tmp_path):
    """A system, a trainer that could resume, and the checkpoint of three steps."""
    trainer = trainer_in(tmp_path / "ckpts")
    trainer.fit(toy_system(scheduler=SCHEDULE), datamodule=RandomCameraDataModule({"height": 4, "width": 4}))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return toy_system(scheduler=SCHEDULE), trainer_in(tmp_path / "ckpts", 5), tmp_path / "last.ckpt"


def at(content, *keys):
    for key in keys:
        content = content[key]
    return content


GROUPS = ("optimizer_states", 0, "param_groups", 0)
MOMENTS = ("optimizer_states", 0, "state", 0)
SCHEDULER = ("lr_schedulers", 0)
PROGRESS = ("loops", "fit_loop", "epoch_progress", "current")
WRONG = [  # place, key, value, what is named
    (MOMENTS, "exp_avg", torch.zeros(1), "state.0.exp_avg"),  # a segmentation fault of fused Adam
    (MOMENTS, "exp_avg", torch.zeros(400, 400), "state.0.exp_avg"),
    (MOMENTS, "exp_avg_sq", torch.zeros(4, dtype=torch.float64), "state.0.exp_avg_sq"),
    (MOMENTS, "exp_avg", torch.zeros(4, dtype=torch.int64), "state.0.exp_avg"),
    (MOMENTS, "step", torch.zeros(5), "state.0.step"),
    (MOMENTS, "step", "3", "state.0.step"),
    (MOMENTS, "exp_avg", None, "state.0.exp_avg"),
    (MOMENTS, "exp_avg", ..., "state.0.exp_avg"),
    (MOMENTS[:-1], 7, {"exp_avg": torch.zeros(4)}, "state.7"),
    (MOMENTS[:-1], "x", {}, "state.x"),
    (MOMENTS[:-1], 0, [], "state.0"),
    (GROUPS, "params", [0, 1], "params"),
    (GROUPS, "params", [5], "params"),
    (GROUPS, "params", None, "params"),
    (GROUPS[:-1], 0, 7, "param_groups.0"),
    (GROUPS[:2], "param_groups", [], "param_groups"),
    (GROUPS[:2], "state", [], "state"),
    ((), "optimizer_states", [], "optimizer_states"),
    ((), "optimizer_states", ..., "optimizer_states"),
    ((), "optimizer_states", {"a": 1}, "optimizer_states"),
    (SCHEDULER, "last_epoch", 10**9, "lr_schedulers.0.last_epoch"),  # as often it is stepped
    (SCHEDULER, "last_epoch", 1.5, "last_epoch"),
    (SCHEDULER, "last_epoch", ..., "last_epoch"),
    (SCHEDULER, "step", 3, "lr_schedulers.0.step"),  # instead of the function
    (SCHEDULER, "_schedulers", [], "_schedulers"),
    ((*SCHEDULER, "_schedulers", 0), "last_epoch", 10**9, "last_epoch"),
    ((), "lr_schedulers", ..., "lr_schedulers"),
    ((), "lr_schedulers", [[]], "lr_schedulers.0"),
    ((), "loops", ..., "loops"),
    ((), "loops", [], "loops"),
    ((), "loops", {"fit_loop": {}}, "fit_loop"),
    (PROGRESS, "completed", "x", "epoch_progress.current.completed"),
    (PROGRESS[:-1], "current", None, "epoch_progress.current"),
    ((), "pytorch-lightning_version", 2, "version"),
    ((), "pytorch-lightning_version", "x", "version"),
    ((), "callbacks", [], "callbacks"),
    ((), KEY, [], KEY),
    ((KEY,), "rng", {}, "rng"),
    ((KEY,), "updated_at", ["a", 1], "updated_at"),
    ((KEY,), "waiting", 3, "waiting"),
    ((KEY, "rng"), "torch", torch.zeros(5, dtype=torch.uint8), "torch"),
    ((KEY, "rng"), "python", [3, [2**40] * 625, None], "rng"),
    ((KEY, "rng"), "python", [3, [0], None], "python"),
    ((KEY, "rng"), "numpy", ["MT19937", torch.zeros(3), 0, 0, 0.0], "numpy"),
]


def test_what_was_written_can_be_resumed_from(written):
    system, trainer, path = written
    check_resumable(path, trainer, system)
    trainer.fit(system, datamodule=RandomCameraDataModule({"height": 4, "width": 4}), ckpt_path=path, weights_only=True)
    assert trainer.global_step == 5


def test_a_waiting_batch_of_other_data_is_drawn_anew(written, caplog):
    system, trainer, path = written
    content = read_torch(path)
    content[KEY]["waiting"] = [{"height": "x", "rays_d": torch.zeros(2)}]
    torch.save(content, path)
    check_resumable(path, trainer, system)
    trainer.fit(system, datamodule=RandomCameraDataModule({"height": 4, "width": 4}), ckpt_path=path, weights_only=True)
    assert trainer.global_step == 5 and "drawn anew" in caplog.text


def test_every_odd_state_is_refused_by_name(written):
    system, trainer, path = written
    good = read_torch(path)
    before = torch.get_rng_state()
    for place, key, value, named in WRONG:
        content = copy.deepcopy(good)
        target = at(content, *place)
        if value is ...:
            del target[key]
        else:
            target[key] = value
        torch.save(content, path)
        with pytest.raises(OptionError, match="^resume: ") as refused:
            check_resumable(path, trainer, system)
        assert named in str(refused.value) and len(str(refused.value)) < 300, (place, key, value)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_never_has_other_files_removed(tmp_path):
    """A checkpoint says which older one Lightning is to remove; `ckpts/../../x` lies below `ckpts` for Lightning."""
    folder, other, writer = tmp_path / "run" / "ckpts", tmp_path / "other", WholeCheckpoints()
    folder.mkdir(parents=True)
    other.mkdir()
    for path in (folder / "old.ckpt", other / "a.ckpt", other / "notes.txt"):
        path.write_bytes(b"x")
    for path in (other, folder / ".." / ".." / "other", folder / ".." / ".." / "other" / "a.ckpt", other / "notes.txt"):
        writer.remove_checkpoint(path)
    writer.remove_checkpoint(f"file://{other}/a.ckpt")
    assert len(list(other.iterdir())) == 2
    writer.remove_checkpoint(folder / "old.ckpt")
    assert not list(folder.iterdir())
