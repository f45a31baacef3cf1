"""How a run ends early: in words for what the user can mend, and with what is worth keeping.

`experiment` is the run in progress, runs/experiment.py's.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.files.refusals import NotWritten, denial
from latent_prior.runs import folder as run_folder
from latent_prior.runs.folder import Interrupted, Stopped


@contextmanager
def in_our_words(experiment: Any) -> Iterator[None]:
    """Early ends of a run: user errors become OptionErrors, signals become Interrupted or KeyboardInterrupt.

    A run that took no step leaves no folder behind.
    """
    from latent_prior.host import ranks

    trains = "train" in experiment.modes
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the latter of the former
        if experiment.began and experiment.last.is_file():
            raise Interrupted(experiment.last) from None
        if not experiment.began:
            experiment.release(remove=True)
        if trains and experiment.claim is not None and not experiment.claim.fresh:  # resumed, but no step was done
            raise Interrupted(Path(experiment.cfg.resume)) from None
        raise KeyboardInterrupt from None
    except Exception as error:
        refused = refusal(error, experiment)
        if not experiment.began and (trains or refused):
            experiment.release(remove=True)
        if refused is None or (refused is error and isinstance(refused, Stopped)):
            raise
        if experiment.began and ranks.is_first():
            kind = type(refused) if isinstance(refused, Stopped) else Stopped
            raise kind.because(f"{refused}; {_kept(experiment)}") from error
        if refused is error:
            raise
        raise refused from error


def _kept(experiment: Any) -> str:
    """What a run that stopped has saved, and how to continue."""
    if not (experiment.folder / "configs" / run_folder.PARSED).is_file():
        return "the run cannot be continued"
    try:
        step = run_folder.last_step(experiment.folder)
    except OSError as error:
        return f"its checkpoints cannot be read now ({error.strerror}); later: latent-prior resume {experiment.folder}"
    if not step:
        return f"it has no checkpoint yet, and {experiment.folder} holds what was written so far"
    return f"its checkpoint of step {step} is kept; continue with: latent-prior resume {experiment.folder}"


def refusal(error: Exception, experiment: Any) -> OptionError | None:
    """A user error from our code, Lightning or threestudio, as an OptionError; None for any other error."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from latent_prior import host
    from latent_prior.runs import processes

    if processes.is_loss(error):
        return processes.Lost.because(processes.loss())
    if experiment.began and not (experiment.folder / "configs").is_dir():
        return NotWritten.because(f"the run folder {experiment.folder} was removed while the run wrote to it")
    if isinstance(error, OptionError):
        return error
    if isinstance(error, MisconfigurationException):
        return OptionError.because(str(error), "trainer")
    if isinstance(error, OSError):
        # of a file that the error does not name, as where the logs are written: it is in the run's folder
        unnamed = experiment.claim is not None and not error.filename
        return denial(error, experiment.folder if unnamed else None) or host.refusal(error)
    return host.shortage(error) or host.refusal(error)


@contextmanager
def without_new_logs(experiment: Any) -> Iterator[None]:
    """Loggers begin a log before training does: an error before the first step takes it back."""
    from latent_prior.host import ranks

    before, first = set(experiment.folder.glob("*_logs/*")), ranks.is_first()
    try:
        yield
    except BaseException:
        if first and not experiment.began:
            for log in set(experiment.folder.glob("*_logs/*")) - before:
                shutil.rmtree(log, ignore_errors=True)
        raise
