"""The work of `latent-prior edit-masked`: samples of blended latent diffusion, ranked, the best one with its background."""

import argparse
import csv
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from latent_prior import OptionError, host, metrics, run_folder
from latent_prior.data import picture_files
from latent_prior.models import background_reconstruction
from latent_prior.models.blended_diffusion import BlendedDiffusion, SamplerOptions, steps_run
from latent_prior.models.checkpoint import KEY as CHECKPOINT_KEY
from latent_prior.models.clip import KEY as CLIP_KEY
from latent_prior.models.clip import Clip

MARGIN = 0.1  # of the mask's box, added around it where CLIP looks
SHOWN = 256  # least height of a panel of the pictures that are for looking at


@dataclass(frozen=True)
class Sample:
    """One sample: its latent, its picture in [0, 1], and the CLIP distance of its masked part (None: not ranked)."""

    seed: int
    latents: Float[Tensor, "1 C h w"]
    picture: Float[Tensor, "1 3 H W"]
    distance: float | None


def edit(args: argparse.Namespace, out: Path) -> None:
    """Read, sample, rank, fit the background, write. Raises ValueError for bad input, naming the flag."""
    original = picture_files.read_picture(args.image, "IMAGE")
    picture_files.require_size(original, args.image, "IMAGE")
    mask_image = picture_files.read_mask(args.mask, original, "--mask")
    device = host.get_device()
    editor = _named("--checkpoint", BlendedDiffusion.from_pretrained, args.checkpoint, device)
    clip = None if args.clip == "none" else _named("--clip", Clip.from_pretrained, args.clip, device)

    short_side = args.short_side or editor.short_side
    picture = picture_files.to_tensor(picture_files.scaled(original, short_side))[None]
    mask = (picture_files.to_tensor(picture_files.scaled(mask_image, short_side))[None] >= 0.5).float()
    if not mask.any():
        raise OptionError.because(f"--mask: {args.mask} vanishes at the size that is worked at; raise --short-side")
    if min(picture.shape[-2:]) < 2 * editor.autoencoder.downscale:
        raise OptionError.because(
            f"--short-side {short_side} leaves a picture of {_size(picture)}, too small for the checkpoint"
        )
    if picture.shape[-2:] != (original.height, original.width):
        print(f"{args.image} is worked on at {_size(picture)}", file=sys.stderr)

    samples, composite = _run(args, editor, clip, picture, mask)
    _write(args, out, picture, mask, samples, composite)
    print(f"\nFolder: {out}")
    for name in ("composite.png", "before_after.png", "samples.png", "samples.csv"):
        print(f"  {out / name}")


def _run(
    args: argparse.Namespace, editor: BlendedDiffusion, clip: Clip | None, picture: Tensor, mask: Tensor
) -> tuple[list[Sample], Tensor]:
    """Samples, best first, and the best one's picture with its background."""
    options = SamplerOptions(args.steps, args.strength, args.guidance_scale, not args.no_shrinking)
    text = None if clip is None else clip.embed_texts([args.prompt])
    total = args.samples * steps_run(options) + args.reconstruction_steps
    samples = []
    with tqdm(total=total, desc="edit", unit="step", dynamic_ncols=True, file=sys.stderr) as bar:
        for seed in range(args.seed, args.seed + args.samples):
            latents = editor.edit(
                picture, mask, args.prompt, args.negative_prompt, seed=seed, options=options, on_step=bar.update
            )
            with torch.no_grad():
                made = editor.autoencoder.decode(latents).cpu()
                distance = None if clip is None else 1 - (clip.embed_images(masked_part(made, mask)) @ text.T).item()
            samples.append(Sample(seed, latents, made, distance))
        if clip is not None:
            samples.sort(key=lambda sample: sample.distance)
        if not args.reconstruction_steps:
            return samples, samples[0].picture
        bar.set_description("background")
        composite = background_reconstruction.reconstructed(
            editor.autoencoder,
            samples[0].latents,
            picture,
            mask,
            steps=args.reconstruction_steps,
            on_step=bar.update,
        )
    return samples, composite.cpu()


def masked_part(picture: Float[Tensor, "1 3 H W"], mask: Float[Tensor, "1 1 H W"]) -> Float[Tensor, "1 3 h w"]:
    """The mask's box with a margin, as nearly square as the picture allows: what CLIP is to look at."""
    rows, columns = (torch.nonzero(mask[0, 0].amax(axis)).flatten() for axis in (1, 0))
    height, width = mask.shape[-2:]
    centre = [(int(line[0]) + int(line[-1]) + 1) / 2 for line in (rows, columns)]
    side = max(int(line[-1]) + 1 - int(line[0]) for line in (rows, columns)) * (1 + 2 * MARGIN)
    top, left = (max(0, math.floor(middle - side / 2)) for middle in centre)
    bottom, right = (min(most, math.ceil(m + side / 2)) for m, most in zip(centre, (height, width), strict=True))
    return picture[..., top:bottom, left:right]


def background_psnr(
    made: Float[Tensor, "1 3 H W"], original: Float[Tensor, "1 3 H W"], mask: Float[Tensor, "1 1 H W"]
) -> float | None:
    """PSNR in dB outside the mask, of bytes as they are saved; None where the mask covers everything."""
    outside = (mask == 0).float()
    if not outside.any():
        return None
    return metrics.psnr(*((picture * 255).round() / 255 for picture in (made, original)), outside).item()


def _write(
    args: argparse.Namespace, out: Path, picture: Tensor, mask: Tensor, samples: list[Sample], composite: Tensor
) -> None:
    (out / "samples").mkdir(parents=True, exist_ok=True)
    best = samples[0]
    with (out / "samples.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["rank", "seed", "clip_distance", "background_psnr", "background_psnr_reconstructed"])
        for rank, sample in enumerate(samples):
            picture_files.to_picture(sample.picture[0]).save(out / "samples" / f"{rank}.png")
            again = background_psnr(composite, picture, mask) if sample is best and args.reconstruction_steps else None
            figures = (sample.distance, background_psnr(sample.picture, picture, mask), again)
            rows.writerow([rank, sample.seed, *("" if f is None else f"{f:.4f}" for f in figures)])
    panels = {
        "before_after": [picture, mask.expand_as(picture), composite],
        "samples": [sample.picture for sample in samples],
    }
    for name, row in panels.items():
        _enlarged(picture_files.to_picture(torch.cat(row, 3)[0])).save(out / f"{name}.png")
    # last, so that the folder has it only when it is whole
    origin = {"versions": run_folder.versions(), "command": sys.argv, "arguments": _arguments(args)}
    (out / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    picture_files.to_picture(composite[0]).save(out / "composite.png")


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = -(-SHOWN // picture.height)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def _arguments(args: argparse.Namespace) -> dict:
    return {name: value for name, value in vars(args).items() if name not in ("action", "command")}


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"


def _named(flag: str, load, name: str, device: torch.device):
    """Load a model; errors name the flag instead of the config key."""
    try:
        return load(name, device)
    except ValueError as error:
        reason = str(error).removeprefix(f"{CHECKPOINT_KEY}: ").removeprefix(f"{CLIP_KEY}: ")
        raise OptionError.because(f"{flag}: {reason}") from error
