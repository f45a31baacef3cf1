"""Options of a guidance's config that may change over training: schedules, switches, and names by step."""

from typing import Any

from omegaconf import ListConfig, OmegaConf

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


def named(name: str, value: Any, global_step: int) -> str:
    """The name that the option `name` has at a step: one for all, or names and the steps at which they change.

    [sds, 125, csd] is sds up to step 124, then csd. Raises OptionError for anything else.
    """
    names, steps = names_and_steps(name, value)
    return [some for some, start in zip(names, steps, strict=True) if start <= global_step][-1]


def names_and_steps(name: str, value: Any) -> tuple[list[str], list[int]]:
    """The names that an option has in turn, and the step from which each holds."""
    if isinstance(value, str):
        return [value], [0]
    given = list(value) if isinstance(value, list | tuple | ListConfig) else []
    names, steps = given[::2], [0, *given[1::2]]
    whole = all(type(step) is int for step in steps) and all(isinstance(some, str) for some in names)
    if len(names) != len(steps) or not whole or steps != sorted(set(steps)):
        raise OptionError(name, value, "a name, or names with the steps at which they change: [sds, 125, csd]")
    return names, steps
