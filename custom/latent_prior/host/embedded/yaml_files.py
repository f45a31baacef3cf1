"""YAML of users and of runs, read under bounds: a few kilobytes can nest, repeat and refer until nothing is left.

Aliases and interpolations (`${key}`, `${resolver:arguments}`) are counted as what they expand to.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import omegaconf
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.base import Container
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from latent_prior import OptionError
from latent_prior.files import shown, user_path

LARGEST = 256_000  # bytes; our configs have up to 6,000
DEEPEST = 40  # levels of nesting, and of brackets in an interpolation
NODES = 10_000  # keys and values after aliases are expanded; our configs have 200
REFERENCES = 2_000  # interpolations in a file
LONGEST = 4_000  # characters of a value with interpolations
RESOLVED = 20_000  # interpolations, and values that they refer to, while a config is resolved
UNIT = 100  # characters that count as one value, 64 bits of an integer another

# OmegaConf 2.4 renamed the function; in older versions the new name means something else
_RENAMED = tuple(int(part) for part in omegaconf.__version__.split(".")[:2]) >= (2, 4)
register_resolver = OmegaConf.register_resolver if _RENAMED else OmegaConf.register_new_resolver

_EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(path: str | os.PathLike) -> DictConfig:
    """A config from a file, its interpolations unresolved. OptionError, which names the file, for anything else."""
    try:
        with open(user_path(path), "rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError.because(f"cannot read config file {str(path)!r}: {reason}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(repr(str(path)), "it is not text in UTF-8") from error
    return parse_config(text, repr(str(path)))


def parse_config(text: str, name: str = "the text") -> DictConfig:
    """A config from YAML, its interpolations unresolved; `name` is what errors call it."""
    with _in_our_words(name):
        require_bounded(text, name)
        found = OmegaConf.load(io.StringIO(text))
    if not isinstance(found, DictConfig):
        raise OptionError.because(f"a config is a mapping of keys, got a {type(found).__name__} from {name}")
    _require_small_integers(found, name)
    return found


def parse_override(argument: str) -> DictConfig:
    """`key=value` as a config; the value is YAML."""
    key, _, value = argument.partition("=")
    if len(key) > LONGEST or key.count(".") + key.count("[") > DEEPEST:
        raise OptionError.because(f"an override has a key of at most {DEEPEST} parts, got '{shown(argument)}'")
    with _in_our_words(f"'{shown(argument)}'"):
        require_bounded(value, f"'{shown(argument)}'", mapping=False)
        found = OmegaConf.from_dotlist([argument])
    _require_small_integers(found, f"'{shown(argument)}'")
    return found


def _require_small_integers(value: Any, name: str) -> None:
    """OptionError for an integer of more than 64 bits: Python refuses to print some of those that YAML can write."""
    content = getattr(value, "_content", getattr(value, "_val", value))
    if isinstance(content, dict | list):
        for entry in content.values() if isinstance(content, dict) else content:
            _require_small_integers(entry, name)
    elif isinstance(content, int) and content.bit_length() > 64:
        key = shown(value._get_full_key(None), 80)
        raise _bad(name, f"{key} is an integer of {content.bit_length()} bits; expected at most 64")


def first_line(error: Exception) -> str:
    """What is wrong, without what OmegaConf says about its nodes in further lines."""
    text = getattr(error, "msg", None) or str(error)
    if isinstance(error, RecursionError) or text.startswith("RecursionError"):
        return "its interpolations refer to one another too deeply"
    return shown(text.splitlines()[0] if text else type(error).__name__, 120)


@contextmanager
def _in_our_words(name: str) -> Iterator[None]:
    """What PyYAML and OmegaConf raise for text that is no config, as an OptionError."""
    try:
        yield
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        raise _bad(name, shown(problem, 120) + (f", line {mark.line + 1}" if mark else "")) from error
    except OmegaConfBaseException as error:
        key = shown(str(error.full_key or ""), 80)
        raise _bad(name, f"{key}: {first_line(error)}" if key else first_line(error)) from error
    except OptionError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # of PyYAML's constructors
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise _bad(name, f"a value is not what its tag or its form says ({reason})") from error


def require_bounded(text: str, name: str, mapping: bool = True) -> None:
    """OptionError for YAML that is too large, nests too deeply or expands to too much; other errors are PyYAML's."""
    if len(text) > LARGEST:
        raise _bad(name, f"it is larger than {LARGEST // 1000} kB")
    sizes: dict[str, int] = {}  # of what has an anchor
    opened: list[list[Any]] = []  # anchor and size of each collection that is not closed
    references = 0
    for event in yaml.parse(text, Loader=_EVENTS):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append([event.anchor, 1])
            if len(opened) > DEEPEST:
                raise _bad(name, f"it nests deeper than {DEEPEST} levels, line {event.start_mark.line + 1}")
            continue
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise _bad(
                    name, f"its alias *{shown(anchor, 40)} is of nothing before it, line {event.start_mark.line + 1}"
                )
            size = sizes[anchor]
        elif isinstance(event, yaml.ScalarEvent):
            if mapping and not opened and event.value:
                raise OptionError.because(f"a config is a mapping of keys, got a text from {name}")
            references += require_bounded_interpolations(event.value, name)
        if anchor is not None:
            sizes[anchor] = size
        if opened:
            opened[-1][1] += size
        if size > NODES or (opened and opened[-1][1] > NODES):
            raise _bad(name, f"it has more than {NODES} keys and values, once its aliases are expanded")
        if references > REFERENCES:
            raise _bad(name, f"it has more than {REFERENCES} interpolations")


def require_bounded_interpolations(value: str, name: str) -> int:
    """The number of interpolations in a string; OptionError if it is too long or nests too deeply to be parsed."""
    if (count := value.count("${")) == 0:
        return 0
    depth = deepest = 0
    for character in value:
        depth += (character in "{[(") - (character in "}])")
        deepest = max(deepest, depth)
    if len(value) > LONGEST or deepest > DEEPEST:
        limits = f"{LONGEST} characters and {DEEPEST} levels of brackets"
        raise _bad(name, f"interpolations have up to {limits}, got '{shown(value, 40)}'")
    return count


@contextmanager
def bounded_resolution(most: int = RESOLVED) -> Iterator[None]:
    """Meanwhile OmegaConf resolves a limited number of interpolations, of limited size, and then raises its own error.

    It remembers no results, so that forty keys of `${a}${a}` take 2^40 steps, and forty of `{x: ${a}, y: ${a}}` as well.
    """
    resolve, evaluate = Container.resolve_parse_tree, Container._evaluate_custom_resolver
    to_content = BaseContainer._to_content
    spent = 0

    def spend(cost: int) -> None:
        nonlocal spent
        spent += cost
        if spent > most:
            raise InterpolationResolutionError(f"its interpolations expand to more than {most} values")

    def counted(self: Container, *args: Any, **kwargs: Any) -> Any:
        spend(1)
        result = resolve(self, *args, **kwargs)
        spend(_size(result, RESOLVED))
        return result

    def counted_content(conf: Container, *args: Any, **kwargs: Any) -> Any:
        content = conf._content
        spend(1 + len(content) if isinstance(content, dict | list) else 1)
        return to_content(conf, *args, **kwargs)

    def limited(self: Container, *args: Any, inter_type: str, inter_args: tuple[Any, ...], **kwargs: Any) -> Any:
        """The size of a result is known too late for a text times a number, and for a text put into another."""
        long = any(_size(arg, RESOLVED) > LONGEST / UNIT for arg in inter_args)
        if long or (inter_type in ("add", "mul") and not all(isinstance(arg, int | float) for arg in inter_args)):
            kind = "numbers" if inter_type in ("add", "mul") else "short values"
            raise InterpolationResolutionError(f"${{{inter_type}:...}} takes {kind}")
        return evaluate(self, *args, inter_type=inter_type, inter_args=inter_args, **kwargs)

    Container.resolve_parse_tree, Container._evaluate_custom_resolver = counted, limited
    BaseContainer._to_content = staticmethod(counted_content)
    try:
        yield
    finally:
        Container.resolve_parse_tree, Container._evaluate_custom_resolver = resolve, evaluate
        BaseContainer._to_content = staticmethod(to_content)


def _size(value: Any, most: int) -> int:
    """The number of values in a node or a plain value; counting stops above `most`."""
    content = getattr(value, "_content", value)
    if isinstance(content, dict | list):
        size = 1
        for entry in content.values() if isinstance(content, dict) else content:
            if size <= most:
                size += _size(entry, most)
        return size
    value = getattr(value, "_val", value)
    return len(value) // UNIT if isinstance(value, str) else value.bit_length() // 64 if isinstance(value, int) else 1


def select(config: DictConfig, key: str) -> Any:
    """The value at a dotted key, resolved under bounds; None where there is none, or none that can be resolved."""
    try:
        with bounded_resolution():
            return OmegaConf.select(config, key, throw_on_resolution_failure=False)
    except (OmegaConfBaseException, RecursionError):  # a part of the way is no mapping, or refers to itself
        return None


def _bad(name: str, problem: str) -> OptionError:
    return OptionError.because(f"bad config: {name}: {problem}")
