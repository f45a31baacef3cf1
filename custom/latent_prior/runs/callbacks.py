"""Callbacks for Lightning's loop: progress with time left, an action after the first step, clean interruption."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm, convert_inf

from latent_prior.files.refusals import NotWritten, denial
from latent_prior.host import ranks
from latent_prior.runs import signals, streams
from latent_prior.runs.folder import Interrupted


class Progress(TQDMProgressBar):
    """One bar for training, with steps per second and time left, and one for the test; none for validation and export."""

    def _bar(self, label: str, total: float | None, unit: str, done: int = 0) -> Tqdm:
        return Tqdm(
            total=convert_inf(total),
            initial=done,
            desc=label,
            unit=unit,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=self.is_disabled,
            file=streams.Stderr(),
        )

    def init_train_tqdm(self) -> Tqdm:
        steps = self.trainer.max_steps
        return self._bar("train", steps if steps > 0 else None, "step", self.trainer.global_step)

    def init_test_tqdm(self) -> Tqdm:
        label, unit = getattr(self.trainer.lightning_module, "test_progress", ("turntable", "view"))
        return self._bar(label, sum(self.trainer.num_test_batches), unit)

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    init_sanity_tqdm = init_predict_tqdm = init_validation_tqdm

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """The bar covers all steps, regardless of epochs."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.train_progress_bar.update(trainer.global_step - self.train_progress_bar.n)
        if trainer.global_step % 10 == 0:  # not every step, because it waits for the GPU
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, str]:
        loss = trainer.callback_metrics.get("train/loss")
        return {} if loss is None else {"loss": f"{loss.item():.3g}"}

    def on_test_batch_start(self, *_: Any, **__: Any) -> None:
        """The bar is already set up."""

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        self.test_progress_bar.update()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        for bar in (self._train_progress_bar, self._test_progress_bar):
            if bar is not None:
                bar.close()


class AfterFirstStep(pl.Callback):
    """Calls `action` once, after the first training step, when everything has been built, checked and run."""

    def __init__(self, action: Callable[[], None]):
        self._action: Callable[[], None] | None = action

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self._action is not None:
            action, self._action = self._action, None
            action()


class SaveOnInterrupt(pl.Callback):
    """Saves `last.ckpt` at the end of training, and on Ctrl-C, SIGTERM or SIGHUP, which raise `Interrupted`.

    The first signal waits for the end of the step, but not for a validation. A second one ends the step at once; what
    is saved then is the last whole step. Further ones change nothing. It is also saved, if it can be, where the system
    refuses to write something else. Outside the main thread, where Python cannot handle signals, only the
    KeyboardInterrupt of others is followed.

    Several processes stop and save together, at the start of the same step, whichever of them has got a signal. Further
    signals, or an error in one of them, cannot save what the others have not got to.
    """

    def __init__(self, folder: Path):
        self.checkpoint = folder / "last.ckpt"
        self._asked = False
        self._busy = False  # with what must not be left half done: an optimiser's step, its logs and checkpoint
        self._whole = 0  # steps finished here
        self._previous: dict[int, Any] = {}

    def _on_signal(self, number: int, frame: Any) -> None:
        alone = ranks.world() == 1
        if self._asked and not self._busy and alone:
            self._busy = True  # now it will be saved
            raise KeyboardInterrupt
        if not self._asked:
            self._asked = True
            again = " (press again to save the last one and exit at once)" if alone else ""
            with contextlib.suppress(OSError, RuntimeError):  # someone else is in the middle of writing there
                print(f"\nInterrupted: saving after this step{again} ...", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._previous = signals.install(self._on_signal)

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._busy = True

    def on_train_batch_end(self, *_: Any) -> None:
        self._whole += 1

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop_if_asked(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        """Here and not as the step ends, so that its losses are logged."""
        self._agree()
        self._busy = self._asked
        if self._asked:
            raise self._saved(trainer) if self._whole else KeyboardInterrupt

    def _agree(self) -> None:
        self._asked = ranks.any_on(self._asked)

    def _saved(self, trainer: pl.Trainer) -> Interrupted:
        trainer.save_checkpoint(self.checkpoint)
        return Interrupted(self.checkpoint)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._busy = True
        stop = self._saved(trainer)
        self._agree()
        signals.restore(self._previous)
        if self._asked:
            raise stop

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lightning restores the handlers after this; until then further signals change nothing."""
        refused = isinstance(exception, NotWritten) or denial(exception) is not None
        if ranks.world() > 1:
            return
        if (refused or isinstance(exception, KeyboardInterrupt)) and self._whole:
            with contextlib.suppress(*[NotWritten] if refused else []):
                self._saved(trainer)
