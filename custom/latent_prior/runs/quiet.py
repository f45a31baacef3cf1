"""Silences Lightning and transformers during a run."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NOISE = (
    ".*does not have many workers.*",
    ".*`IterableDataset` has `__len__`.*",
    ".*isinstance.treespec.*",
    "predict returned None.*",
    ".*exists and is not empty.*",
    ".*callbacks used to create the checkpoint.*",
    ".*dirpath has changed.*",
    ".*`srun` command is available.*",
)
NOISY_LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.checkpoint_connector",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages about our own choices: workers, dataset sizes, available hardware.

    Only during a run: a program that calls `run` keeps its own filters.
    """
    # loading a checkpoint is quick, and its progress bars take many lines
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category)
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        for logger in loggers:
            logger.addFilter(_not_noise)
        hook, threading.excepthook = threading.excepthook, _not_raised_again(threading.excepthook)
        try:
            yield
        finally:
            threading.excepthook = hook
            for logger in loggers:
                logger.removeFilter(_not_noise)
            transformers_logging.set_verbosity(verbosity)
            if bars:
                transformers_logging.enable_progress_bar()


def _not_raised_again(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """`hook`, but not for TensorBoard's thread: what it could not write is raised at the next call as well."""

    def shown(args: Any) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread" or not issubclass(args.exc_type, OSError):
            hook(args)

    return shown


def _not_noise(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(
        ("GPU available", "TPU available", "HPU available", "💡", "`weights_only`")
    )
