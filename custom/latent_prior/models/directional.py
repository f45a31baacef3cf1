"""StyleGANFusion's directional regulariser for a prior: one more prediction, for the latents of a frozen source."""

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior.models.condition import Condition, predict
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from latent_prior.prior import PriorLosses, directional_distillation_loss, weighting


def directional_regulariser(
    prior: LatentPrior,
    v: Float[Tensor, "B C h w"],
    v_frozen: Float[Tensor, "_ C _ _"],
    condition: Condition,
    losses: PriorLosses,
    options: PriorOptions,
) -> Float[Tensor, ""]:
    """`directional_distillation_loss` between scored latents `v` and the source's latents `v_frozen`.

    Timesteps, noises and the prediction for `v` are those of `losses`, so this costs one call of the denoiser without
    gradients; `condition` and `options` must be those that `losses` was computed with. w(t) is that of score
    distillation, by default 1 - alpha_bar_t as published. Raises ValueError unless `v_frozen` has v's shape.
    """
    if v_frozen.shape != v.shape:
        raise ValueError(
            f"the source's latents have shape {tuple(v_frozen.shape)}; expected {tuple(v.shape)}, one per scored latent"
        )
    schedule = prior.denoiser.schedule
    if options.n_noises > 1:
        v, v_frozen = (rows.repeat(options.n_noises, 1, 1, 1) for rows in (v, v_frozen))
        condition = condition.repeat(options.n_noises)
    with torch.no_grad():
        z_t = schedule.add_noise(v_frozen, losses.eps, losses.t)
        eps_hat_frozen = predict(prior.denoiser, z_t, losses.t, condition, options).eps_hat
    w = weighting(options.weighting_strategy, schedule, losses.t)
    return directional_distillation_loss(v, losses.eps_hat, eps_hat_frozen, w)
