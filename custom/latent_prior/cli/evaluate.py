"""`latent-prior evaluate WHAT`: measure runs against the truth of the pocket world."""

import argparse

EXAMPLES = """examples:
  latent-prior evaluate text-to-3d --prompts "a red mug" "a golden duck" --out outputs/evaluation
  latent-prior evaluate stylegan --prompts "a golden mug" --out outputs/evaluation_stylegan
  latent-prior evaluate editing --edits "golden mug" --out outputs/evaluation_editing
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add the evaluations, each with its flags."""
    from latent_prior import evaluate

    p.epilog = EXAMPLES
    evaluate.add_commands(p.add_subparsers(dest="what", required=True, metavar="what"))
