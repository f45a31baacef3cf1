"""Commands of ours in child processes, and the accidents that befall them at chosen moments.

    step = "latent_prior.systems.text_to_3d:LatentPriorSystem.training_step"
    run = start(["generate", "a red mug", ...], tmp_path / "said", Moment(step, (signal.SIGKILL,), call=3))
    assert run.end() == -signal.SIGKILL

The children come from a server that has imported what is heavy, so one costs a fraction of a second. `MAIN` runs the
console script, `LAUNCH` launch.py.
"""

import functools
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch",
    "numpy",
    "omegaconf",
    "pytorch_lightning",
    "pytorch_lightning.loggers",
    "latent_prior.registration",
]
MAIN, LAUNCH = "latent_prior.cli:main", "latent_prior.cli.launch:main"
PATIENCE = 300.0  # seconds; only a test that fails waits that long


@dataclass(frozen=True)
class Moment:
    """Signals that a process sends to itself as a function is called, or (after) as it returns, for the `call`th time.

    function: "module:name" or "module:Class.name".
    """

    function: str
    signals: tuple[int, ...]
    call: int = 1
    after: bool = False

    def arm(self) -> None:
        """In the child: wrap the function."""
        module, _, path = self.function.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        original, calls = getattr(owner, name), 0

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            due = calls == self.call
            if due and not self.after:
                strike(self.signals)
            result = original(*args, **kwargs)
            if due and self.after:
                strike(self.signals)
            return result

        setattr(owner, name, watched)


def strike(signals: tuple[int, ...]) -> None:
    """Send the signals to this process, one after another."""
    for number in signals:
        os.kill(os.getpid(), number)


@dataclass
class Running:
    """A command in a child process; what it says goes to files."""

    process: Any
    said: Path  # without suffix

    @property
    def out(self) -> str:
        return self.said.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        return self.said.with_suffix(".err").read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until the condition holds; an error if the process ends before."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if not self.process.is_alive() or time.monotonic() > deadline:
                raise AssertionError(f"it ended ({self.process.exitcode}) or waits in vain:\n{self.err}")
            time.sleep(0.005)

    def send(self, *signals: int) -> None:
        for number in signals:
            os.kill(self.process.pid, number)

    def end(self) -> int:
        """The exit code, once it has ended: negative if a signal ended it."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"it did not end:\n{self.err}")
        return self.process.exitcode


def start(argv: list[str], said: Path, *moments: Moment, program: str = MAIN, terminal: str = "") -> Running:
    """Start a command; `said` is where its output goes, with the suffixes .out and .err, if not to a terminal."""
    said.parent.mkdir(parents=True, exist_ok=True)
    process = _context().Process(target=_work, args=(argv, said, moments, program, terminal), daemon=True)
    process.start()
    return Running(process, said)


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # the server takes its paths and its host from the environment that it starts in
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[2] / "custom"), str(Path(__file__).parents[1])]
    )
    os.environ.setdefault("LATENT_PRIOR_HOST", "embedded")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return context


def _work(argv: list[str], said: Path, moments: tuple[Moment, ...], program: str, terminal: str) -> None:
    os.setsid()  # a group of its own: a signal to the tests' group is not meant for it; and the terminal becomes its own
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        if terminal:
            file = os.open(terminal, os.O_RDWR)  # only what may be read becomes one's own terminal
        else:
            file = os.open(said.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["latent-prior", *argv]
    for moment in moments:
        moment.arm()
    module, _, name = program.partition(":")
    sys.exit(getattr(importlib.import_module(module), name)(argv))
