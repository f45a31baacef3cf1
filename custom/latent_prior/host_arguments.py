"""The flags that choose the host: `--host` and `--threestudio`, for every command that runs an experiment."""

import argparse
import os
import sys

from latent_prior import OptionError


def add_arguments(p: argparse.ArgumentParser) -> None:
    """`--host` and `--threestudio`, for every command that runs an experiment."""
    p.add_argument(
        "--host",
        choices=("auto", "embedded", "threestudio"),
        help="the framework to run in; auto (default): threestudio where it is there, else our embedded host",
    )
    p.add_argument("--threestudio", metavar="DIR", help="threestudio's checkout (default: $THREESTUDIO_ROOT)")


def choose(args: argparse.Namespace) -> None:
    """Hand the choice of `add_arguments` to the seam, which reads it from the environment."""
    if args.threestudio:
        os.environ["THREESTUDIO_ROOT"] = args.threestudio
    if args.host:
        loaded = sys.modules.get("latent_prior.host")
        if loaded is not None and args.host not in ("auto", loaded.NAME):
            raise OptionError.because(
                f"--host {args.host}: this process runs on the {loaded.NAME} host already; start a new one"
            )
        os.environ["LATENT_PRIOR_HOST"] = args.host
