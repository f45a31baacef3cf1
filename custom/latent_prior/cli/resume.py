"""`latent-prior resume RUN_DIR`: continue an interrupted run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from latent_prior.cli import host_arguments, results
from latent_prior.runs import experiment
from latent_prior.runs.folder import config_of, last_checkpoint

EXAMPLES = """examples:
  latent-prior resume outputs/latent_prior/a_red_mug@20260101-120000
  latent-prior resume outputs/latent_prior/a_red_mug@20260101-120000 trainer.max_steps=500
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=resume)
    p.epilog = EXAMPLES
    p.add_argument("run", metavar="RUN_DIR", help="folder of a run, e.g. outputs/<name>/<tag>@<time>")
    host_arguments.add_run_arguments(p)


def resume(args: argparse.Namespace) -> None:
    """The command."""
    host_arguments.choose(args)
    folder = Path(args.run)
    checkpoint = last_checkpoint(folder)
    run = experiment.run(
        [str(config_of(folder))],
        args.overrides,
        gpu=args.gpu,
        resume=str(checkpoint),
        **in_place(folder, args.overrides),
    )
    results.show(run.folder)


def in_place(folder: Path, overrides: Sequence[str]) -> dict[str, str]:
    """Settings with which a run continues in `folder`, even if it was moved, or where the overrides say."""
    folder = folder.resolve()
    own = {"exp_root_dir": str(folder.parent.parent), "name": folder.parent.name, "tag": folder.name, "timestamp": ""}
    given = {override.partition("=")[0] for override in overrides}
    return {key: value for key, value in own.items() if key not in given}
