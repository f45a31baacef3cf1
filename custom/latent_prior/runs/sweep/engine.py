"""Where runs are made: on this machine, some at a time, or as job arrays of a SLURM cluster; submitit starts them all."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import psutil

import latent_prior
from latent_prior import OptionError
from latent_prior.runs.sweep.work import GRACE_SECONDS, Record, Work, last_line

LOCAL_POLL, SLURM_POLL = 0.05, 2.0  # seconds between two looks for ended jobs
A_MONTH = 60 * 24 * 30  # minutes; the local executor wants a limit
LARGEST_ARRAY = 1000  # jobs; SLURM's default limit is 1001
GONE = "its process was killed, or its machine failed"


@runtime_checkable
class Engine(Protocol):
    """Makes runs."""

    at_once: int  # runs that share the machine; 1 for a machine or an allocation each

    def stream(self, works: Sequence[Work]) -> Iterator[Work]:
        """Run them; each comes when it has ended. Closing the iterator stops those that run, which save first."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Local:
    """On this machine, `at_once` at a time. Each gets its share of the cores, and one of `gpus` if there are any.

    With one at a time, the next starts only when the caller asks for it, so that measuring a run does not slow down the
    next. Terminals send Ctrl-C and their closing to every process: runs do not hear of these, but of our stopping.
    """

    def __init__(self, folder: Path, at_once: int, gpus: Sequence[int] = ()) -> None:
        self.at_once = at_once
        _submitit()
        self._folder = folder
        self._gpus = [gpus[i % len(gpus)] if gpus else None for i in range(at_once)]

    def stream(self, works: Sequence[Work]) -> Iterator[Work]:
        waiting, free = list(reversed(works)), list(reversed(self._gpus))
        running: dict[Any, tuple[Work, int | None]] = {}
        executor = _submitit().LocalExecutor(self._folder / "submitit") if works else None

        def fill() -> None:
            while waiting and free:
                work, gpu = waiting.pop(), free.pop()
                running[self._submit(executor, work, gpu)] = work, gpu

        try:
            while waiting or running:
                fill()
                job = next((job for job in running if job.done()), None)
                if job is None:
                    time.sleep(LOCAL_POLL)
                    continue
                work, gpu = running.pop(job)
                free.append(gpu)
                _conclude(job, work)
                if self.at_once > 1:
                    fill()
                yield work
        finally:
            _stop(list(running))
            shutil.rmtree(self._folder / "submitit", ignore_errors=True)

    def _submit(self, executor: Any, work: Work, gpu: int | None) -> Any:
        gpus: dict[str, Any] = {} if gpu is None else {"gpus_per_node": 1, "visible_gpus": [gpu]}
        executor.update_parameters(timeout_min=A_MONTH, stderr_to_stdout=True, **gpus)
        threads = {"OMP_NUM_THREADS": str(max(1, cores() // self.at_once))} if self.at_once > 1 else {}
        with environment(**threads), _unheard(signal.SIGINT, signal.SIGHUP):
            return executor.submit(work)


class Slurm:
    """As arrays of jobs. parameters: those of submitit's SlurmExecutor."""

    at_once = 1

    def __init__(self, folder: Path, **parameters: Any) -> None:
        if shutil.which("sbatch") is None:
            raise OptionError.because("slurm needs the programs of a SLURM cluster, and there is no sbatch", "--on")
        self._folder = folder
        self._name = f"latent-prior-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"
        self._parameters = {"job_name": self._name, "stderr_to_stdout": True, **parameters}
        _submitit()

    def stream(self, works: Sequence[Work]) -> Iterator[Work]:
        if left := _asked("squeue", "--noheader", "--format=%i", f"--name={self._name}").split():
            raise OptionError.because(
                f"{len(left)} jobs of an earlier call are on the cluster: wait for them, or scancel --name={self._name}"
            )
        running: dict[Any, Work] = {}
        try:
            for start in range(0, len(works), LARGEST_ARRAY):
                running |= self._submit(works[start : start + LARGEST_ARRAY])
            while running:
                queued = self._queued()
                # a job that has left the queue wrote its record before
                for job in [job for job, work in running.items() if job.job_id not in queued or _is_finished(work)]:
                    work = running.pop(job)
                    _conclude(job, work)
                    yield work
                if running:
                    time.sleep(SLURM_POLL)
        finally:
            if running:
                _asked("scancel", f"--name={self._name}")
            else:
                shutil.rmtree(self._folder / "submitit", ignore_errors=True)

    def _submit(self, works: Sequence[Work]) -> dict[Any, Work]:
        from submitit.core.utils import FailedJobError

        executor = _submitit().SlurmExecutor(self._folder / "submitit")
        executor.update_parameters(**self._parameters)
        try:
            with environment(), executor.batch():
                jobs = [executor.submit(work) for work in works]
            return dict(zip(jobs, works, strict=True))
        except FailedJobError as error:
            raise OptionError.because(f"the cluster refused the jobs: {_words_of(error)}", "--on slurm") from error

    def _queued(self) -> set[str]:
        """Ids of our jobs that wait or run."""
        return set(_asked("squeue", "--noheader", "--array", "--format=%i", f"--name={self._name}").split())


def _is_finished(work: Work) -> bool:
    record = Record.read(work.record)
    return record is not None and record.finished


def _conclude(job: Any, work: Work) -> None:
    """Record a run whose process was killed, and remove what submitit wrote about it."""
    try:
        found = Record.read(work.record)
    except OptionError:
        found = None
    if found is None:
        said = last_line(job.paths.stdout)
        Record(error=f"{GONE}; its last words: {said}" if "Error" in said else GONE).write(work.record)
    for path in (job.paths.submitted_pickle, job.paths.result_pickle, job.paths.stdout):
        path.unlink(missing_ok=True)


def _stop(jobs: Sequence[Any]) -> None:
    """Stop what runs here, and wait until it has saved."""
    end = time.monotonic() + GRACE_SECONDS
    asked: set[int] = set()
    while any(not job.done() for job in jobs) and time.monotonic() < end:
        for job in jobs:
            with contextlib.suppress(psutil.Error):
                for task in psutil.Process(int(job.job_id)).children():  # of submitit's controller
                    if task.pid not in asked:
                        asked.add(task.pid)
                        task.terminate()
        time.sleep(LOCAL_POLL)


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[dict[str, str]]:
    """In the block, jobs that are started find this package, and these variables; yields that environment."""
    package = str(Path(latent_prior.__file__).resolve().parent.parent)
    before = dict(os.environ)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ.update(variables, PYTHONPATH=os.pathsep.join(paths))
    try:
        yield dict(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _unheard(*signals: signal.Signals) -> Iterator[None]:
    """In the block, the signals wait, and processes that are started never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise OptionError.because(
            "runs are started by submitit, which is not installed: pip install submitit (the extra `sweep`)"
        ) from error
    return submitit


def _asked(*command: str) -> str:
    """What a program of the cluster answers. OptionError with its own words if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OptionError.because(f"{command[0]} failed: {done.stderr.strip()}", "--on slurm")
    return done.stdout


def _words_of(error: Exception) -> str:
    """The cluster's own words in an error of submitit's."""
    said = [line.partition("error: ")[2] for line in str(error).splitlines() if "error: " in line]
    return "; ".join(said) or str(error)
