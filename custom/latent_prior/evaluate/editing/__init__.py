"""`latent-prior evaluate editing`: edit fixed pictures with every editor, measure them, write tables and a sheet."""

import argparse

from latent_prior.evaluate.bench.arguments import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--edits", nargs="+", metavar="WORDS", help='only edits of the list that contain these words: "golden mug"'
    )
    parser.add_argument(
        "--with-mask",
        nargs="*",
        metavar="LABEL",
        help="variants that are also run with the mask given (default: ours, if present; none: just the flag)",
    )
    parser.add_argument("--no-blended", action="store_true", help="leave out blended latent diffusion (edit-masked)")


COMMAND = Command(
    summary="editors of pictures",
    help="""Measure editors of pictures against the ground truth of the pocket world.

Renders the pictures of the fixed edits, launches every editor on each of them in its own process, and compares the
results with the original and the true picture. Anything already in --out is not repeated, so an evaluation that was
stopped continues when the same command is run again.""",
    examples="""examples:
  ten fixed edits: CLIP-guided, LSD alone and ours (LSD + FM + KL), ours with the mask, and blended latent diffusion
    latent-prior evaluate editing

  one edit, three seeds
    latent-prior evaluate editing --edits "golden mug" --seeds 0 1 2

  another weight, on the edits for tuning
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
    lists={"editing": "the 10 fixed edits", "tuning": "4 others for tuning"},
    also_written="pictures/",
    flags=_flags,
)
HELP, SUMMARY, add_arguments = COMMAND.help, COMMAND.summary, COMMAND.add_arguments
