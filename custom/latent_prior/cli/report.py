"""`latent-prior report DIR`: the page of a run, or the gallery of many."""

import argparse
import sys
from pathlib import Path

from latent_prior import OptionError

HELP = """Write report.html into the folder of a run, of a sweep, of an evaluation, or of any runs.

A run's page shows the mesh in 3D, the film, before and after, the pictures and losses on the way, the settings and the
command to repeat it. A gallery shows many runs, to filter and to sort, each leading to its page. Both are one file that
opens from disk and loads nothing from a network. Every run writes its page by itself; this writes it again."""

EXAMPLES = """examples:
  latent-prior report outputs/latent_prior/a_red_mug@20260101-120000
  latent-prior report outputs/latent_prior      # a gallery of all runs in it
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=report)
    p.description, p.epilog = HELP, EXAMPLES
    p.add_argument("folder", metavar="DIR", type=Path, help="folder of a run, or of many")


def report(args: argparse.Namespace) -> None:
    """The command. The runs of a gallery get pages where they have none."""
    if not args.folder.is_dir():
        raise OptionError.because(f"{args.folder} is not a folder", "DIR")
    from tqdm import tqdm

    from latent_prior import report
    from latent_prior.report import gallery, run_page

    if not run_page.is_run(args.folder):
        runs = [run for run in gallery.runs(args.folder) if run_page.is_run(run)]
        missing = [run for run in runs if not (run / report.NAME).is_file()]
        for run in tqdm(missing, desc="report", unit="page", file=sys.stderr, disable=not missing):
            run_page.write(run)
    print(report.write(args.folder))
