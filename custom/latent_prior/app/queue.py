"""The runs that the app starts: one process each, so many at a time, the others wait in order.

A run belongs to the server and not to a page: pages come and go. Each is a command of the console script in a session of
its own, so that Ctrl-C in the server's terminal does not reach it twice. To stop it is to send SIGTERM, which the
commands answer by saving, and exit code 130.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latent_prior.runs.sweep.engine import cores
from latent_prior.runs.sweep.work import INTERRUPTED, last_line

WAITING, RUNNING, STOPPING, DONE, STOPPED, FAILED = "waiting", "running", "stopping", "done", "stopped", "failed"
ACTIVE = (WAITING, RUNNING, STOPPING)
GRACE_SECONDS = 120.0  # for runs to save when the server ends


@dataclass(eq=False)
class Job:
    """One run in the queue.

    command: as after `python -m`. folder: of the run, which the command creates. log: what it prints; a run that goes on
    appends to it.
    """

    kind: str
    title: str
    command: tuple[str, ...]
    folder: Path
    log: Path
    state: str = WAITING
    exit_code: int | None = None
    offset: int = 0  # where in the log this process begins
    process: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def error(self) -> str | None:
        """The one line that a failed command printed last."""
        return last_line(self.log, self.offset) if self.state == FAILED else None


class Queue:
    """Starts jobs in the order in which they came, at most `at_once` at a time. Safe to call from several threads."""

    def __init__(self, at_once: int = 1):
        self.at_once = at_once
        self._jobs: list[Job] = []
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._closed = False

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs since the server started, oldest first."""
        with self._lock:
            return tuple(self._jobs)

    def of(self, folder: Path) -> Job | None:
        """The newest job of a run's folder."""
        return next((job for job in reversed(self.jobs) if job.folder == folder), None)

    def before(self, job: Job) -> int:
        """How many runs have to end before this one starts."""
        with self._lock:
            ahead = [other for other in self._jobs[: self._jobs.index(job)] if other.active]
            return max(0, len(ahead) - self.at_once + 1) if job.state == WAITING else 0

    def add(self, job: Job, unless_active: bool = False) -> Job:
        """Queue a job. unless_active: if its folder already has one that has not ended, return that one instead."""
        with self._lock:
            if unless_active and (other := self.of(job.folder)) is not None and other.active:
                return other
            self._jobs.append(job)
            self._fill()
        return job

    def stop(self, job: Job) -> None:
        """Take a waiting job out; ask a running one to save and end. Returns at once."""
        with self._lock:
            if job.state == WAITING:
                job.state = STOPPED
            elif job.state in (RUNNING, STOPPING) and job.process is not None:
                job.state = STOPPING
                job.process.send_signal(signal.SIGTERM)

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition, which is looked at whenever a job ends, holds within so many seconds."""
        with self._idle:
            return self._idle.wait_for(until, seconds)

    def close(self, seconds: float = GRACE_SECONDS) -> tuple[Job, ...]:
        """Stop everything, start nothing more, and wait until all have saved; returns the jobs that did not end well."""
        with self._lock:
            self._closed = True
            stopped = tuple(job for job in self._jobs if job.active)
            for job in stopped:
                self.stop(job)
        self.wait(lambda: not any(job.active for job in stopped), seconds)
        return tuple(job for job in stopped if job.state != DONE)

    def _fill(self) -> None:
        """Start waiting jobs where there is room."""
        for job in self._jobs:
            running = sum(other.state in (RUNNING, STOPPING) for other in self._jobs)
            if job.state == WAITING and running < self.at_once and not self._closed:
                self._start(job)

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        # several processes with a thread for every core each slow one another down many times over
        threads = {"OMP_NUM_THREADS": str(max(1, cores() // self.at_once))} if self.at_once > 1 else {}
        with job.log.open("ab") as log:
            job.offset = log.tell()
            try:
                job.process = subprocess.Popen(
                    [sys.executable, "-m", *job.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **threads},
                )
            except OSError as error:
                log.write(f"error: the process does not start: {error}\n".encode())
                job.state = FAILED
                return
        job.state = RUNNING
        threading.Thread(target=self._watch, args=(job, job.process), daemon=True).start()

    def _watch(self, job: Job, process: subprocess.Popen) -> None:
        code = process.wait()
        with self._idle:
            job.exit_code = code
            # a signal that comes before Python handles it ends the process itself
            asked = job.state == STOPPING and code in (-signal.SIGTERM, INTERRUPTED)
            job.state = DONE if code == 0 else STOPPED if asked or code == INTERRUPTED else FAILED
            self._fill()
            self._idle.notify_all()


def stamp() -> str:
    """The end of a run's folder name: its time."""
    return time.strftime("%Y%m%d-%H%M%S")


def free_name(name: str, taken: Callable[[str], bool]) -> str:
    """`name`, or with -1, -2, ... appended, whichever is not taken."""
    number, found = 0, name
    while taken(found):
        number += 1
        found = f"{name}-{number}"
    return found


def shown_command(command: Sequence[str]) -> str:
    """A job's command as one types it."""
    import shlex

    return shlex.join(["latent-prior", *command[1:]])
