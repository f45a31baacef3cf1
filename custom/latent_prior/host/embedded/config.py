"""Experiment configs: from YAML files, `key=value` overrides and resolvers to validated dataclass configs.

Every part of a run has a dataclass of its options; `parse_structured` turns a piece of YAML into it and rejects unknown
keys, naming the full key (`system.geometry.radius`) and the nearest valid one. The keys and the resolvers are
threestudio's (plus `slug`), so one YAML works on both hosts.
"""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latent_prior import OptionError
from latent_prior.files import atomic_write, shown, slug, user_path
from latent_prior.host.embedded.registry import nearest
from latent_prior.host.embedded.scalars import C_max
from latent_prior.host.embedded.yaml_files import (
    bounded_resolution,
    first_line,
    parse_config,
    parse_override,
    read_config,
    register_resolver,
)

_RESOLVERS = {
    "calc_exp_lr_decay_rate": lambda factor, n: factor ** (1.0 / n),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "idiv": lambda a, b: a // b,
    "basename": lambda path: os.path.basename(path),
    "slug": lambda text: slug(str(text)),
    "rmspace": lambda text, substitute: str(text).replace(" ", substitute),
    "tuple2": lambda value: [float(value), float(value)],
    "gt0": lambda value: value > 0,
    "cmaxgt0": lambda value: C_max(value) > 0,
    "not": lambda value: not value,
    "cmaxgt0orcmaxgt0": lambda a, b: C_max(a) > 0 or C_max(b) > 0,
}


def register_resolvers() -> None:
    """Register threestudio's resolvers and `slug` with OmegaConf; existing ones (from threestudio itself) are kept."""
    for name, function in _RESOLVERS.items():
        if not OmegaConf.has_resolver(name):
            register_resolver(name, function)


register_resolvers()


@dataclass
class ExperimentConfig:
    """The top level of a run's YAML. Unlike threestudio's it creates no folders: a bad config leaves nothing behind."""

    name: str = "default"  # the experiment's folder under exp_root_dir
    description: str = ""  # free text
    tag: str = ""  # the trial's name, usually the prompt with underscores
    seed: int = 0  # seed of all random numbers of the run
    use_timestamp: bool = True  # append @date-time to the tag, so that no trial overwrites another
    timestamp: str | None = None  # that date-time; None: now, or "" without use_timestamp
    exp_root_dir: str = "outputs"  # parent folder of all experiments

    # Computed from the above, never set by hand.
    exp_dir: str = "outputs/default"
    trial_name: str = "exp"
    trial_dir: str = "outputs/default/exp"
    n_gpus: int = 1  # on each machine

    resume: str | None = None  # checkpoint to resume from, Lightning's ckpt_path; None: start afresh

    data_type: str = ""  # registered name of the data module
    data: dict = field(default_factory=dict)  # its config

    system_type: str = ""  # registered name of the system
    system: dict = field(default_factory=dict)  # its config

    trainer: dict = field(default_factory=dict)  # arguments of Lightning's Trainer
    checkpoint: dict = field(default_factory=dict)  # arguments of Lightning's ModelCheckpoint

    def __post_init__(self) -> None:
        if not self.tag and not self.use_timestamp:
            raise OptionError.because(
                "tag is empty and use_timestamp is false: set one of them, or trials overwrite each other"
            )
        if not 0 <= self.seed < 2**32:
            raise OptionError.because(f"seed: expected a number from 0 to {2**32 - 1}, got {self.seed}")
        if self.timestamp is None:
            self.timestamp = datetime.now().strftime("@%Y%m%d-%H%M%S") if self.use_timestamp else ""
        self.exp_root_dir = str(user_path(self.exp_root_dir))
        self.resume = self.resume and str(user_path(self.resume))
        self.trial_name = f"{self.tag}{self.timestamp}"
        self.exp_dir = os.path.join(self.exp_root_dir, self.name)
        self.trial_dir = os.path.join(self.exp_dir, self.trial_name)


FLOAT32_MAX = (2 - 2**-23) * 2.0**127
_PROMPT_KEY = re.compile(r"(\w+_)?prompt|prompt_(front|side|back|overhead)")


def escaped(value: Any) -> Any:
    """`value` with `${` in its strings escaped, so that OmegaConf reads them as the text they are."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, dict):
        return {key: escaped(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(escaped(entry) for entry in value)
    return value


def _override(argument: str) -> DictConfig:
    """`key=value` as a config. A prompt is taken literally, unless all of it is one quoted YAML string."""
    key, equals, value = argument.partition("=")
    if not equals:
        raise OptionError.because(f"expected an override of the form key=value, got {argument!r}")
    if not _PROMPT_KEY.fullmatch(key.rpartition(".")[2]):
        return parse_override(argument)
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        with contextlib.suppress(yaml.YAMLError):
            quoted = yaml.safe_load(value)
            value = quoted if isinstance(quoted, str) else value
    cfg = parse_override(f"{key}=")
    OmegaConf.update(cfg, key, escaped(value))
    return cfg


def load_config(*yamls: str, cli_args: list[str] | None = None, from_string: bool = False, **overrides) -> Any:
    """Read an experiment; see `merge_config` and `resolve_config`."""
    return resolve_config(merge_config(*yamls, cli_args=cli_args, from_string=from_string, **overrides))


def merge_config(
    *yamls: str | os.PathLike, cli_args: Sequence[str] | None = None, from_string: bool = False, **overrides
) -> DictConfig:
    """YAML files (or strings) merged in order, then `key=value` arguments, then keyword overrides (strings literal).

    Interpolations are not resolved. Raises OptionError for a missing file or bad YAML.
    """
    parts = [parse_config(text) if from_string else read_config(text) for text in yamls]
    parts += [*map(_override, cli_args or []), OmegaConf.create(escaped(overrides))]
    with _in_our_words(), bounded_resolution():  # a mapping merged into an interpolation resolves it
        return OmegaConf.merge(*parts)


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """Errors of OmegaConf about a config as an OptionError that names the key."""
    try:
        yield
    except OmegaConfBaseException as error:
        reason, key = first_line(error), shown(str(error.full_key or ""), 80)
        raise OptionError.because(f"bad config: {key}: {reason}" if key else f"bad config: {reason}") from error
    except TypeError as error:  # a list where another config has a mapping
        raise OptionError.because(f"bad config: {shown(str(error), 150)}") from error
    except RecursionError as error:
        raise OptionError.because(f"bad config: {first_line(error)}") from error


def resolve_config(merged: DictConfig) -> Any:
    """An ExperimentConfig as a DictConfig with interpolations resolved; any remaining `${` is text, and escaped.

    `merged` is not changed. Raises OptionError for an interpolation that cannot be resolved, for a value that is still
    missing (`???`), for an unknown key, for a number that is not finite in float32 or takes more than 64 bits, for a
    name or tag that would lead out of its folder, and for a folder that no system could have.
    """
    with _in_our_words(), bounded_resolution():
        values = OmegaConf.to_container(merged, resolve=True)
    for key in ("name", "tag", "timestamp"):
        if re.search(r"[/\\\0]", name := str(values.get(key))) or name in (".", ".."):
            raise OptionError(key, name, "the name of one folder (in YAML, ${slug:TEXT} makes one of any text)")
    for key in ("exp_root_dir", "resume"):
        if "\0" in str(values.get(key)):
            raise OptionError(key, values[key], "a path, without null characters")
    for part in ("data", "system", "trainer", "checkpoint"):
        _require_finite(values.get(part), part)
    resolved = OmegaConf.create(escaped(values))
    if missing := sorted(OmegaConf.missing_keys(resolved)):
        raise OptionError(missing[0], "???", "a value, since the config leaves it open")
    return parse_structured(ExperimentConfig, resolved)


def _require_finite(value: Any, key: str) -> None:
    """OptionError, with its full key, for a number that is not finite in float32; also one in quotes, but no prompt.

    A whole number must also fit in 64 bits, as torch needs it.
    """
    if isinstance(value, dict):
        for name, entry in value.items():
            if not _PROMPT_KEY.fullmatch(str(name)):
                _require_finite(entry, f"{key}.{name}")
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            _require_finite(entry, f"{key}[{i}]")
    else:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        except (TypeError, ValueError):
            return
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise OptionError(key, value, "a whole number of at most 64 bits")
        if not -FLOAT32_MAX <= number <= FLOAT32_MAX:
            raise OptionError(key, value, f"a finite number, of at most {FLOAT32_MAX:.3g} (the largest of float32)")


def config_to_primitive(config: Any, resolve: bool = True) -> Any:
    """An OmegaConf node as plain dicts, lists and scalars."""
    return OmegaConf.to_container(config, resolve=resolve)


def dump_config(path: str | os.PathLike, config: Any) -> None:
    """Write a config as YAML, interpolations unresolved."""
    with atomic_write(path) as beside:
        OmegaConf.save(config=config, f=beside)


def full_key(cfg: Any, key: str = "") -> str:
    """The full key of a node, or of its entry `key`, in the run's YAML as far as known: `system.geometry.radius`."""
    where = ""
    if isinstance(cfg, DictConfig | ListConfig):
        parent = cfg._get_parent()
        # through its parent, since a node in a list gives its own index without brackets
        where = (cfg._key() or "") if parent is None else parent._get_full_key(cfg._key())
    return ".".join(part for part in (where, key) if part)


def parse_structured(fields: type, cfg: Any = None) -> Any:
    """Turn a piece of config (a dict or DictConfig) into the dataclass `fields`, as a typed DictConfig.

    None means all defaults. A given dict or list replaces the default as a whole. Raises OptionError with the full key
    for a key that the dataclass lacks, a value of the wrong type, or a missing value.
    """
    cfg = {} if cfg is None else cfg
    if not isinstance(cfg, dict | DictConfig):
        raise OptionError.because(f"a {fields.__qualname__} is made from a mapping of keys, got {cfg!r}")
    valid = {entry.name: entry for entry in dataclasses.fields(fields) if entry.init}
    for key in cfg:
        if key not in valid:
            known = shown(", ".join(valid), 150)
            raise OptionError.because(
                f"unknown config key {full_key(cfg, str(key))!r}{nearest(key, valid)} (valid keys: {known})"
            )
    for name, entry in valid.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in cfg:
            raise OptionError.because(f"missing config key {full_key(cfg, name)!r}")
    structured = OmegaConf.structured(fields)
    for key, value in cfg.items():
        try:
            structured[key] = escaped(value)
        except OmegaConfBaseException as error:
            raise OptionError.because(
                f"{full_key(cfg, key)}: {first_line(error)} (got {shown(repr(value))})"
            ) from error
    parsed = OmegaConf.to_object(structured)
    for name in valid:
        setattr(parsed, name, escaped(getattr(parsed, name)))
    try:
        structured = OmegaConf.structured(parsed)
    except OmegaConfBaseException as error:  # an entry of a list, which is looked at only here
        key, reason = full_key(cfg, error.full_key or ""), str(error).splitlines()[0]
        raise OptionError.because(f"{key}: {reason}") from error
    if isinstance(cfg, DictConfig):
        structured._set_key(full_key(cfg) or None)  # so that parts parsed from this one still know their full key
    return structured
