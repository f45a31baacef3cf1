"""`python launch.py`: run an experiment with threestudio's flags; without a mode flag: train, test and export."""

import argparse
import importlib.util
import logging
from collections.abc import Sequence

from latent_prior import OptionError
from latent_prior.cli import host_arguments, results
from latent_prior.cli.errors import guarded
from latent_prior.runs.experiment import MODES, WHOLE_JOB, run


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="launch.py",
        description="Run an experiment. Without a mode flag the whole job runs: train, test (turntable), export (mesh).",
        epilog='example: python launch.py --config custom/latent_prior.yaml system.prompt_processor.prompt="a red mug"',
    )
    p.add_argument("--config", required=True, help="the experiment's YAML, e.g. custom/latent_prior.yaml")
    host_arguments.add_run_arguments(p)
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--train", action="store_true", help="train, then render the turntable")
    mode.add_argument("--validate", action="store_true", help="render the validation views of resume=CHECKPOINT")
    mode.add_argument("--test", action="store_true", help="render the turntable of resume=CHECKPOINT")
    mode.add_argument("--export", action="store_true", help="write the mesh of resume=CHECKPOINT")
    p.add_argument("--verbose", action="store_true", help="log at level DEBUG, and show where an error came from")
    p.add_argument(
        "--typecheck", action="store_true", help="check shapes at run time (slow; changes the random numbers)"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """`python launch.py`; returns the exit code."""
    args = parser().parse_intermixed_args(argv)
    modes = {"train": ("train", "test"), "validate": ("validate",), "test": ("test",), "export": ("export",)}
    chosen = next((modes[m] for m in MODES if getattr(args, m)), WHOLE_JOB)
    if args.verbose:
        logging.getLogger("pytorch_lightning").setLevel(logging.DEBUG)

    def action() -> None:
        host_arguments.choose(args)
        if args.typecheck:
            from jaxtyping import install_import_hook

            if importlib.util.find_spec("beartype") is None:
                raise OptionError.because("--typecheck needs beartype: pip install beartype")
            install_import_hook("latent_prior", "beartype.beartype")
        results.show(run([args.config], args.overrides, chosen, args.gpu).folder)

    return guarded(action, args.verbose)
