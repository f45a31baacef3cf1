"""Users' pictures and masks from files: of the formats in FORMATS, rotated by EXIF, as 8-bit sRGB.

A mask is white where the edit goes. Its transparent parts count as black, and grey is a soft edge.

A file may be hostile: its name says nothing about its format, so Pillow may not choose among all that it knows (for
PostScript it runs Ghostscript), and what takes long or much memory to unpack is refused.
"""

import io
import logging
import math
import mmap
import os
import re
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageChops, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from latent_prior import Diverged, OptionError
from latent_prior.files import pixel_formats, user_path

logger = logging.getLogger(__name__)

SMALLEST = 16  # pixels; minimum side of a picture to edit
FORMATS = ("PNG", "JPEG", "WebP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
LARGEST_FILE = 128_000_000  # bytes; some readers hold the whole file in memory
LARGEST = 64_000_000  # pixels; more would take gigabytes before it could be scaled down
ENTRIES = 100_000  # numbers in one entry of a TIFF's directory
BYTES = (1, 2, 6, 7)  # types of a TIFF's entries that are no numbers, but texts or bytes, such as a profile
SCANS = 40  # of a progressive JPEG, each of which goes over all pixels; encoders write about ten
SLOWEST = 3  # seconds of processor time to unpack a file
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


def from_bytes(data: bytes, name: str) -> Image.Image:
    """The same of a picture within another file, such as a texture. Errors begin with `name`."""
    return pixel_formats.in_srgb(_decoded(io.BytesIO(data), len(data), name), name)


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


def png(picture: Image.Image) -> bytes:
    """A picture's file."""
    with io.BytesIO() as file:
        picture.save(file, "PNG")
        return file.getvalue()


@contextmanager
def only_known_formats() -> Iterator[None]:
    """Meanwhile Pillow opens FORMATS alone, also where another library calls it."""
    before = Image.open
    Image.open = partial(before, formats=_formats())
    try:
        yield
    finally:
        Image.open = before


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow has."""
    Image.init()
    return tuple(name.upper() for name in FORMATS if name.upper() in Image.OPEN)


class _Hurried(io.BufferedReader):
    """A file that stops being read after SLOWEST seconds of this thread's processor time."""

    def __init__(self, file: Any):
        super().__init__(file)
        self._end = time.thread_time() + SLOWEST

    def read(self, size: int | None = -1) -> bytes:
        if time.thread_time() > self._end:
            raise TimeoutError(f"it takes more than {SLOWEST} s to unpack: save it anew in another format")
        return super().read(size)


def _opened(path: str | Path, key: str) -> Image.Image:
    """The file's first picture, rotated by EXIF, in 8 bits, in its own colour space and mode."""
    path = user_path(path)
    if not os.path.isfile(path):  # accepts names that are too long, unlike Path's
        raise OptionError.because(f"{key}: there is no file {path}")
    try:
        file = io.FileIO(path)
    except OSError as error:
        raise _unreadable(f"{key}: {path}", error) from error
    return _decoded(file, os.path.getsize(path), f"{key}: {path}")


def _unreadable(name: str, error: Exception) -> OptionError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return OptionError.because(f"{name} cannot be read as a picture: {reason}")


def _decoded(source: io.RawIOBase | io.BytesIO, size: int, name: str) -> Image.Image:
    """The same of an open file of `size` bytes, which is closed."""
    if size > LARGEST_FILE:
        raise OptionError.because(
            f"{name} has {size / 1e6:.0f} MB; expected at most {LARGEST_FILE // 1_000_000}: make it smaller first"
        )
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # our own limit names the key
    try:
        with warnings.catch_warnings(), _Hurried(source) as file:
            warnings.simplefilter("ignore")  # about details that the refusal or the picture makes unimportant
            _check_directory(file)
            with Image.open(file, formats=_formats()) as image:
                size = math.prod(image.size)
                if size <= LARGEST:
                    _check_tiles(image)
                    if image.format in ("JPEG", "MPO"):
                        _check_scans(file)
                    image.load()
                    image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise OptionError.because(f"{name} cannot be read as a picture; expected {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's readers raise all kinds for broken files
        raise _unreadable(name, error) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if size > LARGEST:
        raise OptionError.because(
            f"{name} has {size / 1e6:.0f} megapixels; expected at most {LARGEST // 1_000_000}: make it smaller first"
        )
    return pixel_formats.eight_bit(image, name)


def _check_directory(file: io.BufferedReader) -> None:
    """ValueError for a TIFF whose first directory has an entry of more than ENTRIES numbers, for example strips.

    Pillow makes objects of them before it says how large the picture is. Other formats pass.
    """
    head = file.read(16)
    if head[:2] in (b"II", b"MM"):
        order, large = "<" if head[:2] == b"II" else ">", head[2] == 43
        (start,) = struct.unpack(order + "Q", head[8:]) if large else struct.unpack(order + "I", head[4:8])
        entry = struct.Struct(order + ("HHQ8x" if large else "HHI4x"))
        file.seek(start)
        entries = min(int.from_bytes(file.read(8 if large else 2), "little" if order == "<" else "big"), 1 << 16)
        data = file.read(entries * entry.size)
        for tag, kind, count in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
            if count > ENTRIES and kind not in BYTES:
                raise ValueError(f"it has {count} values of tag {tag}; expected at most {ENTRIES}")


def _check_tiles(image: Image.Image) -> None:
    """ValueError for a TIFF whose tiles, each of which is unpacked whole, are larger than a picture may be."""
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0)
    if width * height > LARGEST:
        raise ValueError(f"its tiles are {width}x{height} pixels")


def _all_of(file: io.BufferedReader) -> Any:
    """All bytes of a file, on disk or in memory, as a context."""
    if isinstance(file.raw, io.BytesIO):
        return file.raw.getbuffer()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


# of a JPEG's markers those that are no part of a scan's data (FF 00, restarts), ITU-T T.81, table B.1
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")


def _check_scans(file: io.BufferedReader) -> None:
    """ValueError for a JPEG of more than SCANS scans: a few kilobytes could keep libjpeg busy for minutes."""
    scans = at = 0
    with _all_of(file) as data:
        while (found := _MARKER.search(data, at)) and found[1] != b"\xd9":
            scans += found[1] == b"\xda"
            at = found.end()
            if found[1] not in b"\x01\xd8":  # all others but these two have a length
                at += int.from_bytes(data[at : at + 2], "big")
    if scans > SCANS:
        raise ValueError(f"it has {scans} scans; expected at most {SCANS}: save it anew")
