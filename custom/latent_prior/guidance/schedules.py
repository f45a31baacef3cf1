"""Options of a guidance's config that may change over training: schedules, and switches."""

from typing import Any

from omegaconf import OmegaConf

from latent_prior import OptionError, host
from latent_prior.host.embedded.scalars import C_max


def scheduled(name: str, value: Any, epoch: int, global_step: int) -> float:
    """The value of the option `name`, a number or a schedule, at a step of training. Raises OptionError naming it."""
    try:
        C_max(value)  # checks all of it; threestudio's C looks at one piece only
        # threestudio's takes no plain list
        return host.C(OmegaConf.create(value) if isinstance(value, list) else value, epoch, global_step)
    except (ValueError, TypeError, AssertionError, ZeroDivisionError) as error:  # threestudio's raises the latter three
        raise OptionError(name, value, f"a number or a schedule: {error}") from error


def switched_on(name: str, value: Any, epoch: int, global_step: int) -> bool:
    """Whether the switch `name` is on: true, or a number or a schedule that is above 0 now."""
    return value if isinstance(value, bool) else scheduled(name, value, epoch, global_step) > 0


def ever_on(name: str, value: Any) -> bool:
    """Whether the switch `name` is on at any moment of training."""
    return switched_on(name, value, 0, 0) or C_max(value) > 0
