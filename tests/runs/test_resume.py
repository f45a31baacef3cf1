"""Exact resuming: a killed and resumed run against one that was left alone."""

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from latent_prior.host.embedded.cameras import RandomCameraDataModule
from latent_prior.runs.resume import KEY, ExactResume, rng_state, set_rng_state
from pytorch_lightning.callbacks import ModelCheckpoint

STEPS, SAVE_EVERY, CRASH_AT = 13, 4, 9

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("does not have many workers", "exists and is not empty", "The dirpath has changed")
]


class Cameras(RandomCameraDataModule):
    """Remembers the random numbers' state before the first batch: Lightning has used some up by then."""

    def train_dataloader(self):
        self.start = rng_state()
        return super().train_dataloader()


def cameras():
    return Cameras(
        {
            "height": [4, 6],
            "width": [4, 6],
            "batch_size": [2, 3],
            "resolution_milestones": [8],  # falls between the checkpoint and the crash
            "progressive_until": 20,
            "eval_height": 4,
            "eval_width": 4,
        }
    )


def fit(system, folder, exact, seed, ckpt_path=None, validate=True, max_steps=STEPS, more=()):
    pl.seed_everything(seed, verbose=False)
    callbacks = [ModelCheckpoint(dirpath=folder, every_n_train_steps=SAVE_EVERY, save_top_k=-1, filename="{step}")]
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, *more, *([ExactResume()] if exact else [])],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=2 if validate else None,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if validate else 0,
    )
    data = cameras()
    trainer.fit(system, datamodule=data, ckpt_path=ckpt_path)
    system.start = data.start
    torch.rand(5)  # what comes after training does not count
    trainer.save_checkpoint(folder / "end.ckpt")
    return system


def killed_and_resumed(toy_system, folder, exact):
    killed = toy_system()
    killed.crash_at = CRASH_AT
    with pytest.raises(KeyError):
        fit(killed, folder, exact, seed=0)
    resumed = fit(toy_system(resumed=True), folder, exact, seed=12345, ckpt_path=str(folder / "step=8.ckpt"))
    return [record for record in killed.history if record["step"] < 8] + resumed.history, resumed


def test_a_resumed_run_is_the_run_it_continues(toy_system, tmp_path):
    whole = fit(toy_system(), tmp_path / "whole", True, seed=0)
    history, resumed = killed_and_resumed(toy_system, tmp_path / "killed", True)
    assert [record["step"] for record in history] == list(range(STEPS))
    assert history == whole.history  # to the last bit
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert {record["height"] for record in history[:8]} == {4} and history[-1]["height"] == 6


def test_a_finished_run_can_be_made_longer(toy_system, tmp_path):
    whole = fit(toy_system(), tmp_path / "whole", True, seed=0)
    short = fit(toy_system(), tmp_path / "short", True, seed=0, max_steps=6)
    rest = fit(
        toy_system(resumed=True), tmp_path / "long", True, seed=9, ckpt_path=str(tmp_path / "short" / "end.ckpt")
    )
    assert short.history + rest.history == whole.history


def schedule_for(steps: int) -> dict:
    """Constant for the first half, then down to a tenth: the schedule of the main job."""
    parts = [
        {"name": "ConstantLR", "args": {"factor": 1.0, "total_iters": steps // 2}},
        {"name": "ExponentialLR", "args": {"gamma": 0.1 ** (2 / steps)}},
    ]
    return {"name": "SequentialLR", "interval": "step", "milestones": [steps // 2], "schedulers": parts}


class Rates(pl.Callback):
    """The learning rate of every step."""

    def __init__(self):
        self.found = {}

    def on_train_batch_start(self, trainer, system, batch, batch_idx):
        self.found[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]


def test_a_run_made_longer_has_the_learning_rates_of_a_run_of_that_length(toy_system, tmp_path):
    whole, rest = Rates(), Rates()
    fit(toy_system(scheduler=schedule_for(16)), tmp_path / "whole", True, seed=0, max_steps=16, more=[whole])
    fit(toy_system(scheduler=schedule_for(8)), tmp_path / "short", True, seed=0, max_steps=8)
    longer = toy_system(resumed=True, scheduler=schedule_for(16))
    fit(longer, tmp_path / "long", True, 9, str(tmp_path / "short" / "end.ckpt"), max_steps=16, more=[rest])
    assert rest.found == {step: whole.found[step] for step in range(8, 16)}  # to the last bit
    assert whole.found[8] > 2 * whole.found[15]  # the short run had ended near the latter


def test_a_changed_learning_rate_counts_from_the_checkpoint_on(toy_system, tmp_path):
    rates = Rates()
    fit(toy_system(scheduler=None), tmp_path / "a", True, seed=0, max_steps=4)
    changed = toy_system(resumed=True, scheduler=None, optimizer={"name": "Adam", "args": {"lr": 0.25}})
    fit(changed, tmp_path / "b", True, 0, str(tmp_path / "a" / "end.ckpt"), max_steps=6, more=[rates])
    assert rates.found == {4: 0.25, 5: 0.25}


def test_without_the_callback_it_is_not(toy_system, tmp_path):
    """Shows that the test above can fail, and that Lightning alone does not do it."""
    whole = fit(toy_system(), tmp_path / "whole", False, seed=0)
    history, _ = killed_and_resumed(toy_system, tmp_path / "killed", False)
    assert history[:8] == whole.history[:8]
    assert all(a["azimuth"] != b["azimuth"] for a, b in zip(history[8:], whole.history[8:], strict=True))


def test_looking_at_the_run_does_not_change_it(toy_system, tmp_path):
    with_validation = fit(toy_system(), tmp_path / "a", True, seed=0)
    without = fit(toy_system(), tmp_path / "b", True, seed=0, validate=False)
    assert with_validation.history == without.history


def test_the_camera_of_a_step_is_drawn_one_step_ahead(toy_system, tmp_path):
    """The order that Lightning gives threestudio's endless dataset: cameras 0 and 1, noise 0, camera 2, noise 1, ..."""
    system = fit(toy_system(), tmp_path, True, seed=3, validate=False)
    module = cameras()
    module.setup("fit")
    dataset = module.train_dataset
    set_rng_state(system.start)
    stream = iter(module.train_dataloader())
    waiting = next(stream)
    for record in system.history:
        batch, waiting = waiting, next(stream)
        assert record["azimuth"] == batch["azimuth"].tolist() and record["elevation"] == batch["elevation"].tolist()
        dataset.update_step(0, record["step"])
        torch.rand_like(batch["rays_d"][..., 0])  # the step's noise


def test_checkpoints_hold_plain_data(toy_system, tmp_path):
    fit(toy_system(), tmp_path, True, seed=0)
    checkpoint = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    saved = checkpoint[KEY]
    assert saved["updated_at"] == (0, 3) and len(saved["waiting"]) == 1
    assert saved["waiting"][0][0]["rays_d"].shape == (2, 4, 4, 3)


def test_generators_round_trip():
    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()

    random.gauss(0, 1), np.random.randn()  # both keep a second normal number back
    state = rng_state()
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first
