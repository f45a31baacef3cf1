"""Arguments from a config for another library's classes, checked against their signatures before the call.

torch and Lightning check few types themselves: a wrong one fails in the first step, or in the hundredth.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.host.embedded.registry import nearest

_WORDS = {bool: "true or false", int: "a number", float: "a number", str: "text", type(None): "null", dict: "a mapping"}

LARGEST_RATE = 1e6  # of learning; far above any in use, and its product with a gradient is still far from overflowing
# An option of an optimiser: its smallest value, whether that itself is allowed, and where it has to stay below.
RANGES = {
    "lr": (0.0, False, math.nextafter(LARGEST_RATE, math.inf)),
    "betas": (0.0, True, 1.0),
    "eps": (0.0, False, math.inf),
    "weight_decay": (0.0, True, math.inf),
    "momentum": (0.0, True, math.inf),
}


def check_range(option: str, value: Any, key: str) -> None:
    """OptionError, under `key`, for an option of an optimiser in RANGES that is out of its range."""
    if option not in RANGES:
        return
    least, allowed, below = RANGES[option]
    numbers = value if isinstance(value, list | tuple) else [value]
    for number in (float(n) for n in numbers if isinstance(n, int | float | Tensor)):
        if not least <= number < below or (number == least and not allowed):
            expected = f"{'at least' if allowed else 'above'} {least:g}"
            bound = "" if below == math.inf else f" and {'below' if below == 1 else 'at most'} {below:g}"
            raise OptionError(key, value, f"a number {expected}{bound}")


def check_arguments(call: Callable, given: Mapping[str, Any], key: str, ours: Iterable[str] = ()) -> None:
    """Check keyword arguments for `call` (a class, or a function), which gets those named `ours` from us.

    Raises OptionError, naming `key` and the argument, for one that it does not take or whose type is not the declared
    one. A whole number may be given where a fraction is expected and the reverse, since `${div:...}` gives fractions;
    what has no annotation, or one that cannot be evaluated, takes anything.
    """
    function = call.__init__ if isinstance(call, type) else call
    known = [name for name in inspect.signature(call).parameters if name not in ours]
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except NameError:
        hints = {}
    for name, value in given.items():
        if name not in known:
            raise OptionError.because(
                f"{call.__name__} has no such argument{nearest(str(name), known)} (known: {shown(', '.join(known), 150)})",
                f"{key}.{name}",
            )
        if name in hints and not _fits(value, hints[name]):
            raise OptionError(f"{key}.{name}", value, " or ".join(dict.fromkeys(_words(hints[name]))))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of plain Python is of the annotated type."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if kind is typing.Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if hint in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is tuple and inner[-1] is not Ellipsis:
        return isinstance(value, list) and len(value) == len(inner) and all(map(_fits, value, inner))
    if _is_list(kind):
        return isinstance(value, list) and all(_fits(entry, inner[0]) for entry in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(entry, inner[1]) for entry in value.values())
    return isinstance(value, kind or hint)


def _is_list(kind: Any) -> bool:
    """Whether a list of YAML can stand for the annotated container."""
    return kind is tuple or (isinstance(kind, type) and issubclass(list, kind))


def _words(hint: Any) -> list[str]:
    """What can be written in YAML for an annotation."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return [word for option in inner for word in _words(option)]
    if kind is typing.Literal:
        return [repr(option) for option in inner]
    if kind is tuple and inner[-1] is not Ellipsis:
        return [f"a list of {len(inner)}"]
    if _is_list(kind):
        return ["a list"]
    return [_WORDS[kind or hint]] if (kind or hint) in _WORDS else []
