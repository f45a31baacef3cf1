"""The embedded host's registry: from the names in a config's `*_type` keys to classes.

A name is registered once. `find("main:sub,sub2")` mixes classes as threestudio does: the result inherits from sub, then
sub2, then main, so that the first mix-in overrides the others.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping

from latent_prior import OptionError
from latent_prior.files import shown

__modules__: dict[str, type] = {}


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for an error message: `; did you mean 'x'?` when a valid name is close, else an empty string."""
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def register(name: str) -> Callable[[type], type]:
    """Class decorator that registers a class as `name`; raises ValueError if the name is taken."""

    def decorator(cls: type) -> type:
        if name in __modules__:
            taken = __modules__[name]
            raise ValueError(
                f"type name {name!r} is already registered by {taken.__module__}.{taken.__qualname__}; "
                f"{cls.__module__}.{cls.__qualname__} needs another name"
            )
        __modules__[name] = cls
        return cls

    return decorator


def lookup(modules: Mapping[str, type], name: str, key: str = "") -> type:
    """The class registered in `modules` as `name`, or the mix given by a `main:sub,sub2` name.

    `key` is the config key that the name came from, for the message of the OptionError for an unknown name.
    """
    where = f"{key}: " if key else ""
    main, _, subs = str(name).partition(":")
    parts = [*(sub for sub in subs.split(",") if sub), main]
    for part in parts:
        if part not in modules:
            known = shown(", ".join(sorted(modules)) or "none", 150)
            raise OptionError.because(
                f"{where}unknown type {part!r}{nearest(part, modules)} (registered types: {known})"
            )
    if len(parts) == 1:
        return modules[main]
    return type(f"{main}.{subs}", tuple(modules[part] for part in parts), {})


def find(name: str, key: str = "") -> type:
    """The registered class (or mix) called `name`; OptionError naming `key` and the nearest name if unknown."""
    return lookup(__modules__, name, key)
