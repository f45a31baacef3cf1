"""Options of a guidance's config that may change over training: schedules, and switches."""

from typing import Any

from latent_prior import OptionError, host


def scheduled(name: str, value: Any, epoch: int, global_step: int) -> float:
    """The value of `system.guidance.<name>`, a number or a schedule, at a moment. Raises ValueError naming the key."""
    try:
        return host.C(value, epoch, global_step)
    except (ValueError, TypeError, AssertionError) as error:  # threestudio's own raises the latter two
        raise OptionError.because(f"system.guidance.{name} is {value!r}: {error}") from error


def switched_on(name: str, value: Any, epoch: int, global_step: int) -> bool:
    """Whether the switch `system.guidance.<name>` is on: true, or a number or a schedule that is above 0 now."""
    return value if isinstance(value, bool) else scheduled(name, value, epoch, global_step) > 0
