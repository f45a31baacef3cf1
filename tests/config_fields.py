"""Proves that every field of a config acts. A field that does nothing misleads whoever sets it.

A table holds another valid value for every field of one config, and a function that builds the type under given settings
and returns all that can be seen of it: losses, gradients, pictures, modules, files. A field acts where what is seen under
its other value differs from what is seen without. The tables lie in tests/field_tables/.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from latent_prior import OptionError


@dataclasses.dataclass(frozen=True)
class To:
    """Another valid value; the field acts under `base`, settings that are there before and after."""

    value: Any
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Refused:
    """A value that is refused under `base`, in words that match `message`."""

    value: Any
    message: str
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Idle:
    """A field that changes nothing here, for the reason given: proved too, with `value`."""

    value: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The fields of `config`, each with a To (or a bare value), Refused or Idle; `given` fills in functions."""

    config: type
    observe: Callable[[dict[str, Any], Any], Any]
    fields: Mapping[str, Any]
    looks: dict[str, Any] = dataclasses.field(default_factory=dict)  # what is seen before, by base

    def gaps(self) -> set[str]:
        """Fields without an entry, and entries without a field."""
        return {field.name for field in dataclasses.fields(self.config)} ^ self.fields.keys()

    def seen(self, settings: Mapping[str, Any], given: Any) -> Any:
        """What is seen under settings, from the same random numbers each time."""
        random.seed(0)
        torch.manual_seed(0)
        return plain(self.observe(_resolved(dict(settings), given), given))

    def before(self, base: Mapping[str, Any], given: Any) -> Any:
        """What is seen under the base alone; looked at once, and once more to know that it stays the same."""
        if repr(base) not in self.looks:
            look = self.seen(base, given)
            assert same(look, self.seen(base, given)), "what is seen of it differs from one look to the next"
            self.looks[repr(base)] = look
        return self.looks[repr(base)]

    def check(self, field: str, given: Any) -> None:
        """Fail unless the field acts as its entry says."""
        probe = self.fields[field]
        if isinstance(probe, Refused):
            with pytest.raises(OptionError, match=probe.message):
                self.seen(dict(probe.base) | {field: probe.value}, given)
            return
        base = dict(probe.base) if isinstance(probe, To) else {}
        before = self.before(base, given)
        after = self.seen(base | {field: probe.value if isinstance(probe, To | Idle) else probe}, given)
        if isinstance(probe, Idle):
            assert same(before, after), f"{field} acts, against its entry"
        else:
            assert not same(before, after), f"{field} does nothing"


def _resolved(value: Any, given: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(entry, given) for key, entry in value.items()}
    return value(given) if callable(value) else value


def plain(value: Any) -> Any:
    """Tensors and arrays copied, containers kept, anything else as it prints."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return torch.as_tensor(value).detach().clone()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if isinstance(value, bool | int | float | str | bytes | None) else repr(value)


def same(a: Any, b: Any) -> bool:
    """Equality to the bit of what `plain` returns."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b
