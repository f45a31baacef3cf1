"""The evaluation's main loop: runs on an engine, each measured as it ends."""

from pathlib import Path

from latent_prior.evaluate.bench.evaluation import Evaluation
from latent_prior.runs.sweep import loop
from latent_prior.runs.sweep.engine import Engine
from latent_prior.runs.sweep.jobs import Job
from latent_prior.runs.sweep.work import Record


def run(evaluation: Evaluation, out: Path, engine: Engine, again: bool = False, measure_again: bool = False) -> None:
    """Run and measure what is not measured yet. Tables are written after every run, sheets last.

    again: repeat runs that failed; measure_again: measure everything. Raises as `loop.run` does.
    """

    def ended(job: Job, record: Record) -> str:
        result = evaluation.measure_job(job, record)
        evaluation.write_tables(out, engine.at_once)
        seed = "" if job.seed is None else f", seed {job.seed}"
        return f"{job.prompt} [{job.label}{seed}]: {evaluation.in_a_line(result)}"

    left = [job for job in evaluation.jobs if measure_again or not evaluation.is_current(job, again)]
    loop.run(left, len(evaluation.jobs) - len(left), engine, out, ended, "evaluate", again)
    files = evaluation.write_tables(out, engine.at_once) + evaluation.write_paired(out) + evaluation.write_sheets(out)
    print(evaluation.summary())
    print("\n" + "\n".join(str(path) for path in files))
