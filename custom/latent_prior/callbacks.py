"""What launch.py adds to Lightning's loop: progress with time left, the run's origin, and a clean way out."""

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from latent_prior.run_folder import Interrupted


class Progress(pl.Callback):
    """One bar for training, with steps per second and time left, and one for the turntable."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def _open(self, label: str, total: int | None, done: int = 0, unit: str = "step") -> None:
        self._close()
        self.bar = tqdm(
            total=total, initial=done, desc=label, unit=unit, dynamic_ncols=True, mininterval=0.5, file=sys.stderr
        )

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open("train", trainer.max_steps if trainer.max_steps > 0 else None, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.bar.update(trainer.global_step - self.bar.n)
        if "train/loss" in trainer.callback_metrics and trainer.global_step % 10 == 0:
            self.bar.set_postfix(loss=f"{trainer.callback_metrics['train/loss'].item():.3g}", refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        label, unit = getattr(pl_module, "test_progress", ("turntable", "view"))
        self._open(label, sum(trainer.num_test_batches), unit=unit)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.bar.update()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()


class OnFirstStep(pl.Callback):
    """Calls `action` when training begins: everything has been built and checked by then."""

    def __init__(self, action: Callable[[], None]):
        self._action = action

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._action()


class SaveOnInterrupt(pl.Callback):
    """On Ctrl-C or SIGTERM finish the step, save `last.ckpt`, and leave by `Interrupted`; a second one leaves at once.

    Outside of the main thread, where Python takes no signals, it does nothing.
    """

    def __init__(self, folder: Path):
        self.checkpoint = folder / "last.ckpt"
        self._asked = False
        self._previous: dict[int, Any] = {}

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        print("\nInterrupted: saving after this step (once more to leave at once) ...", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if self._asked:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(self.checkpoint)
            raise Interrupted(self.checkpoint)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._previous = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()
