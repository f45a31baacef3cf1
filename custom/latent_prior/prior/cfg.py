"""Guidance: combines a denoiser's predictions under several prompts into one guided prediction `eps_hat`.

Every function here uses the standard scale `s`: 0 is unconditional, 1 conditional, above 1 extrapolates. threestudio's
plain branch computes eps_cond + s (eps_cond - eps_uncond), which is our scale s + 1, while its perp-neg branch computes
eps_uncond + s (...), which is ours. So a plain threestudio config with guidance_scale 100 corresponds to 101 here.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError


def classifier_free_guidance(
    eps_cond: Float[Tensor, "B C h w"], eps_uncond: Float[Tensor, "B C h w"], scale: float
) -> Float[Tensor, "B C h w"]:
    """eps_uncond + s (eps_cond - eps_uncond).

    Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", eq. 6, with s = 1 + w for their w. With a negative
    prompt, `eps_uncond` is the prediction under that prompt instead of the empty one.
    """
    return eps_uncond + scale * (eps_cond - eps_uncond)


def perpendicular_component(x: Float[Tensor, "B C h w"], y: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """x minus its projection onto y, per sample.

    The squared norm of y is clamped to at least 1e-6, as in threestudio, so x is returned unchanged where y is zero.
    """
    overlap = (x * y).sum(dim=(1, 2, 3), keepdim=True)
    square = (y * y).sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    return x - overlap / square * y


def perp_neg(
    eps_pos: Float[Tensor, "B C h w"],
    eps_uncond: Float[Tensor, "B C h w"],
    eps_negs: Float[Tensor, "B N C h w"],
    weights: Float[Tensor, "B N"],
    scale: float,
) -> Float[Tensor, "B C h w"]:
    """Guidance with N negative prompts per sample, each acting only perpendicular to the positive direction.

    eps_uncond + s (d + sum_i w_i (d_i perpendicular to d)) with d = eps_pos - eps_uncond and
    d_i = eps_negs[:, i] - eps_uncond. Armandpour et al. 2023, "Re-imagine the Negative Prompt Algorithm" (Perp-Neg,
    arXiv 2304.04968). The sign of the negatives is in `weights`: threestudio's prompt processor returns numbers <= 0.
    Its negative rows are ordered by sample (b0n0, b0n1, b1n0, ...), so `eps[2 * B:].unflatten(0, (B, N))` gives the
    layout expected here. Without negatives, or with zero weights, this is `classifier_free_guidance`.
    """
    direction = eps_pos - eps_uncond
    total = direction
    for i in range(eps_negs.shape[1]):
        across = perpendicular_component(eps_negs[:, i] - eps_uncond, direction)
        total = total + weights[:, i].view(-1, 1, 1, 1) * across
    return eps_uncond + scale * total


def rescale_guidance(
    x0_hat: Float[Tensor, "B C h w"], x0_cond: Float[Tensor, "B C h w"], phi: float
) -> Float[Tensor, "B C h w"]:
    """The guided clean estimate, rescaled towards the spread of the conditional one; reduces over-saturation.

    phi (std(x0_cond) / std(x0_hat)) x0_hat + (1 - phi) x0_hat, with standard deviations over C h w of each sample.
    phi in [0, 1]: 0 leaves x0_hat unchanged, 1 matches the spread fully. Raises OptionError outside that range.
    Source: Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.4, applied to x0
    as MVDream does (Shi et al. 2023), which takes the standard deviations over all views of one object.
    """
    if not 0.0 <= phi <= 1.0:
        raise OptionError("guidance_rescale", phi, "a number in [0, 1]")
    spread, wanted = (torch.std(x0, dim=(1, 2, 3), keepdim=True) for x0 in (x0_hat, x0_cond))
    return (1.0 - phi + phi * wanted / spread.clamp_min(1e-8)) * x0_hat
