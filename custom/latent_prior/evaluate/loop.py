"""The evaluation's loop: launch and measure what is to be done, under one progress bar; Ctrl-C says how to go on."""

import contextlib
import sys
from collections.abc import Callable, Sequence

from tqdm import tqdm

from latent_prior.evaluate.jobs import Job
from latent_prior.evaluate.launches import Launch, Launcher


def run_all(jobs: Sequence[Job], todo: Sequence[Job], workers: int, measure: Callable[[Job, Launch], str]) -> None:
    """Launch `todo`, the part of `jobs` that is left; `measure` takes each as it ends, and returns what to say of it.

    Raises SystemExit(130) on Ctrl-C.
    """
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="evaluate", unit="run", file=sys.stderr)
    bar.refresh()
    try:
        with bar, contextlib.closing(Launcher(workers).stream(todo)) as ended:
            for job, launch in ended:
                told = measure(job, launch)
                seed = "" if job.seed is None else f", seed {job.seed}"
                bar.write(f"{job.prompt} [{job.label}{seed}]: {told}", file=sys.stderr)
                bar.update()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        raise SystemExit(130) from None
