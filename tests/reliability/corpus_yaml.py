"""Hostile and broken YAML: as a config over a small one, as `key=value`, and as the parsed.yaml of a run."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from latent_prior.cli.export import checked_formats
from latent_prior.evaluate.bench import existing
from latent_prior.runs import experiment
from latent_prior.runs.sweep import jobs
from reliability.corpus_checkpoints import CONFIG, register
from reliability.in_child import Case

CANARY = "executed"
MAY_READ = {
    "interpolations of a hundred levels",
    "a deep key=value that is a prompt",
    "a prompt of 100 KB",
    "an empty file",
    "a file with a byte order mark",
    "a chain of 40 references",
    "1000 references",
    "a timestamp",
    "interpolations of 900 levels",
    "a secret 900 levels below",
}


@functools.cache
def _ready() -> None:
    experiment.load()
    register()


def _run(path: Path, configs: list[str], overrides: list[str]) -> None:
    _ready()
    out = path.with_suffix(".out")
    settings = [f"exp_root_dir={out}", "trainer.max_steps=1"]
    try:
        experiment.run([str(path.parent / "base.yaml"), *configs], [*overrides, *settings], ("train",))
    except ValueError:
        assert not out.exists(), "a folder is left"
        raise


def as_config(path: Path) -> None:
    """As `--config FILE`."""
    _run(path, [str(path)], [])


def as_override(path: Path) -> None:
    """As `key=value` on the command line."""
    _run(path, [], [path.read_text(encoding="utf-8")])


def for_export(path: Path) -> None:
    """As `export RUN --format glb`."""
    _ready()
    checked_formats("glb", str(path))


def for_evaluation(path: Path) -> None:
    """As `evaluate ... --runs RUN`."""
    _ready()
    existing.given([path.parent.parent], path.parent.parent / "out")


def for_variant(path: Path) -> None:
    """As `evaluate ... --config FILE`."""
    _ready()
    (variant,) = jobs.variants([[str(path)]], [])
    jobs.require_system({"--config": variant.settings}, "toy-system", "is not a toy")


def write(folder: Path) -> list[Case]:
    """All cases in `folder`."""
    cases: list[Case] = []
    (folder / "configs").mkdir()
    (folder / "configs" / "base.yaml").write_text(yaml.safe_dump(CONFIG))
    for number, (name, content) in enumerate(
        [*_structures(), *_encodings(), *_tags(folder / CANARY), *_interpolations()]
    ):
        path = folder / "configs" / f"{number}.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        cases.append((name, as_config, path))
    for number, (name, text) in enumerate(_overrides()):
        path = folder / "configs" / f"override{number}.txt"
        path.write_text(text)
        cases.append((name, as_override, path))
    readers: list[tuple[str, Callable[[Path], None]]] = [
        ("for an export", for_export),
        ("for an evaluation", for_evaluation),
        ("for a variant", for_variant),
    ]
    for number, (name, text) in enumerate(_parsed()):
        for after, reader in readers:
            configs = folder / "runs" / f"{number}{reader.__name__}" / "configs"
            configs.mkdir(parents=True)
            (configs / "parsed.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
            cases.append((f"{name} {after}", reader, configs / "parsed.yaml"))
    return cases


def _laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "data: {" + ", ".join(line for line in lines) + "}"


def _structures() -> Iterator[tuple[str, str]]:
    yield "nested lists, 100000 deep", "data: " + "[" * 100_000
    yield "closed lists, 2000 deep", "data: " + "[" * 2000 + "]" * 2000
    yield "closed mappings, 2000 deep", "data: " + "{a: " * 2000 + "1" + "}" * 2000
    yield "blocks, 500 deep", "\n".join(" " * i + f"k{i}:" for i in range(500))
    yield "dashes, 3000 deep", "data:\n " + "- " * 3000
    yield "question marks, 2000 deep", "? " * 2000 + "a"
    yield "a billion laughs", _laughs(10, 10)
    yield "doublings", _laughs(40, 2)
    merged = ["m0: &m0 {a: 1}"] + [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 40)]
    yield "doublings by merge keys", "\n".join(merged)
    yield "a list that holds itself", "data: &a [*a]"
    yield "a mapping that holds itself", "data: &a {b: *a}"
    yield "a mapping merged with itself", "data: &a {<<: *a}"
    yield "a merge key of a number", "data: {<<: 3}"
    yield "an unknown anchor", "data: *nowhere"
    yield "a million keys", "\n".join(f"k{i}: 1" for i in range(1_000_000))
    yield "a key of 10 MB", "a" * 10_000_000 + ": 1"
    yield "a prompt of 100 KB", "description: " + "a " * 50_000
    yield "a value of 50 MB", "description: " + "a" * 50_000_000
    yield "a list", "- a\n- b"
    yield "a word", "hello"
    yield "a number", "3"
    yield "an empty file", ""
    yield "two documents", "seed: 1\n---\nseed: 2\n"
    yield "a key given twice", "seed: 1\nseed: 2\n"
    yield "a list as a key", "[1, 2]: 3"
    yield "a mapping as a key", "{a: 1}: 3"
    yield "a date", "seed: 2026-13-45"
    yield "a timestamp", "description: 2026-01-01 10:00:00"
    yield "an integer of 5000 digits", "seed: " + "9" * 5000
    yield "a number of sixty parts", "seed: " + ":".join(["59"] * 5000)
    yield "a number that overflows", "seed: 1e999"
    yield "a tab", "data:\n\theight: 3"
    yield "no end of a string", 'description: "abc'
    yield "percent signs", "%" * 1000
    yield "a directive", "%YAML 9.9\n---\nseed: 1\n"
    yield "control characters", "seed: \x1b[31m\x07"
    yield "an escape that is none", 'seed: "\\x1b[31m\\u0007"'
    yield "a surrogate", 'seed: "\\ud800"'
    yield "a key of control characters", '"a\\x1b[31m\\n": 1'
    yield "a key of 200 KB", "a" * 200_000 + ": 1"


def _encodings() -> Iterator[tuple[str, bytes]]:
    yield "UTF-16", "seed: 1".encode("utf-16")
    yield "UTF-16 without a mark", "seed: 1".encode("utf-16-le")
    yield "UTF-32", "seed: 1".encode("utf-32")
    yield "Latin-1", "description: caf\xe9".encode("latin-1")
    yield "a file with a byte order mark", "seed: 1".encode("utf-8-sig")
    yield "zeros", bytes(10_000)
    yield "noise", bytes(range(256)) * 40
    yield "a picture", b"\x89PNG\r\n\x1a\n" + bytes(1000)


def _tags(canary: Path) -> Iterator[tuple[str, str]]:
    yield "a call of os.system", f"data: !!python/object/apply:os.system ['touch {canary}']"
    yield "a new Popen", f"data: !!python/object/new:subprocess.Popen [['touch', '{canary}']]"
    yield "a Python name", "data: !!python/name:os.system"
    yield "a Python module", "data: !!python/module:os"
    yield "a Python tuple", "data: !!python/tuple [1, 2]"
    yield "an unknown tag", "data: !thing 3"
    yield "a tag of 100 KB", "data: !" + "a" * 100_000 + " 3"
    yield "a number in words", "seed: !!int many"
    yield "a number of nothing", "seed: !!int ''"
    yield "truth in words", "seed: !!bool perhaps"
    yield "a timestamp in words", "seed: !!timestamp never"
    yield "a set", "data: !!set {a, b}"
    yield "pairs", "data: !!pairs [a: 1, a: 2]"
    yield "binary", "description: !!binary aGVsbG8="
    yield "binary that is none", "description: !!binary ????"


def _interpolations() -> Iterator[tuple[str, str]]:
    def chain(levels: int, step: str, first: str = "a") -> str:
        return "\n".join(
            [f"c0: {first}", *(f"c{i}: {step.replace('@', f'system.loss.c{i - 1}')}" for i in range(1, levels))]
        )

    def loss(text: str, last: str = "") -> str:
        inner = "\n".join(f"    {line}" for line in text.splitlines())
        return f"system:\n  loss:\n    lambda_toy: 1.0\n{inner}\n{last}"

    yield "a chain of 40 references", loss(chain(40, "${@}", "1.0"))
    yield "1000 references", loss("\n".join(f"c{i}: ${{name}}" for i in range(1000)))
    yield "strings doubled 40 times", loss(chain(40, '"${@}${@}"'))
    backwards = "\n".join(reversed(chain(40, '"${@}${@}"').splitlines()))
    yield "strings doubled 40 times, backwards", loss(backwards)
    yield "mappings doubled 40 times", loss(chain(40, '{x: "${@}", y: "${@}"}', "{z: 1}"))
    yield "numbers squared 40 times", loss(chain(40, '"${mul:${@},${@}}"', "10"))
    yield "numbers squared with ten refs", loss(chain(40, '"${add:${@},${mul:${@},${@}}}"', "10"))
    yield "a text times a billion", 'description: "${mul:abcdefgh,1000000000}"'
    yield "a text times a million, twice", 'description: "${mul:${mul:abcd,1000000},1000000}"'
    yield "a text added to itself", loss(chain(40, '"${add:${@},${@}}"', "abcd"))
    big = "big: [" + ", ".join(["1"] * 5000) + "]\n" + "\n".join(f'c{i}: "${{system.loss.big}}"' for i in range(1900))
    yield "a long list 1900 times", loss(big)
    yield "a circle of two", 'name: "${tag}"\ntag: "${name}"'
    yield "a circle of one", 'name: "${name}"'
    yield "a circle of mappings", 'data: {a: "${data}"}'
    yield "a circle by dynamic keys", 'name: "${${tag}}"\ntag: "name"'
    yield "interpolations of a hundred levels", loss(chain(100, "${@}", "1.0"))
    yield "interpolations of 900 levels", loss(chain(900, "${@}", "1.0"))
    yield "an interpolation 2000 deep", 'description: "' + "${" * 2000 + "a" + "}" * 2000 + '"'
    yield "an interpolation 100 deep", 'description: "' + "${oc.env:" * 100 + "a" + "}" * 100 + '"'
    yield "lists in an interpolation, 2000 deep", 'description: "${add:' + "[" * 2000 + "]" * 2000 + ',1}"'
    yield "an open interpolation", 'description: "${add:1"'
    yield "a long open interpolation", 'description: "${' + "a" * 50_000 + '"'
    yield "20000 interpolations in a text", 'description: "' + "${seed}" * 20_000 + '"'
    yield "dollars without end", 'description: "' + "$" * 100_000 + '{"'
    yield "an unknown resolver", 'description: "${python:1}"'
    yield "a division by zero", 'description: "${div:1,0}"'
    yield "a rate of zero steps", 'description: "${calc_exp_lr_decay_rate:0.1,0}"'
    yield "oc.create of a bomb", 'description: "${oc.create:{a:{a:{a:{a:1}}}}}"\nname: "${description}"'
    yield "oc.decode of a bomb", f"description: \"${{oc.decode:'{'[' * 300}{']' * 300}'}}\""
    yield "a secret 900 levels below", loss(chain(900, "${@}", "${oc.env:HOME}"))
    yield "an unset variable", 'description: "${oc.env:LATENT_PRIOR_NOT_SET_ANYWHERE}"'
    yield "a missing value", 'description: "${trainer.nothing}"\ntrainer: {nothing: "???"}'
    yield "ten thousand keys", "system: {loss: {" + ", ".join(f"k{i}: '${{name}}'" for i in range(10_000)) + "}}"


def _overrides() -> Iterator[tuple[str, str]]:
    yield "key=value, lists 2000 deep", "data=" + "[" * 2000 + "]" * 2000
    yield "key=value, mappings 2000 deep", "data=" + "{a: " * 2000 + "1" + "}" * 2000
    yield "key=value, keys 2000 deep", ".".join("a" * 2000) + "=1"
    yield "key=value, brackets 2000 deep", "data" + "[a]" * 2000 + "=1"
    yield "key=value, a laugh", "data={a: &a [1,1], b: &b [*a,*a,*a,*a,*a,*a,*a], c: [*b,*b,*b,*b,*b,*b,*b]}" + " " * 10
    yield "key=value, an unknown tag", "data=!!python/object/apply:os.system ['true']"
    yield "key=value, not closed", "data={a: ["
    yield "key=value, a list as a key", "data={[1]: 2}"
    yield "key=value, an interpolation 2000 deep", "description=" + "${" * 2000 + "a" + "}" * 2000
    yield "key=value, doubled", "description=${tag}${description}"
    yield "key=value, no key", "=3"
    yield "key=value, dots alone", "...=3"
    yield "key=value, a huge index", "trainer[999999999]=3"
    yield "key=value, control characters", "da\x1b[31mta=3"
    yield "key=value, an integer of 5000 digits", "seed=" + "9" * 5000
    yield "key=value, a key with a reference", "${seed}=3"
    yield "a deep key=value that is a prompt", "system.loss.prompt=" + "[" * 2000


def _parsed() -> Iterator[tuple[str, str | bytes]]:
    yield "a parsed.yaml of noise", bytes(range(256)) * 10
    yield "a parsed.yaml that is cut short", "name: toy\nsystem: {prompt_processor: {prompt: 'a mu"
    yield "an empty parsed.yaml", ""
    yield "a parsed.yaml that is a list", "- 1"
    yield "a parsed.yaml that is a word", "hello"
    yield "a parsed.yaml of laughs", _laughs(10, 10)
    yield "a parsed.yaml 2000 deep", "a: " + "[" * 2000 + "]" * 2000
    yield "a parsed.yaml without a system", "name: toy\nseed: 0\n"
    yield "a parsed.yaml whose system is a word", "name: toy\nseed: 0\nsystem_type: 3\nsystem: hello\n"
    yield (
        "a parsed.yaml with odd values",
        "name: [a]\nseed: many\nsystem_type: [a]\nsystem: {prompt_processor: {prompt: a}}\n",
    )
    yield (
        "a parsed.yaml in a circle",
        'name: "${name}"\nsystem_type: "${name}"\nsystem: {prompt_processor: {prompt: "${name}"}}',
    )
