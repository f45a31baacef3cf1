"""Arrays of numbers as 8-bit RGB pictures: colour, grey-scale through a colormap, and rows of such panels.

Pictures are uint8 arrays of shape h x w x 3. Values are cut down to whole numbers, not rounded, as threestudio does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw

from latent_prior import OptionError

COLORMAPS = {"jet": "jet", "magma": "magma_r", "spectral": "Spectral"}  # magma is inverted: near is bright


def to_numpy(data: Any) -> Any:
    """Tensors as arrays, also inside of lists and dicts; arrays and None stay as they are."""
    if data is None or isinstance(data, np.ndarray):
        return data
    if isinstance(data, torch.Tensor):
        return data.detach().cpu().numpy()
    if isinstance(data, list):
        return [to_numpy(entry) for entry in data]
    if isinstance(data, dict):
        return {key: to_numpy(entry) for key, entry in data.items()}
    raise OptionError.because(f"expected an array, tensor, list or dict to save, got {type(data).__name__}")


def _unit(img: np.ndarray, data_range: tuple[float, float]) -> np.ndarray:
    if not np.isfinite(img).all():
        raise OptionError.because(f"a picture of shape {img.shape} has {(~np.isfinite(img)).sum()} non-finite values")
    low, high = data_range
    return (img.clip(low, high) - low) / (high - low)


def rgb_picture(img: Any, data_format: str = "HWC", data_range: tuple[float, float] = (0, 1)) -> np.ndarray:
    """A colour image as a picture; more than three channels become panels of three, the last filled up with black.

    img: h w c (or c h w with data_format 'CHW'), floats in data_range or uint8.
    """
    img = to_numpy(img)
    if data_format not in ("HWC", "CHW"):
        raise OptionError.because(f"data_format must be 'HWC' or 'CHW', got {data_format!r}")
    if img.ndim != 3:
        raise OptionError.because(f"a colour image has 3 axes ({data_format}), got shape {img.shape}")
    if data_format == "CHW":
        img = img.transpose(1, 2, 0)
    if img.dtype != np.uint8:
        img = (_unit(img, data_range) * 255.0).astype(np.uint8)
    img = np.pad(img, ((0, 0), (0, 0), (0, -img.shape[2] % 3)))
    return np.concatenate(np.split(img, img.shape[2] // 3, axis=2), axis=1)


def grayscale_picture(img: Any, data_range: tuple[float, float] | None = None, cmap: str | None = "jet") -> np.ndarray:
    """A map of numbers (h w) as a picture.

    data_range: the values at the two ends of the colormap, None for the map's own minimum and maximum (a constant map
    is all low end); cmap: one of COLORMAPS, or None for shades of grey.
    """
    img = to_numpy(img)
    if img.ndim != 2:
        raise OptionError.because(f"a grey-scale image has 2 axes (height, width), got shape {img.shape}")
    if cmap is not None and cmap not in COLORMAPS:
        raise OptionError.because(f"cmap must be None or one of {', '.join(COLORMAPS)}, got {cmap!r}")
    low, high = (float(img.min()), float(img.max())) if data_range is None else data_range
    unit = _unit(img, (low, high if high > low else low + 1))
    if cmap is None:
        return np.repeat((unit * 255.0).astype(np.uint8)[..., None], 3, axis=2)
    return (matplotlib.colormaps[COLORMAPS[cmap]](unit)[..., :3] * 255).astype(np.uint8)


_KINDS = {"rgb": rgb_picture, "grayscale": grayscale_picture}


def _panel(panel: Mapping[str, Any]) -> np.ndarray:
    if panel.get("type") not in _KINDS:
        raise OptionError.because(f"a panel's type is one of {', '.join(_KINDS)}, got {panel.get('type')!r}")
    return _KINDS[panel["type"]](panel["img"], **panel.get("kwargs", {}))


def _size(panels: Sequence[np.ndarray], align: Any) -> tuple[int, int]:
    """The common (height, width) of a row of panels."""
    if align in ("max", "min"):
        pick = max if align == "max" else min
        return pick(panel.shape[0] for panel in panels), pick(panel.shape[1] for panel in panels)
    if isinstance(align, int):
        return align, align
    if isinstance(align, tuple) and len(align) == 2:
        return align
    raise OptionError.because(f"align must be 'max', 'min', a size or (height, width), got {align!r}")


def grid_picture(panels: Sequence, align: Any = "max") -> np.ndarray:
    """Panels side by side, or, given rows of panels, rows below each other.

    A panel is {"type": "rgb" | "grayscale", "img": ..., "kwargs": {...}}, the kwargs being those of `rgb_picture` or
    `grayscale_picture`. In a row all are resized (bilinear) to the size that `align` names.
    """
    if len(panels) == 0:
        raise OptionError.because("a picture grid needs at least one panel")
    if isinstance(panels[0], list):
        return np.concatenate([grid_picture(row, align) for row in panels], axis=0)
    pictures = [_panel(panel) for panel in panels]
    height, width = _size(pictures, align)
    resized = [
        picture
        if picture.shape[:2] == (height, width)
        else np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        for picture in pictures
    ]
    return np.concatenate(resized, axis=1)


def write_texts(picture: np.ndarray, texts: Sequence) -> np.ndarray:
    """The picture with one line of text at the top of each of len(texts) equal rows, black on a white outline."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for row, text in enumerate(texts):
        draw.text((1, image.size[1] // len(texts) * row), str(text), fill="black", stroke_width=1, stroke_fill="white")
    return np.asarray(image)
