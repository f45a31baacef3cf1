"""Pictures and masks from files, as users have them: any format of Pillow's, turned as EXIF says, alpha over white."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import user_path

SMALLEST = 16  # pixels a side of a picture that there is something to edit in
LARGEST = 80_000_000  # pixels; more would take gigabytes before it could be made smaller
LONGEST = 4  # most that the long side may be of the asked-for short one: of longer pictures both get smaller
MULTIPLE = 8  # what the sides of a picture are rounded to, so that every latent pixel has its block
PAPER = (255, 255, 255)  # what transparency is flattened over


def read_picture(path: str | Path, key: str = "data.image") -> Image.Image:
    """The picture in RGB at its own size. `key`: the config key or flag that errors name.

    Raises ValueError, in one line, for a file that is missing, no picture, broken, or of more than LARGEST pixels.
    """
    image = _opened(path, key)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (*PAPER, 255))
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")


def require_size(picture: Image.Image, path: str | Path, key: str = "data.image") -> None:
    """Raise ValueError for a picture that is too small to be edited."""
    if min(picture.size) < SMALLEST:
        raise OptionError.because(
            f"{key}: {path} is {picture.width}x{picture.height}, too small to edit; expected sides of at least {SMALLEST} "
            "pixels"
        )


def read_mask(path: str | Path, picture: Image.Image, key: str = "data.mask") -> Image.Image:
    """A mask over `picture`, as an image of mode L: 255 where the edit goes, 0 elsewhere; grey is rounded.

    Raises ValueError for what `read_picture` does, a mask of another size than the picture's, and one that is empty.
    """
    mask = _opened(path, key).convert("L").point(lambda grey: 255 if grey >= 128 else 0)
    if mask.size != picture.size:
        raise OptionError.because(
            f"{key}: {path} is {mask.width}x{mask.height}, but the picture is {picture.width}x{picture.height}; expected "
            "a mask of the picture's size"
        )
    if mask.getbbox() is None:
        raise OptionError.because(f"{key}: {path} is black all over; expected white where the edit goes")
    return mask


def scaled_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Width and height with the short side near `short_side`, the shape kept, both multiples of MULTIPLE."""
    scale = min(short_side / min(size), LONGEST * short_side / max(size))
    return tuple(max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in size)


def scaled(image: Image.Image, short_side: int) -> Image.Image:
    """The picture, or mask, at the size that `scaled_size` says."""
    size = scaled_size(image.size, short_side)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Float[Tensor, "C H W"]:
    """A picture (RGB, C = 3) or mask (L, C = 1) in [0, 1]."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def to_picture(pixels: Float[Tensor, "C H W"]) -> Image.Image:
    """The inverse of `to_tensor`; of four channels the last is alpha. What is outside [0, 1] is clipped."""
    rows = (pixels.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)


def _opened(path: str | Path, key: str) -> Image.Image:
    """The file's first picture, read and turned as EXIF says."""
    path = user_path(path)
    if not path.is_file():
        raise OptionError.because(f"{key}: there is no file {path}")
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # our own limit says which key to change
    try:
        with Image.open(path) as image:
            if math.prod(image.size) > LARGEST:
                raise OptionError.because(
                    f"{key}: {path} has {math.prod(image.size) / 1e6:.0f} megapixels; expected at most "
                    f"{LARGEST // 1_000_000}: make it smaller first"
                )
            image.load()
            return _eight_bit(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise OptionError.because(f"{key}: {path} cannot be read as a picture: {reason}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey to 8 bits instead of scaling it."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    return image
