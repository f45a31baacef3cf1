"""`latent-prior evaluate stylegan`: run or load adaptations of StyleGAN2, measure them, write tables and a sheet."""

import argparse

from latent_prior.evaluate.bench.arguments import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=int, default=2000, metavar="N", help="per generator (default: 2000)")
    parser.add_argument(
        "--truncation", type=float, default=1.0, metavar="PSI", help="default: 1, where z determines the pocket scene"
    )
    parser.add_argument(
        "--real", metavar="DIR", help="true pictures of a single prompt, instead of rendered ones; PSNR is then omitted"
    )
    parser.add_argument(
        "--features",
        metavar="FILE",
        help="TorchScript network (a program: use only trusted ones) for pictures in [0, 1], or NVIDIA's "
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

Launches `latent-prior generate` for every prompt, seed and config, each in its own process, or loads existing runs
(--runs); then compares each generator's pictures with true pictures of the prompt: rendered ones, or those of a folder
(--real). The generator that runs start from is measured too. Anything already in --out is not repeated, so an
evaluation that was stopped continues when the same command is run again.""",
    examples="""examples:
  five fixed prompts: LSD alone, StyleGAN-NADA and ours (LSD + FM + KL) side by side
    latent-prior evaluate stylegan

  three seeds, fewer pictures
    latent-prior evaluate stylegan --seeds 0 1 2 --pictures 500

  another weight, on the prompts for tuning
    latent-prior evaluate stylegan --list tuning --config ours=pocket_stylegan \\
        --config "more FM=pocket_stylegan" system.loss.lambda_fm=0.1

  existing runs
    latent-prior evaluate stylegan --runs outputs/pocket_stylegan --out outputs/old_runs

  the real world: pictures of the domain, Inception as TorchScript, another CLIP for the CLIP score
    latent-prior evaluate stylegan --runs outputs/sd_stylegan_cat --real pictures/foxes --truncation 0.7 \\
        --features inception-2015-12-05.pt --judge openai/clip-vit-base-patch32
""",
    plan="latent_prior.evaluate.stylegan.evaluation",
    configs={"LSD": "pocket_stylegan_lsd", "NADA": "pocket_stylegan_nada", "ours": "pocket_stylegan"},
    out="outputs/evaluation_stylegan",
    lists={"adaptation": "the 5 fixed prompts", "tuning": "3 others for tuning"},
    prompts='"a golden mug" "a blue jug"',
    also_written="truth/",
    flags=_flags,
)
HELP, SUMMARY, add_arguments = COMMAND.help, COMMAND.summary, COMMAND.add_arguments
