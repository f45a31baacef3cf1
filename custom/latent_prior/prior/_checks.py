"""Shared errors about options, and the check that no value has diverged."""

import difflib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from latent_prior import Diverged, OptionError


def require_one_of(value: str, choices: Iterable[str], field: str) -> None:
    """Raise OptionError, listing the choices and the nearest one, unless `value` is among them."""
    choices = sorted(choices)
    if value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    raise OptionError(field, value, f"one of {', '.join(choices)}{hint}")


def require_finite(values: Mapping[str, Tensor], mend: str = "lower the learning rate or clip gradients") -> None:
    """Raise Diverged naming the tensors with an entry that is not finite. Synchronises with the device once for all."""
    if not values:
        return
    device = next(iter(values.values())).device
    finite = torch.stack([value.detach().isfinite().all().to(device) for value in values.values()]).tolist()
    bad = {name: value for (name, value), good in zip(values.items(), finite, strict=True) if not good}
    if bad:
        said = ", ".join(_not_finite(name, value) for name, value in bad.items())
        raise Diverged(f"the numbers have diverged: {said}", tuple(bad), mend)


def _not_finite(name: str, value: Tensor) -> str:
    if value.ndim == 0:
        return f"{name} = {value.item()}"
    return f"{int((~value.isfinite()).sum())} of {value.numel()} are not finite in {name}"
