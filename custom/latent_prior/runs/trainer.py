"""The Lightning trainer of a run: its arguments from the config, its callbacks and its loggers."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from latent_prior import OptionError, host
from latent_prior.files.refusals import naming
from latent_prior.host import ranks
from latent_prior.host.embedded.arguments import check_arguments
from latent_prior.runs.callbacks import AfterFirstStep, Progress, SaveOnInterrupt
from latent_prior.runs.checkpoint import WholeCheckpoints
from latent_prior.runs.csv_log import WholeCSVLogger
from latent_prior.runs.finite import FiniteNumbers
from latent_prior.runs.resume import ExactResume


def build(folder: Path, cfg: Any, system: Any, begin: Callable[[], None], trains: bool, on_gpu: bool) -> pl.Trainer:
    """The trainer of the run in `folder`; `begin` is called after the first step. OptionError for a bad argument.

    It is for the processes that have met (processes.py), or for one alone.
    """
    given = _trainer_arguments(cfg.trainer, on_gpu)
    several = ranks.world() > 1
    if not several:
        given.pop("num_nodes", None)
    shown = given.pop("enable_progress_bar", True)
    callbacks = _callbacks(folder / "ckpts", cfg, begin) if trains else []
    ours = {
        "callbacks": [*([Progress()] if shown else []), *callbacks, FiniteNumbers()],
        "logger": trains and _loggers(folder, system),
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": cfg.n_gpus if several else 1,
        # what SLURM or torchrun say is looked at where the processes meet
        "plugins": [WholeCheckpoints(), LightningEnvironment()],
        "inference_mode": False,
        "enable_progress_bar": bool(shown),
    }
    if several:
        # validation is done by all, of all views, so that they stay together; the first writes
        strategy = DDPStrategy(find_unused_parameters=getattr(system, "leaves_unused", True))
        ours |= {"strategy": strategy, "use_distributed_sampler": False}
    return _built(pl.Trainer, "trainer", ours, {"enable_model_summary": False} | given)


def _callbacks(folder: Path, cfg: Any, begin: Callable[[], None]) -> list[Any]:
    return [
        AfterFirstStep(begin),
        ExactResume(),
        # with the counter a resumed run would write `last-v1.ckpt` beside a `last.ckpt` that grows old
        _built(
            ModelCheckpoint,
            "checkpoint",
            {"dirpath": str(folder)},
            {"enable_version_counter": False} | host.config_to_primitive(cfg.checkpoint),
        ),
        LearningRateMonitor(logging_interval="step"),
        SaveOnInterrupt(folder),
    ]


def _loggers(folder: Path, system: Any) -> list[Any]:
    return [
        _TensorBoard(str(folder), name="tb_logs"),
        WholeCSVLogger(str(folder), name="csv_logs", flush_logs_every_n_steps=1),
        *system.get_loggers(),
    ]


class _TensorBoard(TensorBoardLogger):
    """Lightning's logger, which calls a write that the system refuses a bad value."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        with naming(Path(self.log_dir)):
            super().log_metrics(metrics, step)

    def finalize(self, status: str) -> None:
        with contextlib.suppress(*[OSError] if status != "success" else []):  # it would hide why the run failed
            super().finalize(status)


def _built(cls: type, key: str, ours: dict[str, Any], given: dict[str, Any]) -> Any:
    """cls(**ours, **given), with what is wrong in `given` reported under its config key."""
    if taken := sorted(ours.keys() & given.keys()):
        raise OptionError.because(
            f"{key}.{taken[0]}: this is set for every run (GPUs by --gpu); remove it from the config"
        )
    check_arguments(cls, given, key, ours)
    try:
        return cls(**ours, **given)
    except (TypeError, ValueError, MisconfigurationException) as error:
        values = ", ".join(f"{key}.{name}={value!r}" for name, value in given.items())
        raise OptionError.because(f"{error} (got {values})", key) from error


def _trainer_arguments(cfg: Any, on_gpu: bool) -> dict[str, Any]:
    """Lightning's arguments from the config; half precision means nothing without a GPU."""
    arguments = host.config_to_primitive(cfg)
    if arguments.get("val_check_interval") == 0:
        raise OptionError("trainer.val_check_interval", 0, "a number of steps, or a fraction of an epoch, above 0")
    if not on_gpu and str(arguments.get("precision", 32)).startswith(("16", "bf16")):
        host.warn(f"trainer.precision={arguments['precision']} needs a GPU: training in float32")
        arguments["precision"] = "32-true"
    clip = arguments.get("gradient_clip_val")
    if isinstance(clip, int | float) and clip < 0:
        raise OptionError("trainer.gradient_clip_val", clip, "a number of at least 0, or null; 0 and null do not clip")
    return arguments
