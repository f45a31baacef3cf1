"""Hostile files of weights: what a case is, and seeded damage to valid files. `corpus_weights.py` has the cases."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One hostile file (or folder): how it is made in an empty folder, and by which of READERS it is read."""

    name: str
    reader: str
    write: Callable[[Path], Path]
    readable: bool = False  # the reader may accept it: a flipped bit in a weight, say


def damaged(data: bytes, seed: int, cuts: int, flips: int) -> Iterator[tuple[str, bytes]]:
    """A file cut short `cuts` times, and with some bytes changed `flips` times, most of them near its ends."""
    draw = random.Random(seed)
    for i in range(cuts):
        yield f"cut{i}", data[: int(len(data) * draw.random() ** 2)]
    for i in range(flips):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 3, 20))):
            near = draw.choice((len(data), min(len(data), 400)))
            at = draw.randrange(near) if draw.random() < 0.5 else len(data) - 1 - draw.randrange(near)
            changed[at] = draw.randrange(256)
        yield f"flip{i}", bytes(changed)
