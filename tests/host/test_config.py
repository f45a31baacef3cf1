"""Configs: merging, resolvers, and what is refused."""

import os
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from latent_prior import OptionError
from latent_prior.host.embedded import config as config_module
from latent_prior.host.embedded.base import BaseModule, BaseObject
from latent_prior.host.embedded.config import (
    dump_config,
    load_config,
    merge_config,
    parse_structured,
    resolve_config,
)
from omegaconf import OmegaConf

YAML = """
name: mug
tag: ${rmspace:${system.prompt},_}
system:
  prompt: a red mug
  geometry: {radius: 2.0}
"""


@dataclass
class SystemConfig:
    prompt: str = ""
    geometry: dict = field(default_factory=dict)


class Field(BaseModule):
    @dataclass
    class Config(BaseModule.Config):
        radius: float = 1.0
        limits: tuple[float, float] = (0.0, 1.0)


def test_yaml_overrides_and_keywords_merge_in_order(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(YAML)
    cfg = load_config(str(path), cli_args=["system.geometry.radius=3", "seed=4", "system.prompt=a blue cup"], seed=5)
    assert cfg.system.geometry.radius == 3 and cfg.seed == 5
    assert cfg.tag == "a_blue_cup"
    assert cfg.trial_dir == os.path.join("outputs", "mug", f"a_blue_cup{cfg.timestamp}")
    assert cfg.timestamp.startswith("@2")


def test_a_parsed_config_reads_back_as_itself_and_keeps_its_timestamp(tmp_path):
    cfg = load_config(YAML, from_string=True)
    path = tmp_path / "parsed.yaml"
    dump_config(str(path), cfg)
    assert load_config(str(path)) == cfg


def test_reading_a_config_makes_no_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_config(YAML, from_string=True)
    assert list(tmp_path.iterdir()) == []


def test_resolvers():
    text = """
    system:
      n: 100
      decay: ${calc_exp_lr_decay_rate:0.1,${system.n}}
      sum: ${add:1,2}
      difference: ${sub:5,3}
      product: ${mul:4,2.5}
      quotient: ${div:1,4}
      whole: ${idiv:7,2}
      base: ${basename:a/b/c.yaml}
      pair: ${tuple2:3}
      positive: ${gt0:0}
      lambda: [0, 0.0, 0.0, 10, 2.0, 20]
      used: ${cmaxgt0:${system.lambda}}
      either: ${cmaxgt0orcmaxgt0:0.0,${system.lambda}}
      neither: ${not:${system.used}}
    """
    system = load_config(text, from_string=True).system
    assert system.decay**100 == pytest.approx(0.1)
    assert (system.sum, system.difference, system.product, system.quotient, system.whole) == (3, 2, 10.0, 0.25, 3)
    assert (system.base, list(system.pair)) == ("c.yaml", [3.0, 3.0])
    assert (system.positive, system.used, system.either, system.neither) == (False, True, True, False)


def test_registering_resolvers_twice_is_harmless_and_keeps_those_there():
    OmegaConf.clear_resolver("add")
    OmegaConf.register_resolver("add", lambda a, b: "mine")
    try:
        config_module.register_resolvers()
        assert OmegaConf.create({"x": "${add:1,2}"}).x == "mine"
    finally:
        OmegaConf.clear_resolver("add")
        config_module.register_resolvers()
    assert OmegaConf.create({"x": "${add:1,2}"}).x == 3


def test_unknown_top_level_key_names_the_nearest():
    with pytest.raises(ValueError, match="unknown config key 'systm'; did you mean 'system'"):
        load_config(YAML, from_string=True, cli_args=["systm.geometry.radius=1"])


def test_unknown_nested_key_is_named_in_full():
    cfg = load_config(YAML, from_string=True, cli_args=["system.geometry.raduis=1"])
    system = parse_structured(SystemConfig, cfg.system)
    with pytest.raises(ValueError, match="'system.geometry.raduis'; did you mean 'radius'"):
        Field(system.geometry)


@pytest.mark.parametrize(
    "value, message",
    [
        ({"radius": "wide"}, "radius: .*'wide'"),
        ({"limits": [0, "b"]}, "limits"),
        ({"radius": None}, "radius"),
        ([1, 2], "mapping of keys"),
    ],
)
def test_wrong_types_are_refused_in_one_line(value, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_structured(Field.Config, value)
    assert "\n" not in str(caught.value)


def test_missing_required_key():
    @dataclass
    class Needy:
        must: int
        may: int = 1

    with pytest.raises(ValueError, match="missing config key 'must'"):
        parse_structured(Needy, {"may": 2})
    assert parse_structured(Needy, {"must": 3}).must == 3


@pytest.mark.parametrize(
    "text, arguments, message",
    [
        ("a: [", [], "bad config"),
        ("tag: ${nowhere}", [], "nowhere"),
        ("- a", [], "mapping of keys"),
        ("seed: many", [], "seed"),
        ("name:", [], "name: .*None"),
        ("use_timestamp: false", [], "tag is empty"),
        ("name: x", ["--sed"], "key=value, got '--sed'"),
    ],
)
def test_bad_configs_are_refused_in_one_line(text, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_config(text, from_string=True, cli_args=arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, key",
    [
        ("system: {geometry: {mesh: '???'}}", "system.geometry.mesh"),
        ("data: {sizes: [{width: '???'}]}", r"data.sizes\[0\].width"),
        ("name: ???", "name"),
        ("system: ???", "system"),
    ],
)
def test_a_value_that_is_left_open_is_named_in_one_line(text, key):
    with pytest.raises(ValueError, match=rf"^{key} is '\?\?\?'; expected a value") as caught:
        load_config(f"tag: a\n{text}", from_string=True)
    assert "\n" not in str(caught.value)


def test_missing_config_file():
    with pytest.raises(ValueError, match="cannot read config file .*nowhere.yaml': No such file"):
        load_config("nowhere.yaml")


def test_none_means_defaults():
    class Thing(BaseObject):
        @dataclass
        class Config(BaseObject.Config):
            size: int = 3

    assert Thing().cfg.size == Thing(None).cfg.size == Thing({}).cfg.size == 3


def test_a_given_dict_or_list_replaces_the_default_whole():
    @dataclass
    class Defaults:
        options: dict = field(default_factory=lambda: {"a": 1, "b": 2})
        sizes: list[int] = field(default_factory=lambda: [1, 2, 3])
        limits: tuple[float, float] = (0.0, 1.0)
        either: Any = 1

    cfg = parse_structured(Defaults, {"options": {"c": 3}, "sizes": [9], "limits": [2, 3], "either": [4, 5]})
    assert (cfg.options, cfg.sizes, list(cfg.limits), cfg.either) == ({"c": 3}, [9], [2.0, 3.0], [4, 5])
    assert parse_structured(Defaults).options == {"a": 1, "b": 2}


@pytest.mark.parametrize("given, entry", [([[]], "names[0]"), (["a", {"b": 1}], "names[1]")])
def test_an_entry_of_the_wrong_type_is_refused_where_it_was_an_interpolation(given, entry):
    @dataclass
    class Fields:
        names: list[str] = field(default_factory=list)

    resolved = OmegaConf.create({"system": {"names": given}})  # as `[${other.names}]` becomes
    with pytest.raises(OptionError, match=rf"system\.{re.escape(entry)}: "):
        parse_structured(Fields, resolved.system)


def test_parsing_leaves_what_it_parses_alone():
    run = load_config(YAML, from_string=True)
    system = parse_structured(SystemConfig, run.system)
    system.geometry.radius = 7.0
    assert run.system.geometry.radius == 2.0
    assert parse_structured(SystemConfig, system).geometry.radius == 7.0


def test_home_is_expanded_where_runs_lie_and_where_one_goes_on(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text(YAML)
    cfg = load_config("~/run.yaml", cli_args=["exp_root_dir=~/out", "resume=~/last.ckpt"])
    assert cfg.exp_root_dir == f"{tmp_path}/out" and cfg.trial_dir.startswith(f"{tmp_path}/out/")
    assert cfg.resume == f"{tmp_path}/last.ckpt"


def test_merging_keeps_interpolations_and_resolving_leaves_the_merged_config():
    text = "trainer: {max_steps: 4}\nsystem: {n: '${trainer.max_steps}'}\ntag: t\n"
    merged = merge_config(text, from_string=True, cli_args=["trainer.max_steps=8"])
    assert resolve_config(merged).system.n == 8
    merged.trainer.max_steps = 16
    assert resolve_config(merged).system.n == 16
