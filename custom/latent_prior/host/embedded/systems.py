"""Systems: what Lightning trains. BaseSystem is the common base; BaseLift3DSystem adds a field and its renderer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.host.embedded.base import Updateable, update_end_if_possible, update_if_possible
from latent_prior.host.embedded.config import full_key, parse_structured
from latent_prior.host.embedded.misc import load_module_weights
from latent_prior.host.embedded.optimizers import parse_optimizer, parse_scheduler
from latent_prior.host.embedded.saver import SaverMixin
from latent_prior.host.embedded.scalars import C


class BaseSystem(pl.LightningModule, Updateable, SaverMixin):
    """Optimiser, schedules, checkpoints, and the updates before and after every batch.

    resumed: training continues from a checkpoint, whose weights Lightning loads after construction.
    """

    @dataclass
    class Config:
        loggers: dict = field(default_factory=dict)  # {wandb: {enable, project, name}} turns on Weights & Biases
        loss: dict = field(default_factory=dict)  # weights of the loss terms, {lambda_X: number or schedule}
        optimizer: dict = field(default_factory=dict)  # {name, args, params}, see optimizers.py
        scheduler: dict | None = None  # {name, args, interval}, see optimizers.py; None: a constant learning rate
        weights: str | None = None  # checkpoint to load weights from (non-strict); None: start afresh
        weights_ignore_modules: list[str] | None = None  # modules of that checkpoint to leave out; None: none

    cfg: Config

    def __init__(self, cfg: dict | DictConfig, resumed: bool = False) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self._save_dir: str | None = None
        self._resumed = resumed
        self._eval_moment: tuple[int, int] | None = None  # (epoch, step) of a checkpoint that is only evaluated
        self.create_loggers(self.cfg.loggers)
        self.configure()
        if self.cfg.weights is not None:
            self.load_weights(self.cfg.weights, self.cfg.weights_ignore_modules)
        self.post_configure()

    def load_weights(self, weights: str, ignore_modules: Sequence[str] | None = None) -> None:
        """Load a checkpoint's weights for the modules that exist here, and its moment of training."""
        key = full_key(self.cfg, "weights")
        try:
            state, epoch, global_step = load_module_weights(weights, list(ignore_modules or ()))
            for name, mine in self.state_dict().items():
                if name in state and state[name].is_floating_point() != mine.is_floating_point():
                    raise OptionError.because(f"{weights!r}: its {name} is {state[name].dtype}, expected {mine.dtype}")
            self.load_state_dict(state, strict=False)
        except OptionError as error:
            raise OptionError.because(str(error), key) from error
        except RuntimeError as error:  # shapes of another config
            reason = shown(" ".join(str(error).split()), 150)
            raise OptionError.because(f"{weights!r} does not fit: {reason}", key) from error
        self.do_update_step(epoch, global_step, on_load_weights=True)

    def set_resume_status(self, current_epoch: int, global_step: int) -> None:
        """Set the moment of training for an evaluation, where Lightning's own counters stay at zero."""
        self._eval_moment = (current_epoch, global_step)

    @property
    def resumed(self) -> bool:
        """Whether training continues from a checkpoint."""
        return self._resumed

    @property
    def true_global_step(self) -> int:
        """The number of optimiser steps that the current weights have had."""
        return self._eval_moment[1] if self._eval_moment is not None else self.global_step

    @property
    def true_current_epoch(self) -> int:
        """The epoch of the current weights."""
        return self._eval_moment[0] if self._eval_moment is not None else self.current_epoch

    def configure(self) -> None:
        """Override: build the parts."""

    def post_configure(self) -> None:
        """Override: work that has to wait until `weights` are loaded."""

    def C(self, value: Any) -> float:
        """A scheduled scalar at the current moment."""
        return C(value, self.true_current_epoch, self.true_global_step)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = parse_optimizer(self.cfg.optimizer, self)
        if self.cfg.scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": parse_scheduler(self.cfg.scheduler, optimizer)}

    def preprocess_data(self, batch: dict, stage: str) -> None:
        """Override: modify a batch in place; stage is train, validation, test or predict."""

    def _before_batch(self, batch: Any, stage: str, loader: Any) -> None:
        self.preprocess_data(batch, stage)
        self.dataset = loader.dataset
        update_if_possible(self.dataset, self.true_current_epoch, self.true_global_step)
        self.do_update_step(self.true_current_epoch, self.true_global_step)

    def _after_batch(self, loader: Any) -> None:
        self.dataset = loader.dataset
        update_end_if_possible(self.dataset, self.true_current_epoch, self.true_global_step)
        self.do_update_step_end(self.true_current_epoch, self.true_global_step)

    def on_train_batch_start(self, batch: Any, batch_idx: int, unused: int = 0) -> None:
        self._before_batch(batch, "train", self.trainer.train_dataloader)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._after_batch(self.trainer.train_dataloader)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._before_batch(batch, "validation", self.trainer.val_dataloaders)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._after_batch(self.trainer.val_dataloaders)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._before_batch(batch, "test", self.trainer.test_dataloaders)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._after_batch(self.trainer.test_dataloaders)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._before_batch(batch, "predict", self.trainer.predict_dataloaders)

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._after_batch(self.trainer.predict_dataloaders)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Override: the loss of a batch, as {"loss": scalar}."""
        raise NotImplementedError(f"{type(self).__name__} has no training_step")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Override: render a validation view."""
        raise NotImplementedError(f"{type(self).__name__} has no validation_step")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Override: render a test view."""
        raise NotImplementedError(f"{type(self).__name__} has no test_step")

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Override: work done per test view on export."""
        raise NotImplementedError(f"{type(self).__name__} has no predict_step")
