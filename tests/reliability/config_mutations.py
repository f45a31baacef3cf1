"""Seeded mutations of a config: one key of a config that works, deleted, misspelt or given a value that it is not for."""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# What a key gets instead of its value.
VALUES: dict[str, Any] = {
    "null": None,
    "text": "rubbish",
    "number": 3.7,
    "true": True,
    "list": [1, "two"],
    "mapping": {"a": 1},
    "nested": [[1, 2], {"a": [3]}],
    "empty text": "",
    "empty list": [],
    "empty mapping": {},
    "zero": 0,
    "negative": -1,
    "negative fraction": -0.5,
    "billion": 10**9,
    "trillion": 10**12,
    "beyond int64": 10**20,
    "large float": 1e30,
    "unicode": "чашка 杯 ☕",
    "control characters": "a\x1b[31m\x00\nb",
    "long text": "x" * 5000,
    "${} of no key": "${no.such.key}",
    "${} of no resolver": "${no_such_resolver:1}",
    "${} that divides by 0": "${div:1,0}",
    "${} that subtracts text": "${sub:a,1}",
    "${} not closed": "${div:1",
    "short schedule": [0, 1.0],
    "odd schedule": [0, 1.0, 2.0, 10, 3.0],
    "schedule with text": [0, "a", 1.0, 10],
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
}
NO_SUCH_KEY = "no_such_key"
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutation:
    """A config with one fault, and the keys that a message about the fault may name."""

    config: str
    kind: str
    key: str
    tree: dict
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.config}: {self.key}: {self.kind}"


def dotted(path: Path) -> str:
    """system.scheduler.schedulers[1].args, as OmegaConf writes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def keys(tree: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all keys, those of sections included; a list of plain values counts as one value."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from keys(value, (*path, key))
    elif isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        for index, value in enumerate(tree):
            yield from keys(value, (*path, index))


def at(tree: Any, path: Path) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _deleted(section: Any, key: Any) -> None:
    del section[key]


def _misspelt(section: Any, key: Any) -> None:
    section[_doubled(key)] = section.pop(key)


def _doubled(key: str) -> str:
    return key[:2] + key[1:]


def _with_a_neighbour(section: Any, key: Any) -> None:
    section[NO_SUCH_KEY] = 1


def _wrapped(section: Any, key: Any) -> None:
    section[key] = [section[key]]


def _shorter(section: Any, key: Any) -> None:
    section[key].pop()


def _longer(section: Any, key: Any) -> None:
    section[key].append(section[key][-1])


def _reversed(section: Any, key: Any) -> None:
    section[key].reverse()


def _with_a_text(section: Any, key: Any) -> None:
    section[key][0] = "rubbish"


IN_MAPPINGS = {"deleted": _deleted, "misspelt": _misspelt, "neighbour": _with_a_neighbour}
OF_LISTS = {"shorter": _shorter, "longer": _longer, "reversed": _reversed, "item of text": _with_a_text}


def changes(tree: dict, path: Path) -> dict[str, Callable[[Any, Any], None]]:
    """The mutations that apply to a key, by kind."""
    found: dict[str, Callable] = {"in a list": _wrapped}
    found |= {kind: lambda section, key, value=value: section.update({key: value}) for kind, value in VALUES.items()}
    if isinstance(path[-1], int):
        found = {kind: lambda section, key, v=value: section.__setitem__(key, v) for kind, value in VALUES.items()}
    else:
        found |= IN_MAPPINGS
    value = at(tree, path)
    return found | (OF_LISTS if isinstance(value, list) and value else {})


def names_for(tree: dict, path: Path, kind: str) -> tuple[str, ...]:
    """The mutated key, the keys computed from it, and below the second level the section that holds it."""
    key = dotted(path)
    found = [key, *(dotted(other) for other in keys(tree) if _refers(at(tree, other), key))]
    if kind == "misspelt":
        found.append(dotted((*path[:-1], _doubled(path[-1]))))
    if kind == "neighbour":
        found.append(dotted((*path[:-1], NO_SUCH_KEY)))
    return tuple(found + ([dotted(path[:-1])] if len(path) > 2 else []))


def _refers(value: Any, key: str) -> bool:
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and "${" in text and key in text for text in texts)


def mutations(config: str, tree: dict, count: int, seed: int) -> list[Mutation]:
    """`count` mutations of a config's tree: sections by turns, and of the kinds the one that was used least."""
    rng = random.Random(f"{seed} {config}")
    sections: dict[Path, list[Path]] = {}
    for path in keys(tree):
        sections.setdefault(path[:-1], []).append(path)
    used: Counter[str] = Counter()
    made: dict[tuple[str, str], Mutation] = {}
    while len(made) < count:
        for paths in sections.values():
            path = rng.choice(paths)
            applicable = changes(tree, path)
            kind = min(rng.sample(sorted(applicable), len(applicable)), key=used.__getitem__)
            used[kind] += 1
            mutated = copy.deepcopy(tree)
            applicable[kind](at(mutated, path[:-1]), path[-1])
            if mutated != tree:
                names = names_for(tree, path, kind)
                made.setdefault((dotted(path), kind), Mutation(config, kind, dotted(path), mutated, names))
    return list(made.values())[:count]
