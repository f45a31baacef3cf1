"""The page of options has every option of every registered type, with its meaning and its default."""

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import latent_prior.registration  # noqa: F401
import pytest
from latent_prior.host.embedded.registry import __modules__ as registered

DOCS = Path(__file__).parents[2] / "docs"
OURS = {name: cls for name, cls in registered.items() if cls.__module__.startswith("latent_prior.")}


@pytest.fixture(scope="module")
def config_options():
    """docs/config_options.py."""
    spec = importlib.util.spec_from_file_location("config_options", DOCS / "config_options.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(config_options) -> str:
    return config_options.markdown()


def options_of(page: str, name: str) -> dict[str, tuple[str, str]]:
    """{option: (default, meaning)} of a type, as a reader finds them: in its table, and in those that it refers to."""
    section = re.search(rf"^### {re.escape(name)} .*?(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, f"{name} is not on the page"
    found: dict[str, tuple[str, str]] = {}
    for names, default, meaning in re.findall(r"^\| (`.*?) \| (`.*?) \| (.*) \|$", section[0], re.MULTILINE):
        options, defaults = re.findall("`(.*?)`", names), re.findall("`(.*?)`", default)
        for option, value in zip(options, defaults * len(options) if len(defaults) == 1 else defaults, strict=True):
            found[option] = (value, meaning)
    for shared in re.findall(r"\[(\w+)\]\(#", section[0].partition("the options of: ")[2]):
        found = options_of(page, shared) | found
    return found


def config_of(cls: type) -> type:
    return getattr(cls, "Config", None) or getattr(sys.modules[cls.__module__], f"{cls.__name__}Config")


def missing(page: str, name: str, config: type) -> list[str]:
    """The fields of a config that the page does not explain."""
    there = options_of(page, name)
    return [
        field.name for field in dataclasses.fields(config) if len(there.get(field.name, ("", ""))[1].strip(" .")) < 5
    ]


@pytest.mark.parametrize("name", OURS)
def test_every_option_is_explained(name, page):
    assert missing(page, name, config_of(OURS[name])) == []


@pytest.mark.parametrize("name", OURS)
def test_defaults_are_those_of_the_class(name, page):
    there = options_of(page, name)
    for field in dataclasses.fields(config_of(OURS[name])):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        assert plain(there[field.name][0]) == plain(yaml_of(default)), field.name


def yaml_of(value) -> str:
    """A value as the page writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {yaml_of(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(yaml_of, value)) + "]"
    if value is None or value == "":
        return "null" if value is None else '""'
    return str(value).lower() if isinstance(value, bool) else str(value)


def plain(text: str) -> str:
    """With its numbers in one notation."""
    return re.sub(r"[+-]?\d+\.?\d*(e[+-]?\d+)?", lambda number: f"{float(number[0]):g}", text)


def test_the_types_of_both_are_the_same(config_options):
    assert set(config_options.Sources().registered()) == set(OURS)


def test_the_test_can_fail(page):
    @dataclasses.dataclass
    class Config:
        supersample: int = 1
        nobody_wrote_about_this: int = 0

    assert missing(page, "mesh-rasterizer", Config) == ["nobody_wrote_about_this"]
    emptied = re.sub(r"Pixels are rendered this many.*? \|$", " |", page, flags=re.MULTILINE)
    assert missing(emptied, "mesh-rasterizer", Config) == ["supersample", "nobody_wrote_about_this"]
    with pytest.raises(AssertionError, match="not on the page"):
        options_of(page, "no-such-type")
