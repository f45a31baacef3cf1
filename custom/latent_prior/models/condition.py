"""Prompt conditions of latents, and the guided noise prediction under them, in one batched call of the denoiser.

B latents, L tokens of width D. The denoiser's rows are ordered [conditional, unconditional, negatives, null].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.models.denoiser import Denoiser
from latent_prior.models.options import PriorOptions
from latent_prior.prior import (
    classifier_free_guidance,
    csd_residual,
    nfsd_residual,
    perp_neg,
    rescale_guidance,
    sds_residual,
)


@dataclass(frozen=True, eq=False)
class Condition:
    """Prompt embeddings of a batch of latents."""

    cond: Float[Tensor, "B L D"]  # the prompt
    uncond: Float[Tensor, "B L D"]  # the negative prompt, by default the empty one
    negatives: Float[Tensor, "B N L D"] | None = None  # perp-neg's negative prompts; None: plain guidance
    negative_weights: Float[Tensor, "B N"] | None = None  # their weights, <= 0
    null: Float[Tensor, "B L D"] | None = None  # the empty prompt, which noise-free distillation needs too

    def __getitem__(self, rows: slice) -> "Condition":
        """The condition of some of the latents."""
        given = {name: part for name, part in vars(self).items() if part is not None}
        return Condition(**{name: part[rows] for name, part in given.items()})

    def repeat(self, copies: int) -> "Condition":
        """The condition of the latents repeated so many times, one batch after another."""
        given = {name: part for name, part in vars(self).items() if part is not None}
        return Condition(**{name: part.repeat(copies, *[1] * (part.ndim - 1)) for name, part in given.items()})


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for a batch of noised latents, without gradients."""

    eps_hat: Float[Tensor, "B C h w"]  # noise, guided
    x0_hat: Float[Tensor, "B C h w"]  # clean latent, guided: what eps_hat implies, defined at alpha = 0 too
    eps_cond: Float[Tensor, "B C h w"]
    eps_uncond: Float[Tensor, "B C h w"]
    eps_null: Float[Tensor, "B C h w"] | None


@torch.no_grad()
def predict(
    denoiser: Denoiser,
    z_t: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    condition: Condition,
    options: PriorOptions,
) -> Prediction:
    """Guided prediction in one batched call: classifier-free guidance, or perp-neg if there are negatives.

    Guidance is linear in differences of predictions, so the same formula guides the noise and the clean latent.
    """
    batch, negatives, null = len(z_t), condition.negatives, condition.null
    rows = [condition.cond, condition.uncond]
    rows += [] if negatives is None else [negatives.flatten(0, 1)]
    rows += [] if null is None else [null]
    # negatives are ordered by sample, so their latents are repeated in that order
    each = 0 if negatives is None else negatives.shape[1]
    index = torch.arange(batch, device=z_t.device)
    index = torch.cat([index, index, index.repeat_interleave(each), index[: 0 if null is None else batch]])
    eps, x0 = denoiser(z_t[index], t[index], torch.cat([row.to(z_t.dtype) for row in rows]))
    scale = options.guidance_scale

    def guided(rows: Tensor) -> Tensor:
        cond, uncond = rows[:batch], rows[batch : 2 * batch]
        if negatives is None or condition.negative_weights is None:
            return classifier_free_guidance(cond, uncond if null is None else rows[-batch:], scale)
        negs = rows[2 * batch : (2 + each) * batch].unflatten(0, (batch, each))
        return perp_neg(cond, uncond, negs, condition.negative_weights, scale)

    eps_hat, x0_hat = guided(eps), guided(x0)
    if options.guidance_rescale:
        rescaled = rescale_guidance(x0_hat, x0[:batch], options.guidance_rescale)
        # the same as eps_from_x0(rescaled), without subtracting two nearly equal numbers at low noise
        eps_hat = eps_hat + (x0_hat - rescaled) * denoiser.schedule.alpha(t) / denoiser.schedule.sigma(t)
        x0_hat = rescaled
    return Prediction(eps_hat, x0_hat, eps[:batch], eps[batch : 2 * batch], None if null is None else eps[-batch:])


def residual(
    prediction: Prediction,
    eps: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    num_timesteps: int,
    options: PriorOptions,
) -> Float[Tensor, "B C h w"]:
    """The noise residual `delta` in the variant that `options.score` names."""
    if options.score == "csd":
        return csd_residual(prediction.eps_cond, prediction.eps_uncond)
    if options.score == "nfsd" and prediction.eps_null is not None:
        return nfsd_residual(
            prediction.eps_cond,
            prediction.eps_null,
            prediction.eps_uncond,
            t,
            options.guidance_scale,
            t_small=num_timesteps // 5,  # 200 of 1000 in the paper
        )
    return sds_residual(prediction.eps_hat, eps)
