"""The flags of every command that runs an experiment: its overrides, its GPU and its host."""

import argparse
import os
import sys

from latent_prior import OptionError
from latent_prior.runs.gpus import gpus, one_gpu

GPU_HELP = "number of the one GPU to use (default: 0); without a GPU the CPU is used"
GPUS_HELP = (
    "number of the GPU to use (default: 0), or of several to train on, such as 0,1; without a GPU the CPU is used"
)


def add_run_arguments(p: argparse.ArgumentParser, trains: bool = True) -> None:
    """Overrides, `--gpu` and the host's flags; trains: the run may use several GPUs."""
    p.add_argument("overrides", nargs="*", metavar="key=value", help="config values to override")
    p.add_argument("--gpu", default="0", help=GPUS_HELP if trains else GPU_HELP)
    p.set_defaults(check_gpu=gpus if trains else one_gpu)
    add_arguments(p)


def add_arguments(p: argparse.ArgumentParser) -> None:
    """`--host` and `--threestudio`, for every command that runs an experiment."""
    p.add_argument(
        "--host",
        choices=("auto", "embedded", "threestudio"),
        help="the framework to use; auto (default): threestudio if it is available, else our embedded host",
    )
    p.add_argument("--threestudio", metavar="DIR", help="threestudio's checkout (default: $THREESTUDIO_ROOT)")


def choose(args: argparse.Namespace) -> None:
    """Pass the choice of `add_arguments` to `latent_prior.host`, which reads it from the environment."""
    if args.threestudio:
        os.environ["THREESTUDIO_ROOT"] = args.threestudio
    if args.host:
        loaded = sys.modules.get("latent_prior.host")
        if loaded is not None and args.host not in ("auto", loaded.NAME):
            raise OptionError.because(
                f"--host {args.host}: this process already uses the {loaded.NAME} host; start a new one"
            )
        os.environ["LATENT_PRIOR_HOST"] = args.host
