"""`latent-prior convert-stylegan IN OUT`: convert a StyleGAN2 generator from one file format to another."""

import argparse

EXAMPLES = """examples:
  latent-prior convert-stylegan ffhq.pkl ffhq.safetensors
  latent-prior convert-stylegan ffhq.safetensors ffhq.pt
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=convert_stylegan)
    p.epilog = EXAMPLES
    p.add_argument("source", metavar="IN", help="NVIDIA's .pkl, rosinality's .pt or .pth, or our .safetensors")
    p.add_argument("target", metavar="OUT", help=".safetensors (ours), or .pt or .pth (rosinality's); must not be IN")


def convert_stylegan(args: argparse.Namespace) -> None:
    """The command."""
    from latent_prior.stylegan2 import files as stylegan2_files

    print(stylegan2_files.convert(args.source, args.target))
