"""The feature matching term of scored latents, as the options ask for it; the formulas are prior/feature_matching.py's."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.autoencoder import Autoencoder
from latent_prior.models.condition import Condition, guided
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.linearised import linearised
from latent_prior.models.options import SIGMA_OVER_ALPHA, PriorOptions
from latent_prior.models.scores import Score
from latent_prior.prior import PIXELS, fm_loss, pixel_loss, pixel_step_loss


def feature_matching(
    autoencoder: Autoencoder,
    denoiser: Denoiser,
    v: Float[Tensor, "N C h w"],
    pictures: Float[Tensor, "B 3 H W"] | None,
    t: Int[Tensor, "N"],
    condition: Condition,
    scored: Score,
    options: PriorOptions,
) -> Float[Tensor, ""]:
    """The term over the rows whose noise is low enough, as their share of the mean over all rows.

    pictures: what the latents were encoded from; the N rows are their B latents, repeated. Raises OptionError for a
    target of pixels without them.
    """
    of_pixels = options.fm_target in PIXELS
    if of_pixels and pictures is None:
        raise no_pixels(options.fm_target)
    moving = pictures.repeat(len(t) // len(pictures), 1, 1, 1) if of_pixels and pictures is not None else v
    low = (t <= options.fm_max_step_percent * denoiser.schedule.num_timesteps).nonzero().squeeze(-1)
    if len(low) == 0:
        return (moving * 0).sum()
    prediction, delta = scored.prediction, scored.delta
    if options.fm_guidance_scale is not None:
        scales = (options.fm_guidance_scale, options.guidance_rescale)
        prediction = guided(prediction.rows, denoiser, t, condition, *scales)
        delta = prediction.eps_hat - scored.eps
    t, v, moving, delta, x0_hat = t[low], v[low], moving[low], delta[low], prediction.x0_hat[low]
    step: Tensor | float
    if options.fm_step == SIGMA_OVER_ALPHA:
        step = denoiser.schedule.sigma(t) / denoiser.schedule.alpha(t)
    else:
        step = float(options.fm_step)
    if options.fm_target == "pixels":
        with torch.no_grad():
            target = autoencoder.decode(x0_hat)
        term = pixel_loss(moving, target, denoiser.schedule.alpha_bar(t), options.fm_loss)
    elif of_pixels:
        with torch.no_grad():
            decoded, improved = autoencoder.decode(v), autoencoder.decode(v - step * delta)
        term = pixel_step_loss(moving, decoded, improved, options.fm_loss)
    else:
        matched = partial(
            fm_loss,
            partial(autoencoder.features, layers=options.fm_layers),
            delta=delta,
            x0_hat=x0_hat,
            target=options.fm_target,
            step=step,
            loss=options.fm_loss,
            normalise=options.fm_normalise,
            level_weights=options.fm_level_weights,
        )
        term = linearised(matched, v)
    return term * (len(low) / len(scored.eps))


def no_pixels(target: str, key: str = "fm_target") -> OptionError:
    """What is wrong with a target of pixels for latents."""
    return OptionError(key, target, "residual, paper or denoised where latents are optimised: there are no pictures")
