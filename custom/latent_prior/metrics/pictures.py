"""Metrics that compare pictures or masks."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FOG_MARGIN = 2  # pixels


def psnr(
    pictures: Float[Tensor, "B C H W"],
    truth: Float[Tensor, "B C H W"],
    where: Float[Tensor, "B 1 H W"] | None = None,
    cap: float = math.inf,
) -> Float[Tensor, " B"]:
    """10 log10(1 / mean squared error) of each picture, in dB, for values in [0, 1]; at most `cap`.

    where: only pixels inside this mask count (None: all); a picture without such a pixel gives NaN. Equal pictures have
    an infinite PSNR, so a mean over pictures needs a `cap`. 8-bit colour pictures of up to 226 x 226 pixels that
    differ at all stay below 100 dB, so only equal ones reach a cap of 100.
    """
    _require_same_shape("pictures", pictures, "truth", truth)
    error = (pictures.double() - truth.double()).square()
    if where is None:
        mse = error.flatten(1).mean(1)
    else:
        counted = (where > 0.5).expand_as(error)
        mse = (error * counted).flatten(1).sum(1) / counted.flatten(1).sum(1)
    return (-10 * torch.log10(mse)).clamp(max=cap)


def iou(a: Float[Tensor, "B 1 H W"], b: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
    """Intersection over union of two masks; 1 if both are empty."""
    _require_same_shape("the first mask", a, "the second", b)
    a, b = a > 0.5, b > 0.5
    both, either = (a & b).flatten(1).sum(1).double(), (a | b).flatten(1).sum(1).double()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def dilate(mask: Float[Tensor, "B 1 H W"], margin: int) -> Float[Tensor, "B 1 H W"]:
    """Mask of every pixel within `margin` rows and columns of a covered one (a square of 2 margin + 1 pixels)."""
    return F.max_pool2d(mask, 2 * margin + 1, stride=1, padding=margin)


def fog(pictures: Float[Tensor, "B 3 H W"], mask: Float[Tensor, "B 1 H W"], margin: int = FOG_MARGIN) -> float:
    """Mean |picture - white| over the pixels (and channels) farther than `margin` from any that the truth covers.

    The pictures are of the object on white, `mask` is the truth's covered share of each pixel (any at all counts). All
    views count as one set of pixels. Raises ValueError if the truth leaves no pixel free.
    """
    free = dilate((mask > 0).to(pictures), margin) == 0
    if not free.any():
        raise ValueError("the truth's dilated silhouette covers every pixel, so there is nowhere to look for fog")
    return (pictures - 1).abs().mean(dim=1, keepdim=True)[free].double().mean().item()


def _require_same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} and {second_name} must be of one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
