"""`latent-prior edit-masked`: its flags, and what is refused before anything is loaded."""

import argparse
import time
from pathlib import Path

from latent_prior import OptionError

SHORTEST_SIDE = 16  # that can be asked for, in pixels

HELP = """Edit a picture by a prompt inside a mask, by blended latent diffusion (Avrahami et al. 2023).

Several samples are drawn and ranked by how near CLIP finds the masked part to the prompt. The decoder is then fitted to
the best one, so that what lies outside the mask comes back as it was. The picture is worked on at the checkpoint's size."""

EXAMPLES = """examples:
  latent-prior edit-masked photo.png --mask mask.png --prompt "a golden mug"
  latent-prior edit-masked photo.png --mask mask.png --prompt "a golden mug" --samples 8 --seed 1 --out outputs/golden
  latent-prior edit-masked horse.jpg --mask horse.png --prompt "a zebra" --clip openai/clip-vit-base-patch32 \\
      --checkpoint stable-diffusion-v1-5/stable-diffusion-v1-5

written to --out:
  composite.png (the best), before_after.png, samples.png (best first), samples/, samples.csv, origin.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(action=edit_masked)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = HELP, EXAMPLES
    parser.add_argument("image", metavar="IMAGE", help="the picture to edit: any format of Pillow's")
    parser.add_argument(
        "--mask", required=True, metavar="MASK", help="white where the edit goes, of the picture's size"
    )
    parser.add_argument("--prompt", required=True, help='what to make inside the mask, e.g. "a golden mug"')
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what not to make")
    parser.add_argument(
        "--checkpoint",
        default="pocket",
        metavar="NAME",
        help="pocket, a diffusers folder, a .safetensors file or hub id",
    )
    parser.add_argument(
        "--clip", default="pocket", metavar="NAME", help="that ranks: pocket, a folder, a hub id, or none"
    )
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first sample; the next ones follow")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument(
        "--strength",
        type=float,
        default=0.76,
        help="share of the steps that are run: how far the edit may go (default: 0.76)",
    )
    parser.add_argument("--guidance-scale", type=float, default=7.5, help="default: 7.5")
    parser.add_argument("--short-side", type=int, metavar="PIXELS", help="to work at (default: the checkpoint's own)")
    parser.add_argument(
        "--reconstruction-steps",
        type=int,
        default=75,
        metavar="N",
        help="of fitting the decoder; 0: leave the background as decoded (default: 75)",
    )
    parser.add_argument("--no-shrinking", action="store_true", help="do not begin with a wider mask where it is thin")
    parser.add_argument("--out", metavar="DIR", help="default: outputs/edit_masked/<prompt>@<time>")
    parser.add_argument("--gpu", default="0", help="GPU to use; without a GPU the CPU is used")


def edit_masked(args: argparse.Namespace) -> None:
    """The command. Raises ValueError for bad input, naming the flag."""
    _check(args)
    out = Path(args.out) if args.out else _default_folder(args.prompt)
    if out.exists() and not out.is_dir():
        raise OptionError.because(f"--out: {out} is a file; expected a folder")

    from latent_prior import launch, masked_editing

    launch.choose_gpus(args.gpu)
    masked_editing.edit(args, out)


def _default_folder(prompt: str) -> Path:
    return Path("outputs") / "edit_masked" / f"{prompt.strip().replace(' ', '_')}@{time.strftime('%Y%m%d-%H%M%S')}"


def _check(args: argparse.Namespace) -> None:
    if not args.prompt.strip():
        raise OptionError.because('--prompt is empty; say what to make inside the mask, e.g. "a golden mug"')
    for flag, value, least in (
        ("--samples", args.samples, 1),
        ("--steps", args.steps, 1),
        ("--reconstruction-steps", args.reconstruction_steps, 0),
        ("--short-side", SHORTEST_SIDE if args.short_side is None else args.short_side, SHORTEST_SIDE),
    ):
        if value < least:
            raise OptionError.because(f"{flag} is {value}; expected at least {least}")
    if not 0 < args.strength <= 1:
        raise OptionError.because(f"--strength is {args.strength:g}; expected a number above 0, up to 1")
    if int(args.steps * args.strength) < 1:
        raise OptionError.because(
            f"--strength {args.strength:g} of --steps {args.steps} leaves no step: raise one of them"
        )
