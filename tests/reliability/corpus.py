"""Hostile files: what a case is, seeded damage to valid files, and children that read the files under a watch.

A kind of file has a reader, the function that a user's flag or config key reaches, and cases: makers that write one
file (or folder) each into a folder of their own. A module of cases has them as CASES, the functions that read them as
READERS, and what these import as PRELOAD. `corpus_weights.py` is the one for weights.
"""

import importlib
import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS, BYTES, CHARACTERS = 5.0, 1 << 30, 300  # what a case may take, and how long its message may be
PATIENCE = 4 * SECONDS  # before a child is killed: a busy machine is slower
BATCH = 20  # cases for each child


@dataclass(frozen=True)
class Case:
    """One hostile file: how it is made in an empty folder, and by whom it is read."""

    name: str
    reader: str
    write: Callable[[Path], Path]
    readable: bool = False  # the reader may accept it: a flipped bit in a weight, say


@dataclass(frozen=True)
class Outcome:
    """What became of a case. verdict: refused, read, traceback, crash or hang."""

    case: Case
    verdict: str
    message: str = ""
    seconds: float = 0.0  # of the processor
    growth: int = 0  # bytes of memory

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; empty if it is as promised."""
        allowed = ("refused", "read") if self.case.readable else ("refused",)
        long = self.verdict == "refused" and len(self.message) >= CHARACTERS
        found = {
            self.verdict: self.verdict not in allowed,
            f"{self.seconds:.1f} s": self.seconds > SECONDS,
            f"{self.growth >> 20} MB": self.growth > BYTES,
            f"{len(self.message)} characters": long,
            "unprintable": self.verdict == "refused" and not self.message.isprintable(),
        }
        return [fault for fault, holds in found.items() if holds]


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


def outcomes(cases: list[Case], folder: Path, module: str) -> list[Outcome]:
    """Write and read each case of a module, several to a child; a child that hangs or dies is replaced."""
    paths = []
    for i, case in enumerate(cases):
        own = folder / str(i)
        own.mkdir()
        paths.append(case.write(own))
    found: list[Outcome] = []
    while len(found) < len(cases):
        rest = slice(len(found), min(len(found) + BATCH, len(cases)))
        work = [(case.reader, path) for case, path in zip(cases[rest], paths[rest], strict=True)]
        here, child = _started(module, work)
        for case in cases[rest]:
            try:
                result = here.recv() if here.poll(PATIENCE) else ("hang", "", PATIENCE)
            except EOFError:
                child.join()
                result = ("crash", f"exit code {child.exitcode}")
            found.append(Outcome(case, *result))
            if found[-1].verdict in ("hang", "crash"):
                child.kill()
                break
        child.join()
    return found


def _started(module: str, work: list[tuple[str, Path]]):
    """A child that reads what it is given, forked from a server that has imported what is slow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(importlib.import_module(module).PRELOAD)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # which the server does not get otherwise
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(there, module, work), daemon=True)
    child.start()
    there.close()
    return here, child


def _child(pipe, module: str, work: list[tuple[str, Path]]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (10 << 30, 10 << 30))  # rather an error than a machine without memory
    with open(os.devnull, "w") as nowhere:  # what libraries print
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    readers = importlib.import_module(module).READERS
    for name, path in work:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, started = _memory("VmRSS"), time.process_time()
        verdict, message = _attempt(readers[name], path)
        pipe.send((verdict, message, time.process_time() - started, _memory("VmHWM") - before))


def _attempt(reader: Callable[[Path], object], path: Path) -> tuple[str, str]:
    from latent_prior import OptionError

    try:
        reader(path)
    except OptionError as error:
        return "refused", str(error)
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {str(error)[:200]}"
    return "read", ""


def _memory(field: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))
