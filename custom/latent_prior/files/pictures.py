"""Users' pictures and masks from files: any format that Pillow reads, rotated by EXIF, as 8-bit sRGB.

A mask is white where the edit goes. Its transparent parts count as black, and grey is a soft edge.
"""

import logging
import math
import os
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageChops, ImageOps
from torch import Tensor

from latent_prior import Diverged, OptionError
from latent_prior.files import pixel_formats, user_path

logger = logging.getLogger(__name__)

SMALLEST = 16  # pixels; minimum side of a picture to edit
LARGEST = 80_000_000  # pixels; more would take gigabytes before it could be scaled down
LONGEST = 4  # maximum ratio of the long side to the requested short side; longer pictures get smaller
MULTIPLE = 8  # sides are rounded to multiples of this, so that every latent pixel has a full block
PAPER = (255, 255, 255)  # background of transparent pixels
ALPHA = "alpha"  # instead of a mask's file: the picture's own alpha
FAINT = 13  # grey of a mask, of 255, below which an edit is invisible
SOFT = 128  # a mask that is nowhere brighter than this is probably a mistake


def read_picture(path: str | Path, key: str = "data.image") -> Image.Image:
    """The picture in RGB at its own size, flattened over PAPER. `key`: the config key or flag that errors name.

    Raises OptionError for a file that is missing, not a picture, broken, or has more than LARGEST pixels.
    """
    return flattened(read_with_alpha(path, key))


def read_with_alpha(path: str | Path, key: str = "data.image") -> Image.Image:
    """The same in RGBA if the file has alpha, keeping the colours of transparent pixels."""
    return pixel_formats.in_srgb(_opened(path, key), f"{key}: {path}")


def flattened(picture: Image.Image) -> Image.Image:
    """An RGB or RGBA picture over PAPER, in RGB."""
    if picture.mode == "RGB":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, (*PAPER, 255)), picture).convert("RGB")


def require_size(picture: Image.Image, path: str | Path, key: str = "data.image") -> None:
    """Raise OptionError for a picture that is too small to be edited."""
    if min(picture.size) < SMALLEST:
        raise OptionError.because(
            f"{key}: {path} is {picture.width}x{picture.height}, too small to edit; expected sides of at least {SMALLEST} "
            "pixels"
        )


def read_mask(path: str | Path, picture: Image.Image, key: str = "data.mask", *, invert: bool = False) -> Image.Image:
    """A mask for `picture`, as an image of mode L: 255 where the edit goes, 0 elsewhere, grey at soft edges.

    path: a file, or ALPHA: white where `picture` (from `read_with_alpha`) is opaque. In a file with only
    the values 0 and 1, these stand for 0 and 255. Raises OptionError as `read_picture` does, and for a mask whose size
    is not the picture's, one that selects nothing, and ALPHA of a fully opaque picture.
    """
    if str(path) == ALPHA:
        name, mask = f"{key}: the picture's alpha", _alpha(picture, key)
    else:
        name, mask = f"{key}: {path}", pixel_formats.grey(_opened(path, key))
        if mask.getextrema()[1] == 1:
            mask = mask.point(lambda value: 255 * value)
    if mask.size != picture.size:
        raise OptionError.because(
            f"{name} is {mask.width}x{mask.height}, but the picture is {picture.width}x{picture.height}; expected a mask "
            "of the picture's size"
        )
    if (brightest := mask.getextrema()[1]) < FAINT:
        came = f"nowhere brighter than {brightest} of 255" if brightest else "black all over"
        raise OptionError.because(
            f"{name} is {came}; expected white where the edit goes (what is transparent counts as black)"
        )
    if invert:
        mask = ImageChops.invert(mask)
        if mask.getextrema()[1] < FAINT:
            raise OptionError.because(f"{name} is white all over, so that nothing is left of it when it is inverted")
    if (brightest := mask.getextrema()[1]) < SOFT:
        logger.warning("%s is nowhere brighter than %d of 255: the edit will be as faint", name, brightest)
    return mask


def _alpha(picture: Image.Image, key: str) -> Image.Image:
    if picture.mode != "RGBA" or picture.getchannel("A").getextrema()[0] == 255:
        raise OptionError.because(f"{key}: {ALPHA} needs a picture that is transparent somewhere; this one is not")
    return picture.getchannel("A")


def scaled_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Width and height with the short side near `short_side`, the aspect ratio kept, and both multiples of MULTIPLE."""
    scale = min(short_side / min(size), LONGEST * short_side / max(size))
    return tuple(max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in size)


def scaled(image: Image.Image, short_side: int) -> Image.Image:
    """The picture (RGB) or mask (L), resized to `scaled_size`."""
    size = scaled_size(image.size, short_side)
    # a sharper filter would cause ringing in a mask
    return image.resize(size, Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Float[Tensor, "C H W"]:
    """A picture (RGB: C = 3, RGBA: C = 4) or mask (L: C = 1) in [0, 1]."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def to_picture(pixels: Float[Tensor, "C H W"]) -> Image.Image:
    """The inverse of `to_tensor`; a fourth channel is alpha. Values outside [0, 1] are clipped.

    Raises Diverged for values that are not finite.
    """
    if count := int((~pixels.isfinite()).sum()):
        raise Diverged(f"a picture has {count} of {pixels.numel()} numbers that are not finite", ("a picture",))
    rows = (pixels.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)


def _opened(path: str | Path, key: str) -> Image.Image:
    """The file's first picture, rotated by EXIF, in 8 bits, in its own colour space and mode."""
    path = user_path(path)
    if not os.path.isfile(path):  # accepts names that are too long, unlike Path's
        raise OptionError.because(f"{key}: there is no file {path}")
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # our own limit names the key
    try:
        with Image.open(path) as image:
            size = math.prod(image.size)
            if size <= LARGEST:
                image.load()
                image = ImageOps.exif_transpose(image)
    # what Pillow's readers raise for broken files
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise OptionError.because(f"{key}: {path} cannot be read as a picture: {reason}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if size > LARGEST:
        raise OptionError.because(
            f"{key}: {path} has {size / 1e6:.0f} megapixels; expected at most {LARGEST // 1_000_000}: make it smaller first"
        )
    return pixel_formats.eight_bit(image, f"{key}: {path}")
