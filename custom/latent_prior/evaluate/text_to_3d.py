"""`latent-prior evaluate text-to-3d`: run or read text-to-3D runs, measure them, write tables and a contact sheet."""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_prior import OptionError
from latent_prior.evaluate import arguments

if TYPE_CHECKING:
    from latent_prior.evaluate.jobs import Job
    from latent_prior.evaluate.launches import Launch

HELP = """Measure text-to-3D runs against the truth of the pocket world.

Launches `latent-prior generate` for every prompt, seed and config, each in a process of its own, or reads runs that are
there (--runs); then compares field and mesh with the true solid, and lets the judge CLIP name what it sees. Whatever is
in --out already is not made again, so an evaluation that was stopped goes on when the same command is given again."""

EXAMPLES = """examples:
  the 16 fixed prompts, 8 of them held out of the prior's training, with the defaults of custom/latent_prior.yaml
    latent-prior evaluate text-to-3d

  the full objective beside LSD alone, three seeds
    latent-prior evaluate text-to-3d --seeds 0 1 2 --config full=latent_prior --config "LSD alone=pocket_dreamfusion"

  the same config with and without feature matching, on the prompts that may be tuned on
    latent-prior evaluate text-to-3d --list tuning --config latent_prior \\
        --config "no FM=latent_prior" system.loss.lambda_fm=0 system.guidance.use_fm=false

  own prompts; what holds for every config comes first
    latent-prior evaluate text-to-3d trainer.max_steps=800 --prompts "a red mug" "a golden duck" --out outputs/two

  runs that are there
    latent-prior evaluate text-to-3d --runs outputs/latent_prior --out outputs/old_runs

written to --out:
  table.md, runs.csv, summary.csv, summary.json, contact_sheet-seed0.png (one a seed); runs/ launches/ results/
"""

NO_JUDGE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(action=evaluate)
    parser.epilog = EXAMPLES
    arguments.add_what(
        parser,
        ("benchmark", "tuning"),
        "fixed prompts: the 16 of the benchmark (default)",
        '"a red mug" "a striped blue house"',
    )
    arguments.add_how(parser, "latent_prior", "outputs/evaluation")
    parser.add_argument(
        "--judge", metavar="DIR", help="checkpoint folder with the judge (default: the pocket prior's); none: no judge"
    )


def evaluate(args: argparse.Namespace) -> None:
    """The command. Raises ValueError for bad input, naming the flag."""
    out = arguments.checked_out(args)
    jobs = _jobs(args, out)
    judge = None if args.judge == NO_JUDGE else _load_judge(Path(args.judge) if args.judge else None)

    from latent_prior.evaluate import report

    files = _measure_all(jobs, out, args.jobs, judge, args.measure_again)
    print(report.summary_of(jobs))
    print("\n" + "\n".join(str(path) for path in files))


def _jobs(args: argparse.Namespace, out: Path) -> "list[Job]":
    from latent_prior.evaluate import jobs, prompts

    if args.runs:
        given = arguments.given_jobs(args, out)
        for job in given:
            arguments.check_pocket_prompt(job.prompt, f"--runs: {job.run}")
        return given
    variants = jobs.variants(args.config or [["latent_prior"]], args.overrides)
    return arguments.planned_jobs(args, out, prompts.LISTS, variants, arguments.check_pocket_prompt)


@dataclass(frozen=True)
class JudgeFrom:
    """The judge and the digest of its weights."""

    judge: Any
    digest: str


def _load_judge(folder: Path | None) -> JudgeFrom:

    import latent_prior
    from latent_prior.pocket.judge import Judge

    folder = folder or Path(latent_prior.__file__).parent / "pocket" / "weights"
    weights = sorted((folder / "judge").glob("*.safetensors"))
    if not weights:
        raise OptionError.because(
            f"--judge: {folder} has no judge/*.safetensors; `--judge none` leaves out R-precision"
        )
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in weights)).hexdigest()[:12]
    return JudgeFrom(Judge.load(str(folder / "judge")), digest)


def _measure_all(jobs: "Sequence[Job]", out: Path, workers: int, judge: JudgeFrom | None, again: bool) -> list[Path]:
    """Launch and measure what is not measured yet; tables are written after every run, the sheet at the end."""
    from latent_prior.evaluate import loop, report

    digest = judge.digest if judge else ""

    def measure(job: "Job", launch: "Launch") -> str:
        result = report.measure_job(job, launch, judge.judge if judge else None, digest)
        report.write_tables(jobs, out, workers)
        return result.error or f"IoU {result.iou:.3f}, {result.psnr:.1f} dB"

    loop.run_all(jobs, [job for job in jobs if again or not report.is_current(job, digest)], workers, measure)
    return report.write_tables(jobs, out, workers) + report.write_sheets(jobs, out)
