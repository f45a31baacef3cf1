"""`latent-prior evaluate WHAT`: measure runs against the truth of the pocket world."""

import argparse

EXAMPLES = """examples:
  latent-prior evaluate text-to-3d --prompts "a red mug" "a golden duck" --out outputs/evaluation
  latent-prior evaluate stylegan --prompts "a golden mug" --out outputs/evaluation_stylegan
  latent-prior evaluate editing --edits "golden mug" --out outputs/evaluation_editing
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The evaluations, each with its flags."""
    from latent_prior.evaluate import editing, stylegan, text_to_3d

    p.epilog = EXAMPLES
    kinds = p.add_subparsers(dest="what", required=True, metavar="what")
    text_to_3d.add_arguments(kinds.add_parser("text-to-3d", help="text-to-3D runs", description=text_to_3d.HELP))
    editing.add_arguments(kinds.add_parser("editing", help="editors of pictures", description=editing.HELP))
    stylegan.add_arguments(kinds.add_parser("stylegan", help="adapted StyleGAN2 generators", description=stylegan.HELP))
