"""A run keeps others quiet, and leaves a calling program's own settings as they were."""

import logging
import warnings

import pytest
from latent_prior import OptionError
from latent_prior.runs import experiment
from latent_prior.runs.quiet import NOISY_LOGGERS, quiet
from transformers.utils import logging as transformers_logging


def settings():
    return (
        list(warnings.filters),
        [list(logging.getLogger(name).filters) for name in NOISY_LOGGERS],
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )


def test_a_run_changes_nothing_for_the_program_that_calls_it():
    before = settings()
    for _ in range(2):
        with pytest.raises(OptionError):
            experiment.run([], ["nonsense=1"])
    assert settings() == before


def test_within_a_run_it_is_quiet(recwarn):
    with quiet():
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("The dataloader does not have many workers", UserWarning, stacklevel=1)
        record = logging.LogRecord("x", logging.INFO, "", 0, "GPU available: False", (), None)
        assert not logging.getLogger(NOISY_LOGGERS[0]).filter(record)
    assert not recwarn.list
