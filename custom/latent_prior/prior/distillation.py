"""Score distillation: variants of the noise residual `delta`, and the loss (LSD) that passes it to the latent.

`delta` points away from what the model finds likely, so descending along it moves `v` towards the prompt. Predictions
and noise have shape B C h w; `eps_hat` is guided (see cfg), `eps_cond`, `eps_uncond`, `eps_neg` are the predictions
under the prompt, the empty prompt and a prompt for bad quality. The variants whose noise is found by inverting the
sampler, or predicted by a second network, have sds_residual with another `eps`: see models/scores.py.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError


def sds_residual(eps_hat: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """eps_hat - eps (Poole et al. 2022, "DreamFusion", eq. 3; Liao et al. 2023, arXiv 2302.08510)."""
    return eps_hat - eps


def csd_residual(eps_cond: Float[Tensor, "B C h w"], eps_uncond: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """eps_cond - eps_uncond: the implicit classifier's score alone.

    Yu et al. 2023, "Text-to-3D with Classifier Score Distillation" (arXiv 2310.19415). The guidance scale does not
    enter; to scale the residual, change the loss weight.
    """
    return eps_cond - eps_uncond


def bridge_residual(
    eps_target: Float[Tensor, "B C h w"], eps_source: Float[Tensor, "B C h w"], scale: float
) -> Float[Tensor, "B C h w"]:
    """s (eps_target - eps_source): from pictures as they are, in words, to pictures as they should be.

    The source prompt is the prompt and words for what is wrong with its results so far, the target prompt the prompt and
    words for what is wanted. McAllister et al. 2024, "Rethinking Score Distillation as a Bridge Between Image
    Distributions" (arXiv 2406.09417), second stage; their scale is 40.
    """
    return scale * csd_residual(eps_target, eps_source)


def nfsd_residual(
    eps_cond: Float[Tensor, "B C h w"],
    eps_uncond: Float[Tensor, "B C h w"],
    eps_neg: Float[Tensor, "B C h w"],
    t: Int[Tensor, " B"],
    scale: float,
    t_small: int = 200,
) -> Float[Tensor, "B C h w"]:
    """s (eps_cond - eps_uncond) + delta_D, the score without the noise that SDS distils along with it.

    delta_D = eps_uncond where t < t_small, else eps_uncond - eps_neg. The paper's bound is 200 of 1000 timesteps; scale
    it with T. Katzir et al. 2023, "Noise-Free Score Distillation" (arXiv 2310.17590), eq. 6; their scale is 7.5.
    """
    in_domain = torch.where((t < t_small).view(-1, 1, 1, 1), eps_uncond, eps_uncond - eps_neg)
    return scale * (eps_cond - eps_uncond) + in_domain


def lsd_loss(
    v: Float[Tensor, "B C h w"],
    delta: Float[Tensor, "B C h w"],
    w: Float[Tensor, "B 1 1 1"],
    clip: float | None = None,
) -> Float[Tensor, ""]:
    """Latent score distillation: 1/2 ||v - sg(v - w delta)||^2 / B, whose gradient on v is w delta / B.

    `clip` bounds every entry of w delta to [-clip, clip] (D-SDS's dynamic clipping: Hong et al. 2023,
    arXiv 2303.15413); None disables it. Raises OptionError for a negative bound.

    Reduction: summed over C h w, averaged over B, as threestudio's loss_sds is. The gradient on one entry of v does not
    depend on the latent's size, but the value does, and so does its ratio to the feature matching and KL terms, which
    are means: to transfer weights tuned at n = C h w to another size n', multiply lambda_sds by n / n'.
    """
    if clip is not None and clip < 0:
        raise OptionError("grad_clip", clip, "a number >= 0, or None for no clipping")
    gradient = (w * delta).detach()
    if clip is not None:
        gradient = gradient.clamp(-clip, clip)
    # v - sg(v - g) written as (v - sg(v)) + g: the same number, but g is not rounded to v's precision.
    difference = (v - v.detach()) + gradient
    return 0.5 * difference.square().sum() / v.shape[0]
