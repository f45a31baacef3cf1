"""Arrays as 8-bit RGB pictures: colour, grey, and rows of such panels.

Pictures are uint8 arrays of shape h x w x 3. Values are truncated to integers, not rounded, as in threestudio.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from latent_prior import Diverged


def _unit(img: Any, data_range: tuple[float, float]) -> np.ndarray:
    img = img.detach().cpu().numpy() if isinstance(img, torch.Tensor) else img
    if not np.isfinite(img).all():
        count = (~np.isfinite(img)).sum()
        raise Diverged(f"training has diverged: a picture has {count} of {img.size} numbers that are not finite")
    low, high = data_range
    return (img.clip(low, high) - low) / (high - low)


def rgb_picture(img: Any, data_format: str = "HWC") -> np.ndarray:
    """A colour image, h w 3 with values in [0, 1], as a picture."""
    if data_format != "HWC" or img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f"expected a colour image as h w 3 (HWC), got shape {tuple(img.shape)} as {data_format}")
    return (_unit(img, (0, 1)) * 255.0).astype(np.uint8)


def grayscale_picture(img: Any, data_range: tuple[float, float], cmap: str | None = None) -> np.ndarray:
    """A map of values, h w, as shades of grey from black at data_range[0] to white at data_range[1]."""
    if img.ndim != 2 or cmap is not None:
        raise ValueError(f"expected a map as h w and cmap None, got shape {tuple(img.shape)} and {cmap!r}")
    return np.repeat((_unit(img, data_range) * 255.0).astype(np.uint8)[..., None], 3, axis=2)


_KINDS = {"rgb": rgb_picture, "grayscale": grayscale_picture}


def grid_picture(panels: Sequence[Mapping[str, Any]], align: int) -> np.ndarray:
    """Panels side by side, each resized (bilinear) to align x align.

    A panel is {"type": "rgb" | "grayscale", "img": ..., "kwargs": {...}}, with the kwargs of `rgb_picture` or
    `grayscale_picture`.
    """
    pictures = [Image.fromarray(_KINDS[panel["type"]](panel["img"], **panel["kwargs"])) for panel in panels]
    return np.concatenate([np.asarray(p.resize((align, align), Image.Resampling.BILINEAR)) for p in pictures], axis=1)
