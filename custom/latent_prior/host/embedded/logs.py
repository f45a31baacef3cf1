"""Messages of the host, on rank 0 only, through the logger that Lightning sets up."""

import logging
import os

_logger = logging.getLogger("pytorch_lightning")


def get_rank() -> int:
    """This process's rank by its environment, also before it has met the others (host/ranks.py).

    LOCAL_RANK precedes SLURM_PROCID, which is set outside of SLURM's multiprocessing too.
    """
    for variable in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        if variable in os.environ:
            return int(os.environ[variable])
    return 0


def _log(level: int, message: str, *args) -> None:
    if get_rank() == 0:
        _logger.log(level, message, *args)


def debug(message: str, *args) -> None:
    """Log a message that is shown only with `--verbose`."""
    _log(logging.DEBUG, message, *args)


def info(message: str, *args) -> None:
    """Log a message for the user."""
    _log(logging.INFO, message, *args)


def warn(message: str, *args) -> None:
    """Log a problem that does not stop the run."""
    _log(logging.WARNING, message, *args)
