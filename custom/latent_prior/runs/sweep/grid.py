"""Grids: every combination of some values of config keys, as variants."""

import dataclasses
import difflib
import itertools
from collections.abc import Sequence
from typing import Any

from latent_prior import OptionError
from latent_prior.runs.sweep.jobs import RESERVED, Variant

FLAG = "--grid"
ALREADY = {"seed": "use --seeds", "system.prompt_processor.prompt": "give the prompts as arguments"}


def spread(variants: Sequence[Variant], grids: Sequence[str]) -> list[Variant]:
    """The variants with every combination of the grids' values, each `key=v1,v2,...`.

    OptionError for a grid without values, or over a key that a variant's config does not have.
    """
    axes = [axis(grid, FLAG) for grid in grids]
    for key, _ in axes:
        if key in RESERVED:
            raise OptionError.because(f"{key} cannot be in a grid: {ALREADY.get(key, RESERVED[key])}", FLAG)
    if repeated := [key for key, _ in axes if [other for other, _ in axes].count(key) > 1]:
        raise OptionError.because(f"{repeated[0]} is duplicated", FLAG)
    for variant in variants:
        for key, _ in axes:
            require_key(variant.settings, key)
    found = []
    for variant in variants:
        for values in itertools.product(*(values for _, values in axes)):
            pairs = [f"{key}={value}" for (key, _), value in zip(axes, values, strict=True)]
            names = [
                pair.rpartition("=")[0].rpartition(".")[2] + "=" + value
                for pair, value in zip(pairs, values, strict=True)
            ]
            label = ", ".join([variant.label, *names])
            found.append(dataclasses.replace(variant, label=label, overrides=(*variant.overrides, *pairs)))
    return found


def axis(grid: str, flag: str) -> tuple[str, list[str]]:
    """A key and its values, separated at the commas outside of brackets. OptionError, naming the flag, for neither."""
    key, equals, text = grid.partition("=")
    values, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            values.append("")
        else:
            values[-1] += letter
    if not equals or not key or not all(values):
        raise OptionError(flag, grid, "key=value1,value2, such as system.loss.lambda_fm=0,0.1")
    return key, values


def require_key(cfg: Any, key: str) -> None:
    """OptionError for a key that nothing reads: in a section of a registered type, one that the type does not have.

    A free mapping, such as an optimizer's arguments, may have any key that its owner takes; its run would say.
    """
    from latent_prior import host, register

    register()
    parts = key.split(".")
    for depth, part in enumerate(parts):
        known = _known(host, cfg, parts[:depth])
        if known is not None and part not in known:
            near = difflib.get_close_matches(part, known, 1)
            hint = f"; did you mean {'.'.join([*parts[:depth], near[0]])!r}?" if near else ""
            raise OptionError.because(f"the config has no key {key!r}{hint}", FLAG)


def _known(host: Any, cfg: Any, section: Sequence[str]) -> set[str] | None:
    """The keys that a section can have; None if that is for its owner to say."""
    if not section:
        return set(cfg)
    name = host.select(cfg, ".".join(section) + "_type")
    config = getattr(host.find(name), "Config", None) if isinstance(name, str) else None
    present = host.select(cfg, ".".join(section))
    if config is None or not dataclasses.is_dataclass(config):
        return None
    return {part.name for part in dataclasses.fields(config)} | set(present or ())
