"""Exact resuming: a run that is killed and resumed follows the same trajectory as an uninterrupted one.

Our checkpoints store, under `KEY`, what Lightning leaves out:

* the states of the random number generators (Python's, NumPy's, torch's on the CPU and on every GPU);
* the prefetched batch. Lightning's fetcher keeps one batch of an endless dataset ready: batch k + 1 is drawn, and its
  random numbers are consumed, before step k runs. A resumed run would draw it again from states after that draw;
* the moment of the dataset's last update, because the batch after that one is drawn before the next update;
* what the guidance itself learns: the LoRA of variational score distillation.

Of several processes each has its own: then the entry is {"ranks": [one such entry each]}. A run that goes on with
another number of processes has another batch, and so another trajectory, and says so: each process takes the entry of
its rank, and one that has none draws anew.

Lightning restores the learning rate and its schedule, but they should come from the config, at the values that a run
with this config would have at this step. With the same config that changes nothing; with another `trainer.max_steps`
the schedule is the one for that many steps, and another learning rate applies from here on.

The trajectory is the same to the bit on the same machine with the same number of threads; with another number, sums
round differently, and a resumed run says so (runs/experiment.py).

Validation may run between a checkpoint and the next step, and a resumed run skips it. So the random states are restored
after validation: the trajectory does not depend on how often validation runs.

Everything saved is plain containers and tensors, readable with `weights_only=True`.
"""

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from latent_prior import OptionError, host
from latent_prior.host import ranks

KEY = "latent_prior_resume"


def rng_state() -> dict[str, Any]:
    """The states of all global random number generators."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device) for device in _gpus()],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the global random number generators to a state from `rng_state`.

    GPU states are set for the GPUs present: a checkpoint from another machine loads, but results are not bit-identical.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    for device, cuda_state in zip(_gpus(), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda_state.cpu(), device)


def _gpus() -> range:
    """The GPUs that this process may use; of several processes each has its own."""
    if not torch.cuda.is_available():
        return range(0)
    own = torch.cuda.current_device() if ranks.world() > 1 else None
    return range(torch.cuda.device_count()) if own is None else range(own, own + 1)


def states_in(entry: dict[str, Any]) -> list:
    """The states of all processes in a checkpoint's entry."""
    return entry.get("ranks", [entry])


def require_rng_state(state: dict[str, Any]) -> None:
    """Raise whatever `set_rng_state` does for a state that cannot be set; the generators stay as they are."""
    if not 0 <= state["numpy"][2] <= 624:  # NumPy would read elsewhere
        raise ValueError(f"NumPy's generator has 624 numbers, expected a place among them, got {state['numpy'][2]}")
    before = rng_state()
    try:
        set_rng_state(state)
    finally:
        set_rng_state(before)


def alike(batch: Any, drawn: Any) -> bool:
    """Whether a batch from a checkpoint is made like one that was just drawn, of whatever size."""
    if isinstance(drawn, Tensor):
        return isinstance(batch, Tensor) and (batch.dtype, batch.ndim) == (drawn.dtype, drawn.ndim)
    if isinstance(drawn, dict):
        return (
            isinstance(batch, dict) and batch.keys() == drawn.keys() and all(alike(batch[k], drawn[k]) for k in drawn)
        )
    if isinstance(drawn, list | tuple):
        return isinstance(batch, list | tuple) and len(batch) == len(drawn) and all(map(alike, batch, drawn))
    return isinstance(batch, type(drawn))


def renew_schedules(trainer: pl.Trainer, system: pl.LightningModule) -> None:
    """Give optimisers and schedules the settings of the system's config, at their current step.

    A system with several optimisers, or a schedule that follows a metric, keeps the state from its checkpoint.
    """
    fresh = system.configure_optimizers()
    if not isinstance(fresh, dict) or len(trainer.optimizers) != 1:
        return
    schedule = fresh.get("lr_scheduler")
    if isinstance(schedule, dict):
        schedule = schedule["scheduler"]
    if schedule is not None and len(trainer.lr_scheduler_configs) == 1:
        restored = trainer.lr_scheduler_configs[0].scheduler
        if isinstance(restored, ReduceLROnPlateau):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about schedule steps without optimiser steps in between
            for _ in range(_steps_of(restored)):
                schedule.step()
        restored.load_state_dict(schedule.state_dict())
    for group, renewed in zip(trainer.optimizers[0].param_groups, fresh["optimizer"].param_groups, strict=True):
        group.update({key: value for key, value in renewed.items() if key != "params"})


def _steps_of(schedule: Any) -> int:
    """How often a schedule was stepped; a compound schedule counts by its parts."""
    return schedule.last_epoch if hasattr(schedule, "last_epoch") else _steps_of(schedule._schedulers[0])


class ExactResume(pl.Callback):
    """Saves the state needed for resuming in every checkpoint, and restores it around the first step of a resumed run.

    Needed in the run that writes the checkpoint and in the run that resumes it; a checkpoint without our entry resumes
    as in plain Lightning. A checkpoint that is written within a step, before its optimiser, is of the last whole step.
    """

    def __init__(self) -> None:
        self._resumed = False
        # outside of training: loaded from a checkpoint, or the end of training
        self._saved: dict[str, Any] | None = None
        self._updated_at: tuple[int, int] | None = None
        self._after_step: dict[str, Any] | None = None  # the same, as the last whole step left it
        # that step's, which the next one begins by changing
        self._buffers: dict[str, Tensor] = {}
        self._loop: dict[str, Any] = {}
        self._guidance: Any = None  # one that may learn

    def _snapshot(self, trainer: pl.Trainer) -> dict[str, Any]:
        # copied, because a system may add to a batch before its step
        waiting = [copy.copy(batch) for batch in getattr(trainer.fit_loop._data_fetcher, "batches", [])]
        state = {"rng": rng_state(), "waiting": waiting, "updated_at": self._updated_at}
        learned = self._guidance.state_dict() if self._guidance is not None else {}
        return state | ({"guidance": learned} if learned else {})

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        states = ranks.gathered(self._saved or self._after_step or self._snapshot(trainer))
        checkpoint[KEY] = states[0] if len(states) == 1 else {"ranks": states}
        checkpoint["state_dict"] |= self._buffers
        if self._loop and checkpoint["epoch"] == self._updated_at[0]:  # else the epoch has ended since
            checkpoint["loops"]["fit_loop"] = self._loop

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        self._resumed = True
        if KEY not in checkpoint:
            return
        states = states_in(checkpoint[KEY])
        if len(states) != ranks.world():
            host.warn(
                f"{trainer.ckpt_path} is of {len(states)} processes, and the run continues with {ranks.world()}: results "
                "differ from those of an uninterrupted run"
            )
        own = states[ranks.rank()] if ranks.rank() < len(states) else states[0] | {"rng": rng_state(), "waiting": []}
        self._saved = own

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        guidance = getattr(pl_module, "guidance", None)
        self._guidance = guidance if hasattr(guidance, "load_state_dict") else None
        if self._guidance is not None and self._saved is not None and "guidance" in self._saved:
            self._guidance.load_state_dict(self._saved["guidance"])
        if self._resumed:
            renew_schedules(trainer, pl_module)
        if self._saved is None:
            return
        if self._saved["waiting"]:
            fetcher = trainer.fit_loop._data_fetcher
            for batch, drawn in zip(self._saved["waiting"], fetcher.batches, strict=False):
                if not alike(batch, drawn):
                    raise OptionError.because(
                        f"{str(trainer.ckpt_path)!r} cannot be resumed from: the batch in its {KEY} is not one of this "
                        "config's data",
                        "resume",
                    )
            fetcher.batches = list(self._saved["waiting"])
        dataset = trainer.train_dataloader.dataset
        if self._saved["updated_at"] is not None and hasattr(dataset, "do_update_step"):
            dataset.do_update_step(*self._saved["updated_at"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._saved is not None:
            # Lightning uses random numbers between on_train_start and here, and there is no hook between that and the
            # fetcher's next draw: so that draw is repeated
            set_rng_state(self._saved["rng"])
            fetcher = trainer.fit_loop._data_fetcher
            if self._saved["waiting"]:
                fetcher.batches[-1] = next(fetcher.iterator)
            self._saved = None
        self._updated_at = (pl_module.current_epoch, pl_module.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._after_step = self._snapshot(trainer)  # now, because Lightning draws before on_validation_start
        kept = pl_module.state_dict().keys()
        self._buffers = {name: value.clone() for name, value in pl_module.named_buffers() if name in kept}
        self._loop = trainer.fit_loop.state_dict()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._after_step is not None:
            set_rng_state(self._after_step["rng"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = self._snapshot(trainer)  # for checkpoints after `fit`, which releases the prefetched batch
        self._buffers, self._loop = {}, {}
