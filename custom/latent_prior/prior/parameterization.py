"""The quantities that a denoiser may predict, and how each one gives the noise and the clean latent.

All conversions follow from z_t = alpha x0 + sigma eps; `x0` is a clean latent or its estimate. Names as in diffusers'
`prediction_type`:
    epsilon          the noise eps
    v_prediction     the velocity alpha eps - sigma x0 where alpha^2 + sigma^2 = 1 (Salimans & Ho 2022, "Progressive
                     Distillation", appendix D); not to be confused with our latent `v`
    sample           the clean latent x0
    flow_prediction  the velocity eps - x0 of a straight path, where alpha + sigma = 1 (Esser et al. 2024, eq. 13)
`alpha`, `sigma` have shape B 1 1 1. Dividing by alpha or sigma loses precision where it is near zero. A velocity is
converted to either estimate without a division, so both are known at zero terminal SNR (alpha = 0), where the noise
alone does not determine x0 (Lin et al. 2023, section 3.1).
"""

from jaxtyping import Float
from torch import Tensor

from latent_prior.prior._checks import require_one_of

DIFFUSION_TYPES = ("epsilon", "v_prediction", "sample")
FLOW_TYPE = "flow_prediction"
PREDICTION_TYPES = (*DIFFUSION_TYPES, FLOW_TYPE)
_KEY = "prediction_type (in the checkpoint's scheduler_config.json)"


def x0_from_eps(
    z_t: Float[Tensor, "B C h w"],
    eps: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """Clean latent that the noise implies, (z_t - sigma eps) / alpha (Ho et al. 2020, eq. 15)."""
    return (z_t - sigma * eps) / alpha


def eps_from_x0(
    z_t: Float[Tensor, "B C h w"],
    x0: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """Noise that the clean latent implies, (z_t - alpha x0) / sigma."""
    return (z_t - alpha * x0) / sigma


def eps_from_model(
    output: Float[Tensor, "B C h w"],
    z_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
    prediction_type: str,
) -> Float[Tensor, "B C h w"]:
    """eps_hat from a denoiser's raw output. Raises OptionError for an unknown prediction type."""
    require_one_of(prediction_type, PREDICTION_TYPES, _KEY)
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return alpha * output + sigma * z_t
    if prediction_type == FLOW_TYPE:
        return z_t + alpha * output
    return eps_from_x0(z_t, output, alpha, sigma)


def x0_from_model(
    output: Float[Tensor, "B C h w"],
    z_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
    prediction_type: str,
) -> Float[Tensor, "B C h w"]:
    """The clean estimate from a denoiser's raw output. Raises OptionError for an unknown prediction type."""
    require_one_of(prediction_type, PREDICTION_TYPES, _KEY)
    if prediction_type == "epsilon":
        return x0_from_eps(z_t, output, alpha, sigma)
    if prediction_type == "v_prediction":
        return alpha * z_t - sigma * output
    if prediction_type == FLOW_TYPE:
        return z_t - sigma * output
    return output
