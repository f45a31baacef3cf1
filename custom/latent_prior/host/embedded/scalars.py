"""Scheduled scalars: a number in a config that may change over training.

A value is one of
    v                            a constant;
    [v0, v1, end]                from v0 at 0 to v1 at `end`;
    [start, v0, v1, end]         v0 until `start`, then to v1 at `end`, v1 from there on;
    [start, v0, v1, e1, v2, e2, ...]   piecewise: v1 reached at e1, v2 at e2, and so on.
An int end counts optimiser steps, a float end counts epochs. Two conventions of threestudio are kept, so that a YAML
means the same on either host: the piece is always chosen by the step, and a piece's start is in the unit of its end.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from omegaconf import ListConfig, OmegaConf

from latent_prior import OptionError


def _segments(value: Any) -> list:
    """The flat schedule [start, v0, v1, e1, ...] of a non-scalar value, checked."""
    if isinstance(value, ListConfig):
        value = OmegaConf.to_container(value, resolve=True)
    elif isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list):
        raise OptionError.because(f"a scheduled scalar must be a number or a list of numbers, not {value!r}")
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        raise OptionError.because(f"a scheduled scalar may contain numbers only, got {value!r}")
    if len(value) == 3:
        value = [0, *value]
    if len(value) < 4 or len(value) % 2:
        raise OptionError.because(
            "a scheduled scalar must be [v0, v1, end], [start, v0, v1, end] or [start, v0, v1, e1, v2, e2, ...], "
            f"got {value!r}"
        )
    return value


def C(value: Any, epoch: int, global_step: int, interpolation: str = "linear") -> float:
    """The value of a scheduled scalar at a moment of training.

    value: number or schedule (see the module's docstring); epoch, global_step: the moment;
    interpolation: 'linear', or 'exp' (linear in the logarithm; needs positive values).
    Raises OptionError for a malformed schedule or an unknown interpolation.
    """
    if interpolation not in ("linear", "exp"):
        raise OptionError.because(f"interpolation must be 'linear' or 'exp', got {interpolation!r}")
    if isinstance(value, int | float):
        return value
    schedule = _segments(value)
    start, first, last, end = schedule[:4]
    for i in range(3, len(schedule) - 2, 2):
        if global_step >= schedule[i]:
            first, start, last, end = schedule[i - 1 : i + 3]
    now = global_step if isinstance(end, int) else epoch
    if end == start:  # a jump; threestudio divides by zero here
        progress = float(now >= end)
    else:
        progress = max(min(1.0, (now - start) / (end - start)), 0.0)
    if interpolation == "exp":
        return math.exp(math.log(first) * (1 - progress) + math.log(last) * progress)
    return first + (last - first) * progress


def knot_values(value: Any) -> list[float]:
    """The values of a scheduled scalar at its knots; all others lie between them. Raises OptionError as `C` does."""
    if isinstance(value, int | float):
        return [value]
    schedule = _segments(value)
    return [*schedule[1:3], *schedule[4::2]]


def C_max(value: Any) -> float:
    """The largest value a scheduled scalar ever takes; shows whether a loss is used at all."""
    return max(knot_values(value))


def knots(values: Iterable[Any]) -> Iterator[tuple[int, int]]:
    """Moments (epoch, step) between which each of `values`, numbers or schedules, is linear: a linear condition that
    holds at all of them holds throughout. A jump counts twice, just before and after. Raises OptionError as `C` does.
    """
    epochs, steps = {0}, {0}
    for value in values:
        if isinstance(value, int | float):
            continue
        schedule = _segments(value)
        for moment in (schedule[0], *schedule[3::2]):
            after = max(0, math.ceil(moment))
            steps |= {after, max(0, after - 1)}  # every piece is chosen by the step, whatever its end counts
            if any(isinstance(end, float) for end in schedule[3::2]):
                epochs |= {after, max(0, after - 1)}
    yield from product(sorted(epochs), sorted(steps))
