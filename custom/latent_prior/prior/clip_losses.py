"""Losses in CLIP space: on unit embeddings of pictures and texts, B D, and on self-similarities, B N N.

The caller computes the embeddings. One text may be given for all pictures (1 D).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Differences of two embeddings that are shorter than this count as this long, see `directional_loss`.
SHORTEST_DIRECTION = 0.05
# A direction between texts shorter than this counts as zero.
_NO_DIRECTION = 1e-8


def directional_loss(
    now: Float[Tensor, "B D"],
    before: Float[Tensor, "B D"],
    text_to: Float[Tensor, "#B D"],
    text_from: Float[Tensor, "#B D"],
) -> Float[Tensor, ""]:
    """mean over B of 1 - cos(now - before, text_to - text_from).

    Gal et al. 2022, "StyleGAN-NADA" (arXiv 2108.00946), the directional loss. The gradient of the cosine grows as one
    over the length of the difference, and an optimisation that starts at its source starts with length 0. So a
    difference shorter than SHORTEST_DIRECTION is divided by SHORTEST_DIRECTION instead of its length: the gradient
    stays bounded, follows the text direction at length 0, and does not flood the optimiser's second moments. Two equal
    texts give 1 and no gradient.
    """
    moved, wanted = now - before, text_to - text_from
    moved = moved / moved.norm(dim=-1, keepdim=True).clamp_min(SHORTEST_DIRECTION)
    wanted = wanted / wanted.norm(dim=-1, keepdim=True).clamp_min(_NO_DIRECTION)
    return (1.0 - (moved * wanted).sum(-1)).mean()


def spherical_distance(x: Float[Tensor, "#B D"], y: Float[Tensor, "#B D"]) -> Float[Tensor, " B"]:
    """2 arcsin(|x - y| / 2)^2 of unit vectors, row by row: half the squared angle between them, at most pi^2 / 2.

    Used in Crowson's CLIP guidance and as the distance to a text in Text2LIVE (Bar-Tal et al. 2022, arXiv 2204.02491).
    Half the angle is computed as atan2(|x - y|, |x + y|), which is the same for unit vectors and has a finite gradient
    for equal and opposite ones too (0 there).
    """
    half_angle = torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))
    return 2.0 * half_angle.square()


def structure_loss(S_a: Float[Tensor, "B N N"], S_b: Float[Tensor, "B N N"]) -> Float[Tensor, ""]:
    """Mean squared difference between two pictures' self-similarities, over B and all pairs of patches.

    Bar-Tal et al. 2022 (Text2LIVE), the structure term, with the self-similarity of Kolkin et al. 2019 (STROTSS,
    arXiv 1904.12785): it preserves which patches resemble each other, while every patch may change.
    """
    return F.mse_loss(S_a, S_b)
