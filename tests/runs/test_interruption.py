"""Signals at every place of a training step: what is saved is a whole step, and the run goes on from it to the bit."""

import csv
import os
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from flattened import flat
from latent_prior.host.embedded.cameras import RandomCameraDataModule, RandomCameraIterableDataset
from latent_prior.runs.callbacks import SaveOnInterrupt
from latent_prior.runs.checkpoint import WholeCheckpoints
from latent_prior.runs.folder import Interrupted
from latent_prior.runs.resume import ExactResume
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from toys import ToySystem, config_with

STEPS, VALIDATE_EVERY = 9, 3
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("does not have many workers", "exists and is not empty", "The dirpath has changed", ".*treespec")
]


class Harsh(ToySystem):
    """What a checkpoint in mid-step could get wrong: a buffer that each step begins by changing, a batch that the step
    takes apart, and validation between the steps."""

    def configure(self):
        super().configure()
        self.register_buffer("seen", torch.zeros(()))
        self.validated = []

    def update_step(self, epoch, global_step, on_load_weights=False):
        if self.training and not on_load_weights:
            self.seen += 1 + global_step / 7

    def training_step(self, batch, batch_idx):
        batch["rays_d"] = batch.pop("rays_d") + self.seen / 100
        out = super().training_step(batch, batch_idx)
        self.log("train/loss", out["loss"])
        return out

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.true_global_step)
        super().validation_step(batch, batch_idx)


# what is called there, which of its calls is struck, and the steps that one signal there leaves, and that two leave
PLACES = {
    "as a step begins": (Harsh, "update_step", 8, 6, 5),  # four of the calls are validation's
    "in the forward pass": (ToySystem, "training_step", 5, 5, 4),
    "before the backward pass": (Harsh, "backward", 5, 5, 4),
    "after the backward pass": (Harsh, "on_after_backward", 5, 5, 4),
    "in the optimiser": (Harsh, "optimizer_step", 5, 5, 4),
    "after the optimiser": (Harsh, "lr_scheduler_step", 5, 5, 5),
    "as a step ends": (SaveOnInterrupt, "on_train_batch_end", 5, 5, 5),
    "as a batch is fetched": (RandomCameraIterableDataset, "collate", 6, 4, 4),
    "in validation": (Harsh, "validation_step", 3, 6, 6),
    "while a checkpoint is written": (WholeCheckpoints, "save_checkpoint", 5, 5, 5),
    "in the last step": (ToySystem, "training_step", STEPS, STEPS, STEPS - 1),
    "in the last validation": (Harsh, "validation_step", 2 * STEPS // VALIDATE_EVERY, STEPS, STEPS),
    "at the end": (SaveOnInterrupt, "on_train_end", 1, STEPS, STEPS),
}


def strike(patch, place, signals):
    owner, name, call, *steps = PLACES[place]
    original, calls = getattr(owner, name), []

    def struck(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            for number in signals:
                os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    patch.setattr(owner, name, struck)
    return steps[0] if len(signals) == 1 else steps[1]


def fit(folder: Path, resume: Path | None = None, seed: int = 0) -> Harsh:
    """Train in `folder`, with a checkpoint of every step in `every/`."""
    pl.seed_everything(seed, verbose=False)
    system = Harsh(OmegaConf.create({"system": config_with()}).system, resumed=resume is not None)
    sizes = {"height": 4, "width": 4, "batch_size": 2, "eval_height": 4, "eval_width": 4, "n_val_views": 2}
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=CSVLogger(str(folder), name="csv_logs", flush_logs_every_n_steps=1),
        log_every_n_steps=1,
        callbacks=[
            ExactResume(),
            ModelCheckpoint(dirpath=folder / "every", every_n_train_steps=1, save_top_k=-1, filename="{step}"),
            SaveOnInterrupt(folder),
        ],
        plugins=[WholeCheckpoints()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=VALIDATE_EVERY,
        check_val_every_n_epoch=None,
    )
    trainer.fit(system, datamodule=RandomCameraDataModule(sizes), ckpt_path=resume, weights_only=resume and True)
    return system


def rows(folder: Path) -> dict[int, str]:
    """The logged loss of every step; of a resumed run, those of all its sessions."""
    found = {}
    for file in sorted(folder.glob("csv_logs/*/metrics.csv")):
        with file.open(newline="") as f:
            found |= {int(row["step"]): row["train/loss"] for row in csv.DictReader(f) if row.get("train/loss")}
    return found


def content(path: Path) -> dict:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["callbacks"]  # ModelCheckpoint's paths
    return flat(checkpoint)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was left alone, and its system."""
    with pytest.MonkeyPatch.context() as patch:
        register_toys(patch)
        folder = tmp_path_factory.mktemp("whole")
        return folder, fit(folder)


def register_toys(patch):
    from latent_prior.host.embedded import registry
    from toys import ToyExporter, ToyGeometry, ToyPart, ToyRenderer

    toys = {"toy-geometry": ToyGeometry, "toy-part": ToyPart, "toy-renderer": ToyRenderer, "toy-exporter": ToyExporter}
    patch.setattr(registry, "__modules__", {**registry.__modules__, **toys})


@pytest.mark.parametrize(
    "signals",
    [(HUP, INT), *(pytest.param(some, marks=pytest.mark.slow) for some in ((INT,), (TERM,), (HUP, INT, TERM, INT)))],
    ids=lambda some: "-".join(signal.Signals(number).name for number in some),
)
@pytest.mark.parametrize("place", PLACES)
def test_wherever_signals_fall_a_whole_step_is_saved_and_resumed(
    whole, toy_types, tmp_path, monkeypatch, place, signals
):
    folder, untouched = whole
    before = {number: signal.getsignal(number) for number in (INT, TERM, HUP)}
    with monkeypatch.context() as patch:
        step = strike(patch, place, signals)
        with pytest.raises((Interrupted, SystemExit)):
            fit(tmp_path)
    assert {number: signal.getsignal(number) for number in before} == before
    saved = content(tmp_path / "last.ckpt")
    assert saved == content(folder / ("last.ckpt" if saved["/epoch"] else f"every/step={step}.ckpt"))
    resumed = fit(tmp_path, tmp_path / "last.ckpt", seed=99)
    assert resumed.history == untouched.history[step:]
    torch.testing.assert_close(resumed.state_dict(), untouched.state_dict(), rtol=0, atol=0)
    assert rows(tmp_path) == rows(folder)
    assert resumed.validated == [s for s in untouched.validated if s > step]
