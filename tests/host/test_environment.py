"""Values from the environment, by whatever way, against what is written."""

import pytest
from latent_prior import OptionError
from latent_prior.host.embedded import environment
from latent_prior.host.embedded.config import dump_config, load_config, merge_config, resolve_config
from latent_prior.host.embedded.environment import hidden_values, with_references
from omegaconf import OmegaConf

SECRET = "hunter2-hunter2"
TEXT = """
tag: t
use_timestamp: false
description: "key ${oc.env:KEY} of ${tag}"
data:
  plain: 1
  whole: ${oc.env:KEY}
  through: ${data.whole}
  twice: ${data.through}
  relative: ${.whole}
  mapping: {inner: "${oc.env:KEY}", kept: "${tag}"}
  of_mapping: ${data.mapping}
  in_list: [1, "x${oc.env:KEY}y", "${tag}"]
  decoded: ${oc.decode:${oc.env:NUMBER}}
  product: ${mul:${data.decoded},2}
  default: ${oc.env:NOT_SET_ANYWHERE,${tag}}
  dynamic: ${data.${oc.env:WHERE}}
  slug: ${slug:${oc.env:KEY}}
  text: 'a \\${b} c'
"""


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    for name, value in {"KEY": SECRET, "NUMBER": "21", "WHERE": "plain"}.items():
        monkeypatch.setenv(name, value)


def test_what_depends_on_the_environment_is_written_as_its_reference(tmp_path, monkeypatch):
    merged = merge_config(TEXT, from_string=True)
    cfg = resolve_config(merged)
    assert cfg.data.twice == SECRET and cfg.data.product == 42 and cfg.data.of_mapping.kept == "t"
    dump_config(tmp_path / "parsed.yaml", with_references(cfg, merged))
    written = (tmp_path / "parsed.yaml").read_text()
    assert SECRET not in written and SECRET.replace("-", "_") not in written and "42" not in written
    assert "plain: 1" in written and "kept: t" in written and "twice: ${data.through}" in written
    assert load_config(str(tmp_path / "parsed.yaml")) == cfg
    monkeypatch.setenv("KEY", "another")
    assert load_config(str(tmp_path / "parsed.yaml")).data.in_list[1] == "xanothery"
    monkeypatch.delenv("KEY")
    with pytest.raises(OptionError, match="bad config: .*'KEY' not found"):
        load_config(str(tmp_path / "parsed.yaml"))


def test_a_folders_name_is_computed_again(tmp_path, monkeypatch):
    text = "tag: t\nuse_timestamp: false\nexp_root_dir: ${oc.env:KEY}/out"
    merged = merge_config(text, from_string=True)
    cfg = resolve_config(merged)
    assert cfg.trial_dir == f"{SECRET}/out/default/t"
    dump_config(tmp_path / "parsed.yaml", with_references(cfg, merged))
    assert SECRET not in (tmp_path / "parsed.yaml").read_text()
    assert load_config(str(tmp_path / "parsed.yaml")) == cfg


def test_without_the_environment_nothing_changes():
    merged = merge_config("tag: ${name}\ndata: {a: '${tag}', b: [1, '${seed}']}\nseed: 3", from_string=True, name="n")
    cfg = resolve_config(merged)
    assert with_references(cfg, merged) == cfg


def test_errors_show_the_reference():
    merged = merge_config("tag: t\nseed: ${oc.env:KEY}", from_string=True)
    with pytest.raises(OptionError) as caught, hidden_values(merged):
        resolve_config(merged)
    assert SECRET not in str(caught.value) and "${oc.env:KEY}" in str(caught.value)


def test_what_takes_too_long_to_look_into_stays_a_reference(monkeypatch):
    chain = "\n".join(f"  c{i}: ${{data.c{i - 1}}}" for i in range(1, 20))
    merged = merge_config(f"tag: t\ndata:\n  c0: ${{oc.env:KEY}}\n{chain}\n  d: ${{tag}}", from_string=True)
    for steps in (2000, 30):
        monkeypatch.setattr(environment, "STEPS", steps)
        written = with_references(resolve_config(merged), merged)
        assert SECRET not in OmegaConf.to_yaml(written)
