"""`latent-prior train-pocket-stylegan`: train the pocket StyleGAN from scratch."""

import argparse

from latent_prior import OptionError
from latent_prior.cli.train_pocket import QUICK, trained_in

EXAMPLES = """examples:
  latent-prior train-pocket-stylegan --quick --work outputs/stylegan_quick --out outputs/stylegan_quick/weights
  latent-prior train-pocket-stylegan
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=train_pocket_stylegan)
    p.epilog = EXAMPLES
    p.add_argument("--work", default="outputs/pocket_stylegan_training", help="folder for pictures, states and logs")
    p.add_argument(
        "--out", default="outputs/pocket_stylegan_training/weights", help="folder for the generator and its figures"
    )
    p.add_argument(
        "--path-weight", type=float, default=0.0, help="of path length regularisation (adversarial stage; default: 0)"
    )
    p.add_argument("--quick", action="store_true", help=QUICK)


def train_pocket_stylegan(args: argparse.Namespace) -> None:
    """The command."""
    if not 0 <= args.path_weight < float("inf"):
        raise OptionError("--path-weight", args.path_weight, "a number of at least 0")
    from latent_prior.pocket.training.stylegan_everything import train_stylegan

    with trained_in(args) as (work, out):
        train_stylegan(work, out, args.quick, args.path_weight)
