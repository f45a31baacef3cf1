"""Shared errors about options, and the check that no value has diverged."""

import difflib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from latent_prior import OptionError


def require_one_of(value: str, choices: Iterable[str], field: str) -> None:
    """Raise OptionError, listing the choices and the nearest one, unless `value` is among them."""
    choices = sorted(choices)
    if value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    raise OptionError(field, value, f"one of {', '.join(choices)}{hint}")


def require_finite(values: Mapping[str, Tensor]) -> None:
    """Raise OptionError naming the scalars that are not finite. Synchronises with the device once for all of them."""
    if not values or bool(torch.isfinite(torch.stack([value.detach() for value in values.values()])).all()):
        return
    bad = ", ".join(f"{name} = {value.item()}" for name, value in values.items() if not torch.isfinite(value))
    raise OptionError.because(f"the optimisation has diverged: {bad}; lower the learning rate or clip gradients")
