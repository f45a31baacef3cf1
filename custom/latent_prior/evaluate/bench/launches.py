"""Launching runs: each `latent-prior generate` in its own process, timed from launch to exit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import latent_prior
from latent_prior import OptionError
from latent_prior.evaluate.bench.jobs import Job
from latent_prior.files import lock

STOPWATCH = Path(__file__).with_name("stopwatch.py")
BAD_INPUT = 2  # exit code


@dataclass(frozen=True)
class Launch:
    """Statistics of a run. None if it was not launched here; `error` is its last message if it failed."""

    seconds: float | None = None
    peak_bytes: int | None = None
    error: str | None = None


class Launcher:
    """Launches jobs, up to `workers` at a time, and stops them when the evaluation stops."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._running: set[subprocess.Popen] = set()
        self._stopped = False
        self._environment = _environment(workers)

    def stream(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Launch]]:
        """Every job with its launch, in order of completion. Existing jobs come at once.

        With one worker, nothing is launched until the caller asks for the next job, so that measuring a run does not
        slow down the one being timed. Raises OptionError if a run rejects its input.
        """
        try:
            if self.workers == 1:
                for job in jobs:
                    yield job, self.launch(job)
                return
            with ThreadPoolExecutor(self.workers) as pool:
                futures = {pool.submit(self.launch, job): job for job in jobs}
                try:
                    for future in as_completed(futures):
                        yield futures[future], future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.stop()
                    raise
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop everything that is running or about to start."""
        self._stopped = True
        for process in list(self._running):
            process.terminate()

    def launch(self, job: Job) -> Launch:
        """Run the job's command, unless an earlier evaluation has done so."""
        if job.command is None:
            return Launch()
        log = job.launch.with_suffix(".log")
        if not (job.launch.is_file() and job.run.is_dir()):
            job.launch.unlink(missing_ok=True)
            if job.run.exists():  # left incomplete by an evaluation that was killed
                held = lock.locked(job.run)
                shutil.rmtree(job.run)
                held.release()
            job.launch.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                command = [sys.executable, str(STOPWATCH), str(job.launch), *job.command]
                process = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment
                )
                self._running.add(process)
                if self._stopped:
                    process.terminate()
                try:
                    process.wait()
                finally:
                    if process.poll() is None:
                        process.terminate()
                        process.wait()  # then its run is gone too
                    self._running.discard(process)
        if not job.launch.is_file():
            return Launch(error="stopped before its end")
        try:
            figures = json.loads(job.launch.read_text())
            figures = {name: figures[name] for name in ("exit_code", "seconds", "peak_bytes")}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise OptionError.because(f"{job.launch} is broken: remove it, and the run is made again") from error
        if figures["exit_code"] == 0:
            return Launch(figures["seconds"], figures["peak_bytes"])
        error = f"exit code {figures['exit_code']}: {_last_line(log)}"
        if figures["exit_code"] != BAD_INPUT:
            job.launch.unlink()  # it may have been killed: the next evaluation retries
        elif not (job.run / "configs").is_dir():
            job.launch.unlink()
            raise OptionError.because(f"the run {job.prompt!r} of {job.label!r} was refused: {_last_line(log)}")
        return Launch(figures["seconds"], figures["peak_bytes"], error)


def _environment(workers: int) -> dict[str, str]:
    """Our environment, with this package in the path, and the cores divided among concurrent runs."""
    package = str(Path(latent_prior.__file__).resolve().parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if workers > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        environment["OMP_NUM_THREADS"] = str(max(1, cores // workers))
    return environment


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no output"])[-1].removeprefix("error: ")
