"""Readers run on files in child processes, which may be killed, and what each file cost there.

A case is (name, reader, path): `reader(path)` is called in the child, so it must be a function of a module that can be
imported. One child works through the cases until one of them kills it or takes too long; the next child goes on.
"""

import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

Case = tuple[str, Callable[[Path], Any], Path]

PRELOADED = ["torch", "numpy", "PIL.Image", "omegaconf", "peft", "latent_prior.models.latent_prior"]
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
ROOM = 4 << 30  # bytes of address space that a child may add, so that a bomb ends it and not the machine
PATIENCE = 20.0  # seconds after which a case counts as hung


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `how` is "read", "refused" (OptionError), "raised", "died" or "hung"."""

    name: str
    how: str
    # The message without the path of the file's folder, which may be of any length; with the exception's type unless
    # refused. The exit code of a child that died.
    text: str = ""
    seconds: float = 0.0  # of the processor, which does not depend on what else is running
    growth: int = 0  # bytes of resident memory at the peak, above those at the start
    started: list[str] = field(default_factory=list)  # programs, as audit events

    def faults(self, may_read: bool = False, longest: float = 5.0, most: int = 1 << 30) -> list[str]:
        """What a hostile file must not do, in words; none if it was refused well (or read, where it `may_read`)."""
        found = [f"it {self.how}: {self.text[:300]}"] if self.how not in ("refused", "read") else []
        if self.how == "read" and not may_read:
            found.append("it was read")
        if self.how == "refused" and not (self.text.isprintable() and 0 < len(self.text) < 300):
            found.append(f"its message has {len(self.text)} characters: {self.text[:400]!r}")
        if self.seconds > longest:
            found.append(f"it took {self.seconds:.1f} s")
        if self.growth > most:
            found.append(f"it took {self.growth >> 20} MB")
        return found + [f"it started {what}" for what in self.started]


def outcomes(cases: Sequence[Case], patience: float = PATIENCE) -> list[Outcome]:
    """The outcome of every case, in order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    found: list[Outcome] = []
    while len(found) < len(cases):
        found += _one_child(context, cases[len(found) :], patience)
    return found


def _one_child(context: Any, cases: Sequence[Case], patience: float) -> Iterator[Outcome]:
    """The outcomes of cases up to the end, or to the first that costs the child its life."""
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(theirs, cases), daemon=True)
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # the server, once started, keeps ours
        child.start()
    theirs.close()
    try:
        ours.recv()  # the imports are done
        for name, *_ in cases:
            if not ours.poll(patience):
                yield Outcome(name, "hung", seconds=patience)
                return
            try:
                yield ours.recv()
            except EOFError:
                child.join()
                yield Outcome(name, "died", f"exit code {child.exitcode}")
                return
    finally:
        child.kill()
        child.join()


def _work(results: Connection, cases: Sequence[Case]) -> None:
    from latent_prior import OptionError

    platform.platform()  # which starts uname, and remembers its answer
    started: list[str] = []
    sys.addaudithook(lambda event, args: started.append(f"{event} {args[0]!r}") if event in STARTS else None)
    results.send("ready")
    for name, reader, path in cases:
        started.clear()
        resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + ROOM, resource.RLIM_INFINITY))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        before, start = _memory("VmHWM"), time.process_time()
        try:
            reader(path)
            how, text = "read", ""
        except OptionError as error:
            how, text = "refused", str(error).replace(f"{path.parent}{os.sep}", "")
        except BaseException as error:
            how, text = "raised", f"{type(error).__name__}: {str(error)[:1000]}"
        seconds, growth = time.process_time() - start, _memory("VmHWM") - before
        results.send(Outcome(name, how, text, seconds, growth, list(started)))


def _memory(entry: str) -> int:
    """An entry of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) << 10
    raise LookupError(entry)
