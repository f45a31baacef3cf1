"""`latent-prior edit-masked`: draw samples by blended latent diffusion, rank them, and fit the best one's background.

Sampling is done at the checkpoint's size wherever the mask is not black; `composited` blends the result into the
picture at its original size through the original mask. So soft masks give soft edges, and nothing changes outside.
"""

import argparse
import csv
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageChops
from torch import Tensor
from tqdm import tqdm

from latent_prior import OptionError, host, metrics
from latent_prior.editing import background_reconstruction
from latent_prior.editing.blended_diffusion import BlendedDiffusion, SamplerOptions, steps_run
from latent_prior.files import atomic_write, remove_partial, write_text
from latent_prior.files import pictures as picture_files
from latent_prior.files.refusals import naming, require_room
from latent_prior.models.checkpoint import KEY as CHECKPOINT_KEY
from latent_prior.models.clip import KEY as CLIP_KEY
from latent_prior.models.clip import Clip
from latent_prior.prior import require_finite
from latent_prior.runs import folder as run_folder

MARGIN = 0.1  # of the mask's box, added around it for CLIP
BLOCK = 4096  # bytes that even the smallest file takes on most file systems
PANEL = (256, 768)  # minimum and maximum height of a panel in the overview pictures


@dataclass(frozen=True)
class Sample:
    """One sample: its latent, its picture in [0, 1], and the CLIP distance of its masked part (None: not ranked)."""

    seed: int
    latents: Float[Tensor, "1 C h w"]
    picture: Float[Tensor, "1 3 H W"]
    distance: float | None


@dataclass(frozen=True)
class Task:
    """The picture (RGB or RGBA) and its mask (L) at its own size, and both as tensors in [0, 1] at the checkpoint's."""

    original: Image.Image
    soft_mask: Image.Image
    picture: Float[Tensor, "1 3 H W"]
    mask: Float[Tensor, "1 1 H W"]  # 0 or 1

    def composite(self, made: Float[Tensor, "1 3 H W"]) -> Image.Image:
        return composited(self.original, self.soft_mask, picture_files.to_picture(made[0]))


def edit(args: argparse.Namespace, out: Path) -> None:
    """Read, sample, rank, fit the background, and write to the folder `out`. OptionErrors name the flag."""
    original = picture_files.read_with_alpha(args.image, "IMAGE")
    picture_files.require_size(original, args.image, "IMAGE")
    soft_mask = picture_files.read_mask(args.mask, original, "--mask", invert=args.invert_mask)
    device = host.get_device()
    editor = _named("--checkpoint", BlendedDiffusion.from_pretrained, args.checkpoint, device)
    clip = None if args.clip == "none" else _named("--clip", Clip.from_pretrained, args.clip, device)

    short_side = args.short_side or editor.short_side
    picture = picture_files.to_tensor(picture_files.scaled(picture_files.flattened(original), short_side))[None]
    if min(picture.shape[-2:]) < 2 * editor.autoencoder.downscale:
        raise OptionError.because(
            f"--short-side {short_side} leaves a picture of {_size(picture)}, too small for the checkpoint"
        )
    if picture.shape[-2:] != (original.height, original.width):
        print(f"{args.image} of {original.width}x{original.height} is processed at {_size(picture)}", file=sys.stderr)

    task = Task(original, soft_mask, picture, touched(soft_mask, *picture.shape[-2:]))
    require_room(out, (args.samples + 5) * BLOCK, f"an edit of {args.samples} samples")
    samples: list[Sample] = []
    try:
        with naming(out):
            fitted = _run(args, editor, clip, task, out, samples)
            _write(args, out, task, samples, fitted)
    except KeyboardInterrupt:
        if samples:
            _write(args, out, task, samples, None)
            made = f"{len(samples)} of {args.samples} samples"
            print(f"\n{out} holds {made}; the best of them is not fitted to its background", file=sys.stderr)
        raise
    except OptionError as error:
        if not samples:
            raise
        raise run_folder.Stopped.because(
            f"{error}; the samples so far ({len(samples)}) stay in {out / 'samples'}"
        ) from error
    print(f"\nFolder: {out}")
    for name in ("composite.png", "before_after.png", "samples.png", "samples.csv"):
        print(f"  {out / name}")


def touched(mask: Image.Image, height: int, width: int) -> Float[Tensor, "1 1 H W"]:
    """The mask at another size, 1 wherever any of it is above 0, so that a thin mask does not vanish."""
    most = F.adaptive_max_pool2d(picture_files.to_tensor(mask)[None], (height, width))
    return (most >= picture_files.FAINT / 255).float()


def composited(original: Image.Image, mask: Image.Image, made: Image.Image) -> Image.Image:
    """The result, resized to the picture's size, blended into it through the mask (L); unchanged where that is 0.

    RGBA if the picture is: the mask then makes transparent parts opaque, and colours are weighted by their opacity.
    """
    made = made.resize(original.size, Image.Resampling.LANCZOS)
    if original.mode == "RGB":
        return Image.composite(made, original, mask)
    alpha = original.getchannel("A")
    m, a = (np.asarray(channel, dtype=np.float32) / 255 for channel in (mask, alpha))
    share = 255 * m / np.maximum(m + (1 - m) * a, 1e-6)
    out = Image.composite(made, original.convert("RGB"), Image.fromarray(share.round().astype(np.uint8)))
    out.putalpha(ImageChops.lighter(alpha, mask))
    return out


def _run(
    args: argparse.Namespace,
    editor: BlendedDiffusion,
    clip: Clip | None,
    task: Task,
    out: Path,
    samples: list[Sample],
) -> Float[Tensor, "1 3 H W"] | None:
    """Add the samples, best first, and return the best one under the fitted decoder (None: no steps).

    Each is written as soon as it is made, so that an interruption leaves those made before.
    """
    options = SamplerOptions(args.steps, args.strength, args.guidance_scale, not args.no_shrinking)
    text = None if clip is None else clip.embed_texts([args.prompt])
    total = args.samples * steps_run(options) + args.reconstruction_steps
    for folder in (out, out / "samples"):
        remove_partial(folder, below=False)
    with tqdm(total=total, desc="edit", unit="step", dynamic_ncols=True, file=sys.stderr) as bar:
        for seed in range(args.seed, args.seed + args.samples):
            latents = editor.edit(
                task.picture,
                task.mask,
                args.prompt,
                args.negative_prompt,
                seed=seed,
                options=options,
                on_step=bar.update,
            )
            require_finite({f"the sample of seed {seed}": latents}, "lower --guidance-scale")
            with torch.no_grad():
                made = editor.autoencoder.decode(latents).cpu()
                distance = None
                if clip is not None:
                    similarity = clip.embed_images(masked_part(made, task.mask)) @ text.T
                    require_finite({f"the CLIP similarity of seed {seed}": similarity}, "use another --clip, or none")
                    distance = 1 - similarity.item()
            (out / "samples").mkdir(exist_ok=True)
            _save(task.composite(made), out / "samples" / f"seed{seed}.png")
            samples.append(Sample(seed, latents, made, distance))
            if clip is not None:
                samples.sort(key=lambda sample: sample.distance)
        if not args.reconstruction_steps:
            return None
        bar.set_description("background")
        fitted = background_reconstruction.reconstructed(
            editor.autoencoder,
            samples[0].latents,
            task.picture,
            task.mask,
            steps=args.reconstruction_steps,
            on_step=bar.update,
        )
    return fitted.cpu()


def masked_part(picture: Float[Tensor, "1 3 H W"], mask: Float[Tensor, "1 1 H W"]) -> Float[Tensor, "1 3 h w"]:
    """The mask's box with a margin, as nearly square as the picture allows: the input for CLIP."""
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
    """PSNR in dB outside the mask, for 8-bit values as saved; None if the mask covers everything."""
    outside = (mask == 0).float()
    if not outside.any():
        return None
    return metrics.psnr(*((picture * 255).round() / 255 for picture in (made, original)), outside).item()


def _write(args: argparse.Namespace, out: Path, task: Task, samples: list[Sample], fitted: Tensor | None) -> None:
    with atomic_write(out / "samples.csv") as beside, beside.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["rank", "seed", "clip_distance", "background_psnr", "background_psnr_reconstructed"])
        for rank, sample in enumerate(samples):
            again = None if fitted is None or rank else background_psnr(fitted, task.picture, task.mask)
            figures = (sample.distance, background_psnr(sample.picture, task.picture, task.mask), again)
            rows.writerow([rank, sample.seed, *("" if f is None else f"{f:.4f}" for f in figures)])
    composite = task.composite(samples[0].picture if fitted is None else fitted)
    _save(_side_by_side([task.original, task.soft_mask, composite]), out / "before_after.png")
    _save(task.original, out / "before.png")
    small = _panel(task.original), _panel(task.soft_mask)
    made = (picture_files.to_picture(sample.picture[0]) for sample in samples)
    _save(_side_by_side([composited(*small, picture) for picture in made]), out / "samples.png")
    # last, so that where it exists everything else does
    origin = {**run_folder.made_with(), "command": sys.argv, "arguments": _arguments(args)}
    write_text(out / "origin.json", json.dumps(origin, indent=2) + "\n")
    _save(composite, out / "composite.png")


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as beside:
        image.save(beside)


def _panel(image: Image.Image) -> Image.Image:
    height = min(max(image.height, PANEL[0]), PANEL[1])
    return image.resize((round(image.width * height / image.height), height), Image.Resampling.BICUBIC)


def _side_by_side(images: list[Image.Image]) -> Image.Image:
    """A row of RGB panels, from images of the same size."""
    panels = [picture_files.flattened(_panel(image.convert("RGB") if image.mode == "L" else image)) for image in images]
    width, height = panels[0].size
    row = Image.new("RGB", (width * len(panels), height))
    for i, panel in enumerate(panels):
        row.paste(panel, (i * width, 0))
    return row


def _arguments(args: argparse.Namespace) -> dict:
    return {name: value for name, value in vars(args).items() if name not in ("action", "command")}


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"


def _named(flag: str, load, name: str, device: torch.device):
    """Load a model; errors name the flag instead of the config key."""
    try:
        return load(name, device)
    except OptionError as error:
        reason = str(error).removeprefix(f"{CHECKPOINT_KEY}: ").removeprefix(f"{CLIP_KEY}: ")
        raise OptionError.because(f"{flag}: {reason}") from error
