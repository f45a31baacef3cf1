"""The figures themselves, as plain functions of pictures, points and similarities.

Conventions: pictures in [0, 1], B 3 H W; masks and opacities B 1 H W, "inside" above 0.5; lengths in world units (the
solids of the pocket world fit in a ball of radius 0.8). Figures of several views are means of the views' figures.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from latent_prior import OptionError

PSNR_CAP = 100.0  # dB; equal pictures have no noise at all
FOG_MARGIN = 2  # pixels


def silhouette_iou(opacity: Float[Tensor, "B 1 H W"], mask: Float[Tensor, "B 1 H W"]) -> float:
    """Intersection over union of `opacity > 0.5` and `mask > 0.5`, mean over the views; two empty ones agree (1)."""
    _require_same_shape("opacity", opacity, "mask", mask)
    a, b = opacity > 0.5, mask > 0.5
    both, either = (a & b).flatten(1).sum(1).double(), (a | b).flatten(1).sum(1).double()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0).mean().item()


def psnr(pictures: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"]) -> float:
    """-10 log10 of the mean squared error, in dB, at most PSNR_CAP; mean over the views."""
    _require_same_shape("pictures", pictures, "truth", truth)
    mse = (pictures.double() - truth.double()).square().flatten(1).mean(1)
    return (-10 * torch.log10(mse)).clamp(max=PSNR_CAP).mean().item()


def dilate(mask: Float[Tensor, "B 1 H W"], margin: int) -> Float[Tensor, "B 1 H W"]:
    """Every pixel within `margin` rows and columns of a covered one (a square of 2 margin + 1 pixels)."""
    return F.max_pool2d(mask, 2 * margin + 1, stride=1, padding=margin)


def fog(pictures: Float[Tensor, "B 3 H W"], mask: Float[Tensor, "B 1 H W"], margin: int = FOG_MARGIN) -> float:
    """Mean |picture - white| over the pixels (and channels) farther than `margin` from any that the truth touches.

    The pictures are of the object on white, `mask` is the truth's covered share of each pixel. All views count as one
    set of pixels. Raises ValueError if the truth leaves no pixel free.
    """
    free = dilate((mask > 0).to(pictures), margin) == 0
    if not free.any():
        raise OptionError.because(
            "the truth's dilated silhouette covers every pixel, so there is nowhere to look for fog"
        )
    return (pictures - 1).abs().mean(dim=1, keepdim=True)[free].double().mean().item()


def chamfer_distance(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "M 3"]) -> float:
    """1/2 (mean over a of the distance to the nearest of b + mean over b of the distance to the nearest of a).

    Distances are Euclidean and not squared. Between two samples of the same surface it is not zero but about half the
    spacing of the points. Raises ValueError for an empty set.
    """
    if len(a) == 0 or len(b) == 0:
        raise OptionError.because(f"the Chamfer distance needs points on both sides, got {len(a)} and {len(b)}")
    to_b, _ = cKDTree(b).query(a)
    to_a, _ = cKDTree(a).query(b)
    return float(to_b.mean() + to_a.mean()) / 2


def ranks(similarities: Float[Tensor, "B K"], meant: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The rank, from 1, of entry `meant` in each row; entries that are just as similar stand before it."""
    own = similarities.gather(1, meant[:, None])
    return (similarities >= own).sum(1)


def r_precision(similarities: Float[Tensor, "B K"], meant: Int[Tensor, " B"]) -> float:
    """Share of the pictures whose own caption is nearer than every other (Park et al. 2021)."""
    return (ranks(similarities, meant) == 1).double().mean().item()


def mean_cosine_distance(features: Float[Tensor, "N D"]) -> float:
    """1 - cosine, mean over all pairs of two different rows. Raises ValueError for fewer than two rows."""
    count = len(features)
    if count < 2:
        raise OptionError.because(f"diversity needs two pictures or more, got {count}")
    unit = F.normalize(features.double(), dim=1)
    # the squared sum holds every ordered pair, and each row with itself
    cosines = unit.sum(0).square().sum() - unit.square().sum()
    return 1 - cosines.item() / (count * (count - 1))


def _require_same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    if first.shape != second.shape:
        raise OptionError.because(
            f"{first_name} and {second_name} must be as large as each other, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
