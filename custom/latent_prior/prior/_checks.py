"""Errors about options, phrased once: what came, what was expected, which config key to change."""

import difflib
from collections.abc import Iterable

from latent_prior import OptionError


def require_one_of(value: str, choices: Iterable[str], key: str) -> None:
    """Raise ValueError, listing the choices and the nearest one, unless `value` is among them; `key` names it."""
    choices = sorted(choices)
    if value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    raise OptionError.because(f"{key} is {value!r}; expected one of {', '.join(choices)}{hint}")
