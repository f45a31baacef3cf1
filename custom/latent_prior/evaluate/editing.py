"""`latent-prior evaluate editing`: edit fixed pictures with every editor, measure them, write tables and a sheet."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from latent_prior import OptionError
from latent_prior.evaluate import arguments

if TYPE_CHECKING:
    from latent_prior.pocket.edits import Edit

HELP = """Measure editors of pictures against the truth of the pocket world.

Draws the pictures of the fixed edits, launches every editor on every one in a process of its own, and compares what they
make with the picture as it was and as it should be. Whatever is in --out already is not made again, so an evaluation
that was stopped goes on when the same command is given again."""

EXAMPLES = """examples:
  ten fixed edits: CLIP-guided, LSD alone and ours (LSD + FM + KL), ours with the mask, and blended latent diffusion
    latent-prior evaluate editing

  one of them, three seeds
    latent-prior evaluate editing --edits "golden mug" --seeds 0 1 2

  a weight on the edits that may be tuned on
    latent-prior evaluate editing --list tuning --no-blended --with-mask --config ours=pocket_layered_editing \\
        --config "sparser=pocket_layered_editing" system.loss.lambda_sparsity=1

written to --out:
  table.md, runs.csv, summary.json, contact_sheet-seed0.png (one a seed); pictures/ runs/ launches/ results/
"""

CONFIGS = [["CLIP=pocket_layered_editing_clip"], ["LSD=pocket_layered_editing_lsd"], ["ours=pocket_layered_editing"]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(action=evaluate)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="config values to override in every run; before the flags"
    )
    parser.add_argument(
        "--list",
        choices=("editing", "tuning"),
        default="editing",
        help="fixed edits: the 10 that results are told of (default), or 4 others that may be tuned on",
    )
    parser.add_argument(
        "--edits", nargs="+", metavar="WORDS", help='only those of the list with these words: "golden mug"'
    )
    parser.add_argument(
        "--with-mask",
        nargs="*",
        metavar="LABEL",
        help="variants that are run with the mask given as well (default: ours, where it is there; none: just the flag)",
    )
    parser.add_argument("--no-blended", action="store_true", help="leave out blended latent diffusion (edit-masked)")
    arguments.add_how(
        parser,
        "CLIP=pocket_layered_editing_clip, LSD=pocket_layered_editing_lsd, ours=pocket_layered_editing",
        "outputs/evaluation_editing",
    )


def evaluate(args: argparse.Namespace) -> None:
    """The command. Raises ValueError for bad input, naming the flag."""
    out = arguments.checked_out(args)
    chosen = _chosen(args)

    import latent_prior
    from latent_prior import host
    from latent_prior.evaluate import editing_jobs, editing_report, jobs, loop
    from latent_prior.evaluate.editing_jobs import EditJob
    from latent_prior.evaluate.editing_measure import Measurer
    from latent_prior.evaluate.editing_table import OURS
    from latent_prior.evaluate.launches import Launch
    from latent_prior.pocket.judge import Judge

    seeds = args.seeds or [0]
    arguments.require_once(seeds, "--seeds")
    variants = jobs.variants(args.config or CONFIGS, args.overrides)
    with_mask = args.with_mask
    if with_mask is None:
        with_mask = [OURS] if any(variant.label == OURS for variant in variants) else []
    editors = editing_jobs.editors(variants, with_mask, blended=not args.no_blended)
    todo = editing_jobs.planned(chosen, editors, seeds, out, args.gpu)
    judge = Path(latent_prior.__file__).parent / "pocket" / "weights" / "judge"
    measurer = Measurer(Judge.load(str(judge), host.get_device()))
    report = editing_report.Report(todo, out, args.jobs)

    def measure(job: EditJob, launch: Launch) -> str:
        result = editing_report.measure_job(job, launch, measurer)
        report.write_tables()
        return result.error or editing_report.told(result)

    left = [job for job in todo if args.measure_again or not editing_report.is_current(job, measurer.digest)]
    loop.run_all(todo, left, args.jobs, measure)
    files = report.write_tables() + report.write_sheets()
    print(report.summary())
    print("\n" + "\n".join(str(path) for path in files))


def _chosen(args: argparse.Namespace) -> "list[Edit]":
    from latent_prior.pocket.edits import EDITS, TUNING_EDITS

    listed = {"editing": EDITS, "tuning": TUNING_EDITS}[args.list]
    if not args.edits:
        return list(listed)
    for words in args.edits:
        if not any(words.replace(" ", "_") in edit.name for edit in listed):
            known = ", ".join(edit.told for edit in listed)
            raise OptionError.because(
                f"--edits: no edit of the list {args.list} has {words!r} in it; there are: {known}"
            )
    return [edit for edit in listed if any(words.replace(" ", "_") in edit.name for words in args.edits)]
