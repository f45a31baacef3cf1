"""Metrics on features of pictures from any network: distance between two sets, diversity of one, ranks of captions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def frechet_distance(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of Gaussians fitted to two sets (Heusel et al. 2017).

    Computed in float64. With features from Inception it is the FID. Covariances are unbiased. Raises
    ValueError if either set has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the Fréchet distance needs two pictures of each kind, got {len(a)} and {len(b)}")
    a, b = a.double().cpu(), b.double().cpu()
    # (C_a C_b)^(1/2) has the roots of the product's eigenvalues, which are real and >= 0 except for rounding
    roots = torch.linalg.eigvals(torch.cov(a.T).view(a.shape[1], -1) @ torch.cov(b.T).view(b.shape[1], -1)).sqrt().real
    variances = a.var(0).sum() + b.var(0).sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + variances - 2 * roots.sum()).item()


def mean_cosine_distance(features: Float[Tensor, "N D"]) -> float:
    """1 - cosine, mean over all pairs of two different rows. Raises ValueError for fewer than two rows."""
    count = len(features)
    if count < 2:
        raise ValueError(f"diversity needs two pictures or more, got {count}")
    unit = F.normalize(features.double(), dim=1)
    # the squared sum contains every ordered pair, and each row with itself
    cosines = unit.sum(0).square().sum() - unit.square().sum()
    return 1 - cosines.item() / (count * (count - 1))


def ranks(similarities: Float[Tensor, "B K"], meant: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The rank, from 1, of entry `meant` in each row; equally similar entries rank before it."""
    own = similarities.gather(1, meant[:, None])
    return (similarities >= own).sum(1)


def r_precision(similarities: Float[Tensor, "B K"], meant: Int[Tensor, " B"]) -> float:
    """Fraction of the pictures whose own caption is nearer than every other (Park et al. 2021)."""
    return (ranks(similarities, meant) == 1).double().mean().item()
