"""Converts the pixel formats of picture files to 8-bit sRGB: deep and float grey, colour profiles, alpha."""

import logging
from io import BytesIO

import numpy as np
from PIL import Image, ImageChops, ImageCms

from latent_prior import OptionError

logger = logging.getLogger(__name__)

BAND = 1 << 20  # pixels converted at a time, because they take 16 times the memory of the result
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile: Pillow's mode


def has_alpha(image: Image.Image) -> bool:
    """Whether the image may have transparent pixels."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info


def eight_bit(image: Image.Image, name: str) -> Image.Image:
    """Deep grey, scaled to 8 bits instead of clipped as by Pillow.

    Floats are in [0, 1]; integers go up to 65535, or to 255 if none is above it. Other modes are returned unchanged.
    Raises OptionError, which begins with `name`, for values out of range and NaN.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    most = 1 if image.mode.startswith("F") else 255 if high <= 255 else 65535
    if not (low * 255 / most >= -0.5 and high * 255 / most < 255.5):  # false for NaN
        raise OptionError.because(
            f"{name} has values from {low:g} to {high:g}; expected {'floats' if most == 1 else 'integers'} in [0, {most}]"
        )
    grey = np.empty(values.size, np.uint8)
    for start in range(0, values.size, BAND):
        part = values.reshape(-1)[start : start + BAND].astype(np.float64)
        grey[start : start + BAND] = (part * (255 / most)).round()
    out = Image.fromarray(grey.reshape(values.shape))
    out.info = image.info
    return out


def in_srgb(image: Image.Image, name: str) -> Image.Image:
    """The picture in sRGB, of mode RGB, or RGBA if the file has alpha, without a profile.

    A profile that cannot be used is ignored with a warning. Raises OptionError for modes that Pillow does not convert.
    """
    try:
        alpha = image.convert("RGBA").getchannel("A") if has_alpha(image) else None
        image = _through_profile(image, name) if image.info.get("icc_profile") else image.convert("RGB")
    except ValueError as error:
        raise OptionError.because(f"{name} cannot be taken as RGB: {error}") from error
    image.info = {}  # otherwise Pillow writes the file's profile and transparent colour with the new pixels
    if alpha is not None:
        image.putalpha(alpha)
    return image


def grey(image: Image.Image) -> Image.Image:
    """Luminance over black, of mode L: transparent pixels are 0."""
    if not has_alpha(image):
        return image.convert("L")
    image = image.convert("RGBA")
    return ImageChops.multiply(image.convert("L"), image.getchannel("A"))


def _through_profile(image: Image.Image, name: str) -> Image.Image:
    """RGB through the image's own profile; if it cannot be used, as if it were sRGB, with a warning."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"]))
        space = profile.profile.xcolor_space.strip()
        mode = MODES.get(space)
        stored = "CMYK" if image.mode == "CMYK" else "L" if image.mode in ("1", "L", "LA") else "RGB"
        if mode != stored and (stored, mode) != ("L", "RGB"):
            raise ImageCms.PyCMSError(f"it is for {space}, the pixels are {image.mode}")
        srgb = ImageCms.createProfile("sRGB")
        exact = ImageCms.Flags.NOOPTIMIZE  # the optimised tables are up to 10 levels off in the dark
        transform = ImageCms.buildTransform(profile, srgb, mode, "RGB", ImageCms.Intent.PERCEPTUAL, exact)
        pixels = image.convert(mode)
        return pixels if mode == "RGB" and _is_identity(transform) else ImageCms.applyTransform(pixels, transform)
    except (ImageCms.PyCMSError, OSError) as error:
        logger.warning("%s: its colour profile cannot be used and is taken as sRGB: %s", name, error)
        return image.convert("RGB")


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether colours change by rounding at most, so that pictures in sRGB, as most are, keep their bytes."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    after = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform), dtype=int)
    return bool(abs(after - probe).max() <= 1)
