"""`latent-prior evaluate stylegan`: run or read adaptations of StyleGAN2, measure them, write tables and a sheet."""

import argparse

from latent_prior.evaluate.bench.arguments import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=int, default=2000, metavar="N", help="of each generator (default: 2000)")
    parser.add_argument(
        "--truncation", type=float, default=1.0, metavar="PSI", help="default: 1, with which z fixes the pocket scene"
    )
    parser.add_argument(
        "--real", metavar="DIR", help="true pictures of the one prompt, instead of rendered ones; then there is no PSNR"
    )
    parser.add_argument(
        "--features",
        metavar="FILE",
        help="TorchScript network (a program: use none that you do not trust) from pictures in [0, 1], or NVIDIA's "
        "Inception, for Fréchet distance and diversity (default: the judge's picture embeddings)",
    )
    parser.add_argument(
        "--judge",
        metavar="CLIP",
        help="folder in transformers' layout or hub id (default: the pocket prior's judge); none: no CLIP score",
    )


COMMAND = Command(
    summary="adapted StyleGAN2 generators",
    help="""Measure StyleGAN2 generators that were adapted to a prompt.

Launches `latent-prior generate` for every prompt, seed and config, each in a process of its own, or reads runs that are
there (--runs); then compares each generator's pictures with true pictures of what the prompt names: rendered ones, or
those of a folder (--real). The generator that runs start from is measured beside them. Whatever is in --out already is
not made again, so an evaluation that was stopped goes on when the same command is given again.""",
    examples="""examples:
  five fixed prompts: LSD alone, StyleGAN-NADA and ours (LSD + FM + KL) side by side
    latent-prior evaluate stylegan

  three seeds, fewer pictures
    latent-prior evaluate stylegan --seeds 0 1 2 --pictures 500

  a weight on the prompts that may be tuned on
    latent-prior evaluate stylegan --list tuning --config ours=pocket_stylegan \\
        --config "more FM=pocket_stylegan" system.loss.lambda_fm=0.1

  runs that are there
    latent-prior evaluate stylegan --runs outputs/pocket_stylegan --out outputs/old_runs

  the real world: pictures of the domain, Inception as TorchScript, another CLIP for the CLIP score
    latent-prior evaluate stylegan --runs outputs/sd_stylegan_cat --real pictures/foxes --truncation 0.7 \\
        --features inception-2015-12-05.pt --judge openai/clip-vit-base-patch32
""",
    plan="latent_prior.evaluate.stylegan.evaluation",
    configs={"LSD": "pocket_stylegan_lsd", "NADA": "pocket_stylegan_nada", "ours": "pocket_stylegan"},
    out="outputs/evaluation_stylegan",
    lists={"adaptation": "the 5 fixed prompts", "tuning": "3 others that may be tuned on"},
    prompts='"a golden mug" "a blue jug"',
    also_written="truth/",
    flags=_flags,
)
HELP, SUMMARY, add_arguments = COMMAND.help, COMMAND.summary, COMMAND.add_arguments
