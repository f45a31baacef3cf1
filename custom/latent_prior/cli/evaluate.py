"""`latent-prior evaluate WHAT`: measure runs against the truth of the pocket world."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

EXAMPLES = """examples:
  latent-prior evaluate text-to-3d --prompts "a red mug" "a golden duck" --out outputs/evaluation
  latent-prior evaluate stylegan --prompts "a golden mug" --out outputs/evaluation_stylegan
  latent-prior evaluate editing --edits "golden mug" --out outputs/evaluation_editing
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add the evaluations, each with its flags."""
    from latent_prior import evaluate

    p.epilog = EXAMPLES
    kinds = p.add_subparsers(dest="what", required=True, metavar="what")
    evaluate.add_commands(kinds)
    for parser in kinds.choices.values():
        parser.set_defaults(action=partial(_evaluated, parser.get_default("action")))


def _evaluated(evaluation: Callable[[argparse.Namespace], Path], args: argparse.Namespace) -> None:
    """The command: an evaluation, and the gallery of its runs."""
    out = evaluation(args)
    from latent_prior import report

    print(report.write(out))
