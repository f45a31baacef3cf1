"""Values from the environment (`${oc.env:NAME}`) stay references in what is written and shown: they may be secrets.

Which values depend on it is found by resolving every interpolation twice, once with another environment. So it counts
whatever way a value took: through other keys, inside a text, or through a resolver.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from latent_prior import OptionError
from latent_prior.host.embedded.yaml_files import bounded_resolution, register_resolver

UNKNOWN = object()
OTHER = "another value than any variable's"
STEPS = 500  # interpolations resolved to find out; what takes more stays a reference
SHORTEST = 4  # characters of a value that errors hide; a shorter one could be part of any word
# what ExperimentConfig computes, as references to what it is computed from
COMPUTED = {
    "trial_name": "${tag}${timestamp}",
    "exp_dir": "${exp_root_dir}/${name}",
    "trial_dir": "${exp_dir}/${trial_name}",
}


def with_references(resolved: DictConfig, merged: DictConfig) -> DictConfig:
    """A resolved config in which every value from the environment is its interpolation in `merged` again."""
    content = OmegaConf.to_container(resolved, resolve=False)
    found = _from_environment(merged)
    for (*path, last), (reference, _) in found.items():
        place = content
        for key in path:
            place = place[key]
        place[last] = reference
    if {("name",), ("tag",), ("timestamp",), ("exp_root_dir",)} & found.keys():
        content |= COMPUTED
    return OmegaConf.create(content)


@contextmanager
def hidden_values(merged: DictConfig) -> Iterator[None]:
    """An OptionError from inside shows references instead of values from the environment."""
    try:
        yield
    except OptionError as error:
        message = str(error)
        for reference, value in _from_environment(merged).values():
            if isinstance(value, str) and len(value) >= SHORTEST:
                message = message.replace(value, reference)
        error.args = (message,)
        raise


def _from_environment(merged: DictConfig) -> dict[tuple[Any, ...], tuple[str, Any]]:
    """The values of `merged` that depend on the environment: {keys: (interpolation, value)}."""
    raw = OmegaConf.to_container(merged, resolve=False)
    places = list(_interpolations(merged, raw, ()))
    if not any("env" in text for text in _texts(raw)):  # most configs, whose interpolations need no second look
        return {}
    with bounded_resolution(STEPS):
        values = [_value(container, keys[-1]) for keys, container, _ in places]
        with _another_environment():
            others = [_value(container, keys[-1]) for keys, container, _ in places]
    return {
        keys: (reference, value)
        for (keys, _, reference), value, other in zip(places, values, others, strict=True)
        if value != other or value is UNKNOWN
    }


def _interpolations(
    container: BaseContainer, raw: Any, keys: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], BaseContainer, str]]:
    """Each interpolation's keys, the container that holds it, and its text."""
    for key, entry in raw.items() if isinstance(raw, dict) else enumerate(raw):
        if OmegaConf.is_interpolation(container, key):
            yield (*keys, key), container, entry
        elif isinstance(entry, dict | list):
            yield from _interpolations(container[key], entry, (*keys, key))


def _value(container: BaseContainer, key: Any) -> Any:
    """A resolved value as plain data; UNKNOWN for one that cannot be resolved."""
    try:
        value = container[key]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except (OmegaConfBaseException, RecursionError):
        return UNKNOWN


def _texts(raw: Any) -> Iterator[str]:
    """All strings among the values of plain data."""
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, dict | list):
        for entry in raw.values() if isinstance(raw, dict) else raw:
            yield from _texts(entry)


@contextmanager
def _another_environment() -> Iterator[None]:
    register_resolver("oc.env", lambda *_: OTHER, replace=True)
    try:
        yield
    finally:
        register_resolver("oc.env", oc.env, replace=True)
