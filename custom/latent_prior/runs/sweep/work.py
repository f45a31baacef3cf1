"""One run as a job of submitit: its command runs in the job's own process, which then records how it went.

A job that starts again, after a kill, a preemption or a time limit, continues its run from the newest checkpoint.
"""

import contextlib
import dataclasses
import json
import os
import resource
import runpy
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from latent_prior import OptionError
from latent_prior.files import lock, write_text
from latent_prior.runs import folder as run_folder

INTERRUPTED = 130  # exit code: the run stopped early and is to be continued
BAD_INPUT = 2  # exit code
POLL_SECONDS = 1.0  # between two looks whether the sweep is still there
GRACE_SECONDS = 60.0  # for a run to save, once it is asked to stop
KIBI = 1 if sys.platform == "darwin" else 1024  # unit of the system's peak memory: bytes there, KiB elsewhere


@dataclass(frozen=True)
class Record:
    """How a run went: a JSON file beside its log."""

    exit_code: int | None = None  # None: its process was killed
    seconds: float | None = None  # from the start of its process to the end, over all starts; None if one is unknown
    peak_bytes: int | None = None  # most memory of its process
    error: str | None = None  # its last message, if it failed

    @property
    def finished(self) -> bool:
        """Whether the run is done with, well or not: it does not start again by itself."""
        return self.exit_code != INTERRUPTED

    @property
    def failed(self) -> bool:
        return self.finished and self.exit_code != 0

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(dataclasses.asdict(self)) + "\n")

    @staticmethod
    def read(path: Path) -> "Record | None":
        """None if there is no such file; OptionError for a broken one."""
        try:
            values = json.loads(path.read_text())
            known = {part.name for part in dataclasses.fields(Record)}
            if not isinstance(values, dict) or not {"exit_code", "seconds"} <= values.keys() <= known:
                raise ValueError("not a record")
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise OptionError.because(f"{path} is broken: remove it, and the run is made again") from error
        return Record(**values)


@dataclass(frozen=True)
class Work:
    """The run of a command, as a callable for submitit.

    command: a module and its arguments, as after `python -m`. owner: the process on this machine that wants the run,
    which stops if that has gone; None on a cluster.
    """

    command: tuple[str, ...]
    run: Path
    record: Path
    drop_checkpoints: bool = False  # remove the checkpoints of a run that ended well
    owner: int | None = None

    @property
    def log(self) -> Path:
        """What the run prints; a run that continues appends to it."""
        return self.record.with_suffix(".log")

    def __call__(self) -> None:
        """Run the command, and write the record."""
        started = time.time() - psutil.Process().create_time()
        begun = time.monotonic()
        if "SLURM_CPUS_PER_TASK" in os.environ:
            os.environ["OMP_NUM_THREADS"] = os.environ["SLURM_CPUS_PER_TASK"]
        before = Record.read(self.record)
        self.record.unlink(missing_ok=True)
        command = self._next_command()
        if self.owner is not None:
            threading.Thread(target=_stop_without, args=(self.owner, os.getppid()), daemon=True).start()
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with _requeued_when_asked() as requeue, _into(self.log):
            offset = self.log.stat().st_size
            code = run_command(command)
        earlier: float | None = 0.0
        if command != self.command:
            earlier = before.seconds if before is not None else None
        Record(
            exit_code=code,
            seconds=None if earlier is None else earlier + started + time.monotonic() - begun,
            peak_bytes=_peak_bytes(),
            error=None if code in (0, INTERRUPTED) else f"exit code {code}: {last_line(self.log, offset)}",
        ).write(self.record)
        if code == INTERRUPTED:
            requeue()
        if code == 0 and self.drop_checkpoints:
            shutil.rmtree(self.run / "ckpts", ignore_errors=True)

    def checkpoint(self) -> Any:
        """For submitit, which submits what this returns when the job is preempted or out of time: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _next_command(self) -> tuple[str, ...]:
        """The command; to resume the run, if it has a checkpoint. What is left of a run without one is removed."""
        if (self.run / "configs" / run_folder.PARSED).is_file() and run_folder.newest(self.run / "ckpts"):
            return ("latent_prior", "resume", str(self.run))
        if self.run.exists():
            held = lock.locked(self.run)
            shutil.rmtree(self.run)
            held.release()
        return self.command


def run_command(command: tuple[str, ...]) -> int:
    """Run `python -m command` in this process; returns its exit code."""
    module, *arguments = command
    argv, sys.argv = sys.argv, [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.argv = argv
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


@contextlib.contextmanager
def _requeued_when_asked() -> Iterator[Any]:
    """In the block, submitit's signal (preempted, or almost out of time) stops the run as Ctrl-C does.

    Yields what to call once the run has stopped: it requeues the job, if that was the reason, and then does not return.
    """
    asked: list[int] = []
    requeue = signal.getsignal(signal.SIGUSR2)

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGUSR2, stop)
    try:
        yield lambda: callable(requeue) and asked and requeue(asked[0], None)
    finally:
        signal.signal(signal.SIGUSR2, requeue)


def _stop_without(owner: int, parent: int) -> None:
    """Stop this process when the sweep, or the process between, has gone: it shall not disturb a second sweep."""
    try:
        sweep = psutil.Process(owner)
        while os.getppid() == parent and sweep.is_running() and sweep.status() != psutil.STATUS_ZOMBIE:
            time.sleep(POLL_SECONDS)
    except psutil.Error:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def _into(log: Path) -> Iterator[None]:
    """In the block, everything that this process prints is appended to a file."""
    kept = [os.dup(number) for number in (1, 2)]
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for number, original in zip((1, 2), kept, strict=True):
            os.dup2(original, number)
            os.close(original)


def _peak_bytes() -> int:
    """The most memory that this process, or one that it started, ever held."""
    return KIBI * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def last_line(log: Path, offset: int = 0) -> str:
    """The last error that a log says from `offset` on, or its last line."""
    if not log.is_file():
        return "no output"
    with log.open("rb") as file:
        file.seek(offset)
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no output"])[-1].removeprefix("error: ")
