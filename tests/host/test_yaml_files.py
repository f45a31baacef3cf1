"""YAML under bounds: at each of them, and one beyond."""

import pytest
from latent_prior import OptionError
from latent_prior.host.embedded import yaml_files
from latent_prior.host.embedded.config import merge_config, resolve_config
from latent_prior.host.embedded.yaml_files import parse_config, parse_override, read_config, select
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer


@pytest.mark.parametrize(
    "bound, text, message",
    [
        ("DEEPEST", lambda n: "a: " + "[" * (n - 1) + "]" * (n - 1), "nests deeper than"),
        ("NODES", lambda n: "a: [" + "1," * (n - 3) + "]", "keys and values"),
        ("NODES", lambda n: f"a: &a [{'1,' * (n // 2 - 3)}]\nb: *a", "keys and values"),
        ("REFERENCES", lambda n: "\n".join(f"k{i}: ${{a}}" for i in range(n)), "interpolations"),
        ("LONGEST", lambda n: "a: ${" + "b" * (n - 3) + "}", "interpolations have up to"),
        ("LARGEST", lambda n: "a: " + "b" * (n - 3), "larger than"),
    ],
)
def test_the_bounds(monkeypatch, bound, text, message):
    monkeypatch.setattr(yaml_files, bound, 30)
    parse_config(text(30))
    with pytest.raises(OptionError, match=f"bad config: the text: .*{message}"):
        parse_config(text(34))


@pytest.mark.parametrize(
    "step, first",
    [
        ("'${@}${@}'", "abc"),
        ("{x: '${@}', y: '${@}'}", "{z: 1}"),
        ("'${mul:${@},${@}}'", "10"),
        ("'${add:${@},${@}}'", "[1]"),
        ("['${@}', '${@}']", "[1]"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_interpolations_that_double_are_stopped(step, first, order):
    lines = [f"c0: {first}", *(f"c{i}: {step.replace('@', f'data.c{i - 1}')}" for i in range(1, 50))]
    merged = parse_config("tag: t\ndata:\n  " + "\n  ".join(lines[::order]))
    with pytest.raises(OptionError, match="bad config: .*(expand to more than|takes numbers|too deeply)"):
        resolve_config(merged)
    select(merged, "data.c49.x")  # ends too
    assert BaseContainer._to_content(parse_config("a: ${b}\nb: 1"), resolve=True, throw_on_missing=True) == {
        "a": 1,
        "b": 1,
    }


def test_what_is_resolved_in_bounds_is_what_omegaconf_resolves():
    text = "a: 3\nb: '${a}${a}'\nc: {x: '${mul:${a},2}', y: ['${c.x}', '${oc.decode:\"1.5\"}']}\nd: ${c}"
    with yaml_files.bounded_resolution():
        found = OmegaConf.to_container(parse_config(text), resolve=True)
    assert found == OmegaConf.to_container(OmegaConf.create(text), resolve=True)


def test_a_texts_product_is_refused_before_it_is_made():
    with pytest.raises(OptionError, match=r"description: \$\{mul:...\} takes numbers"):
        resolve_config(parse_config("tag: t\ndescription: ${mul:abcd,1000000000}"))


def test_files_are_named_and_byte_order_marks_are_fine(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("seed: 1".encode("utf-8-sig"))
    assert read_config(path) == {"seed": 1}
    for content, message in [
        ("seed: 1".encode("utf-16"), "not text in UTF-8"),
        (b"- 1", "mapping of keys, got a ListConfig"),
        (b"word", "mapping of keys, got a text"),
        (b"seed: !!int many", "a value is not what its tag or its form says"),
        (b"a: 1\na: 2", "duplicate key a, line 2"),
        (b"seed: " + b"9" * 30, "an integer of 100 bits"),
    ]:
        path.write_bytes(content)
        with pytest.raises(OptionError, match=f"a.yaml'.*{message}|{message} from .*a.yaml'") as caught:
            read_config(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="cannot read config file .*: Is a directory"):
        read_config(tmp_path)


def test_overrides_are_bounded_too():
    assert parse_override("a.b=[1, 2]") == {"a": {"b": [1, 2]}}
    for argument in ("a=" + "[" * 1000, "a=" + "[" * 1000 + "]" * 1000, ".".join("a" * 1000) + "=1", "a={b"):
        with pytest.raises(OptionError) as caught:
            merge_config(cli_args=[argument])
        assert len(str(caught.value)) < 200
