"""The evaluation's main loop: launch and measure under one progress bar; Ctrl-C prints how to continue."""

import contextlib
import sys
from pathlib import Path

from tqdm import tqdm

from latent_prior.evaluate.bench.evaluation import Evaluation
from latent_prior.evaluate.bench.launches import Launcher


def run(evaluation: Evaluation, out: Path, workers: int, again: bool) -> None:
    """Launch and measure what is not measured yet (again: everything). Tables are written after every run, sheets last.

    Raises SystemExit(130) on Ctrl-C.
    """
    jobs = evaluation.jobs
    left = [job for job in jobs if again or not evaluation.is_current(job)]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(left), desc="evaluate", unit="run", file=sys.stderr)
    bar.refresh()
    try:
        with bar, contextlib.closing(Launcher(workers).stream(left)) as ended:
            for job, launch in ended:
                result = evaluation.measure_job(job, launch)
                evaluation.write_tables(out, workers)
                seed = "" if job.seed is None else f", seed {job.seed}"
                bar.write(f"{job.prompt} [{job.label}{seed}]: {evaluation.in_a_line(result)}", file=sys.stderr)
                bar.update()
    except KeyboardInterrupt:
        print("\nStopped. The same command continues from here.", file=sys.stderr)
        raise SystemExit(130) from None
    files = evaluation.write_tables(out, workers) + evaluation.write_sheets(out)
    print(evaluation.summary())
    print("\n" + "\n".join(str(path) for path in files))
