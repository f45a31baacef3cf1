"""`latent-prior train-pocket`: train the pocket prior from scratch, or the pocket flow prior beside it."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latent_prior import OptionError
from latent_prior.files import lock, remove_partial
from latent_prior.files.refusals import NotWritten, naming
from latent_prior.runs.folder import Stopped

QUICK = "a few steps of everything: checks that it runs, trains nothing useful"

OUT = {"diffusion": "outputs/pocket/weights", "flow": "outputs/pocket/flow_weights"}

EXAMPLES = """examples:
  latent-prior train-pocket --quick --work outputs/pocket_quick --out outputs/pocket_quick/weights
  latent-prior train-pocket
  latent-prior train-pocket --start-from pocket --only-unet
  latent-prior train-pocket --prior flow
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=train_pocket)
    p.epilog = EXAMPLES
    p.add_argument("--work", default="outputs/pocket", help="folder for pictures, states and logs")
    p.add_argument(
        "--out", help=f"folder for the finished checkpoint (default: {OUT['diffusion']}, of a flow {OUT['flow']})"
    )
    p.add_argument(
        "--prior",
        choices=list(OUT),
        default="diffusion",
        help="diffusion: the pocket prior (default); flow: the pocket flow prior, on the same pictures, with the "
        "autoencoder, the text encoder and the judge of --start-from (default: pocket)",
    )
    p.add_argument(
        "--start-from",
        metavar="FOLDER",
        help="start from a finished checkpoint (pocket: the shipped one): its autoencoder is kept, and its text "
        "encoder except for the words of views and cameras; the rest is trained further",
    )
    p.add_argument("--only-unet", action="store_true", help="with --start-from: keep its CLIPs as well")
    p.add_argument("--quick", action="store_true", help=QUICK)


def train_pocket(args: argparse.Namespace) -> None:
    """The command."""
    from latent_prior.models.checkpoint import POCKET_FOLDER
    from latent_prior.pocket.training.everything import train_everything, train_flow_prior

    if args.only_unet and not args.start_from:
        raise OptionError.because("expected with --start-from FOLDER, whose other parts are kept", "--only-unet")
    if args.only_unet and args.prior == "flow":
        raise OptionError.because("expected without --prior flow, which has no UNet", "--only-unet")
    args.out = args.out or OUT[args.prior]
    start_from = args.start_from and (POCKET_FOLDER if args.start_from == "pocket" else Path(args.start_from))
    with trained_in(args) as (work, out):
        if args.prior == "flow":
            train_flow_prior(work, out, args.quick, start_from or POCKET_FOLDER)
        else:
            train_everything(work, out, args.quick, start_from, args.only_unet)


@contextmanager
def trained_in(args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """The folders of a training, `--work` and `--out`, which nothing else uses meanwhile; what to do if it stops."""
    with lock.owned(Path(args.work), "--work") as work:
        remove_partial(work)
        with lock.owned(Path(args.out), "--out") as out:
            remove_partial(out)
            try:
                with naming(work):
                    yield work, out
            except NotWritten as error:
                kept = f"what is trained is kept in {work}, and the same command continues from here"
                raise Stopped.because(f"{error}; {kept}") from error
            except KeyboardInterrupt:
                print("\nThe same command continues from here.", file=sys.stderr)
                raise
