"""`latent-prior evaluate editing`: edit fixed pictures with every editor, measure them, write tables and a sheet."""

import argparse

from latent_prior.evaluate.bench.arguments import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--edits", nargs="+", metavar="WORDS", help='only those of the list with these words: "golden mug"'
    )
    parser.add_argument(
        "--with-mask",
        nargs="*",
        metavar="LABEL",
        help="variants that are run with the mask given as well (default: ours, where it is there; none: just the flag)",
    )
    parser.add_argument("--no-blended", action="store_true", help="leave out blended latent diffusion (edit-masked)")


COMMAND = Command(
    summary="editors of pictures",
    help="""Measure editors of pictures against the truth of the pocket world.

Draws the pictures of the fixed edits, launches every editor on every one in a process of its own, and compares what they
make with the picture as it was and as it should be. Whatever is in --out already is not made again, so an evaluation
that was stopped goes on when the same command is given again.""",
    examples="""examples:
  ten fixed edits: CLIP-guided, LSD alone and ours (LSD + FM + KL), ours with the mask, and blended latent diffusion
    latent-prior evaluate editing

  one of them, three seeds
    latent-prior evaluate editing --edits "golden mug" --seeds 0 1 2

  a weight on the edits that may be tuned on
    latent-prior evaluate editing --list tuning --no-blended --with-mask --config ours=pocket_layered_editing \\
        --config "sparser=pocket_layered_editing" system.loss.lambda_sparsity=1
""",
    plan="latent_prior.evaluate.editing.evaluation",
    configs={
        "CLIP": "pocket_layered_editing_clip",
        "LSD": "pocket_layered_editing_lsd",
        "ours": "pocket_layered_editing",
    },
    out="outputs/evaluation_editing",
    lists={"editing": "the 10 fixed edits", "tuning": "4 others that may be tuned on"},
    also_written="pictures/",
    flags=_flags,
)
HELP, SUMMARY, add_arguments = COMMAND.help, COMMAND.summary, COMMAND.add_arguments
