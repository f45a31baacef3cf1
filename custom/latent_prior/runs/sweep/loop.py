"""The loop over many runs: what ended before, what is started now, one bar with time left, and Ctrl-C."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from latent_prior import OptionError
from latent_prior.files.refusals import NotWritten, naming
from latent_prior.runs.folder import Stopped
from latent_prior.runs.sweep.engine import Engine, Local
from latent_prior.runs.sweep.jobs import Job
from latent_prior.runs.sweep.work import BAD_INPUT, Record, Work, last_line


def run(
    jobs: Sequence[Job],
    done: int,
    engine: Engine,
    out: Path,
    ended: Callable[[Job, Record], str],
    label: str,
    again: bool = False,
    drop_checkpoints: bool = False,
) -> None:
    """Run the jobs that have not ended; `ended` is called with each in turn, and returns a line to print.

    done: jobs that the bar counts beside these. again: repeat those that failed. Raises SystemExit(130) on Ctrl-C,
    OptionError where a run refuses its input, and `Stopped` where the system refuses to write.
    """
    bar = tqdm(total=done + len(jobs), initial=done, desc=label, unit="run", file=sys.stderr)
    bar.refresh()
    try:
        with naming(out), bar, contextlib.closing(stream(jobs, engine, again, drop_checkpoints)) as records:
            for job, record in records:
                bar.write(ended(job, record), file=sys.stderr)
                bar.update()
    except KeyboardInterrupt:
        print("\nStopped. The same command continues from here.", file=sys.stderr)
        raise SystemExit(130) from None
    except NotWritten as error:
        raise Stopped.because(f"{error}; what is done is kept, and the same command continues from here") from error


def stream(
    jobs: Sequence[Job], engine: Engine, again: bool = False, drop_checkpoints: bool = False
) -> Iterator[tuple[Job, Record]]:
    """Every job with its record: first those that ended before, then the others as they end."""
    owner = os.getpid() if isinstance(engine, Local) else None
    left: dict[Work, Job] = {}
    for job in jobs:
        record = ended_before(job, again)
        if record is not None:
            yield job, record
        else:
            if (before := Record.read(job.record)) is not None and before.failed:
                job.record.unlink()  # it says nothing about the run that follows
            left[Work(job.command, job.run, job.record, drop_checkpoints, owner)] = job
    with contextlib.closing(engine.stream(list(left))) as ended:
        for work in ended:
            job, record = left[work], Record.read(work.record)
            if record.exit_code == BAD_INPUT and not (job.run / "configs").is_dir():
                job.record.unlink()
                raise OptionError.because(f"the run {job.prompt!r} of {job.label!r} was refused: {last_line(work.log)}")
            yield job, record


def ended_before(job: Job, again: bool = False) -> Record | None:
    """The record of a job that is done with; None if it is to be run (again: even if it failed)."""
    if job.command is None:
        return Record(exit_code=0)
    record = Record.read(job.record)
    if record is None or not record.finished or (record.failed and again):
        return None
    return record if job.run.is_dir() or record.failed else None
