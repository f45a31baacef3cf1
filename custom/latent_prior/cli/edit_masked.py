"""`latent-prior edit-masked`: its flags, and the checks before anything is loaded."""

import argparse
import time
from pathlib import Path

from latent_prior import OptionError
from latent_prior.cli import host_arguments
from latent_prior.files import lock, slug, user_path

# Minimum and maximum of each number. Above 500 steps diffusers' timesteps no longer reach the schedule's end, and a
# guidance scale of 1 means no guidance.
RANGES = {
    "samples": (1, 100),
    "seed": (0, 2**32 - 1),
    "steps": (1, 500),
    "strength": (0, 1),
    "guidance_scale": (1, 100),
    "short_side": (16, 4096),
    "reconstruction_steps": (0, 10_000),
}

HELP = """Edit a picture by a prompt inside a mask, by blended latent diffusion (Avrahami et al. 2023).

Several samples are drawn and ranked by the CLIP distance between the masked part and the prompt. The decoder is then
fitted to the best one, so that it blends into its surroundings. The picture is processed at the checkpoint's size, and
the edit is composited at the original size: outside the mask it is unchanged to the bit (in sRGB), including alpha."""

EXAMPLES = """examples:
  latent-prior edit-masked photo.png --mask mask.png --prompt "a golden mug"
  latent-prior edit-masked photo.png --mask mask.png --prompt "a golden mug" --samples 8 --seed 1 --out outputs/golden
  latent-prior edit-masked cut_out.png --mask alpha --prompt "a golden mug"
  latent-prior edit-masked horse.jpg --mask horse.png --prompt "a zebra" --clip openai/clip-vit-base-patch32 \\
      --checkpoint stable-diffusion-v1-5/stable-diffusion-v1-5

written to --out:
  composite.png (the best), before_after.png, samples.png (best first), samples/ (each as soon as it is made),
  samples.csv, origin.json, report.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(action=edit_masked)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = HELP, EXAMPLES
    parser.add_argument(
        "image", metavar="IMAGE", help="the picture to edit: PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or PPM"
    )
    parser.add_argument(
        "--mask",
        required=True,
        metavar="MASK",
        help="white where the edit goes, of the picture's size; transparent counts as black, and grey is a soft "
        "edge. alpha: the picture's own alpha, so that the edit goes where it is opaque",
    )
    parser.add_argument("--invert-mask", action="store_true", help="the edit goes where the mask is black")
    parser.add_argument("--prompt", required=True, help='what to make inside the mask, e.g. "a golden mug"')
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what not to make")
    parser.add_argument(
        "--checkpoint",
        default="pocket",
        metavar="NAME",
        help="pocket, a diffusers folder, a .safetensors file or hub id",
    )
    parser.add_argument(
        "--clip", default="pocket", metavar="NAME", help="for ranking: pocket, a folder, a hub id, or none"
    )
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first sample; then counting up")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument(
        "--strength",
        type=float,
        default=0.76,
        help="fraction of the steps that are run: how far the edit may go (default: 0.76)",
    )
    parser.add_argument("--guidance-scale", type=float, default=7.5, help="default: 7.5")
    parser.add_argument("--short-side", type=int, metavar="PIXELS", help="to process at (default: the checkpoint's)")
    parser.add_argument(
        "--reconstruction-steps",
        type=int,
        default=75,
        metavar="N",
        help="steps of fitting the decoder; 0: leave the background as decoded (default: 75)",
    )
    parser.add_argument("--no-shrinking", action="store_true", help="do not start with a wider mask where it is thin")
    parser.add_argument("--out", metavar="DIR", help="default: outputs/edit_masked/<prompt>@<time>")
    parser.add_argument("--gpu", default="0", help="GPU to use; without a GPU the CPU is used")
    host_arguments.add_arguments(parser)


def edit_masked(args: argparse.Namespace) -> None:
    """The command. OptionErrors for bad input name the flag."""
    from latent_prior.runs import gpus

    _check(args)
    host_arguments.choose(args)
    gpus.choose_gpus(args.gpu)  # before torch or a host looks for GPUs
    name = f"{slug(args.prompt)}@{time.strftime('%Y%m%d-%H%M%S')}"
    folder = user_path(args.out) if args.out else Path("outputs", "edit_masked", name)
    with lock.owned(folder, "--out", numbered=not args.out) as out:
        from latent_prior import report
        from latent_prior.runs import masked_editing

        masked_editing.edit(args, out)
        print(f"  {report.write(out)}")


def _check(args: argparse.Namespace) -> None:
    if not args.prompt.strip():
        raise OptionError.because('--prompt is empty; say what to make inside the mask, e.g. "a golden mug"')
    for name, (least, most) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise OptionError(f"--{name.replace('_', '-')}", value, f"{least} to {most}")
    if int(args.steps * args.strength) < 1:
        raise OptionError.because(
            f"--strength {args.strength:g} of --steps {args.steps} leaves no step: raise one of them"
        )
