"""Directional regulariser: keeps the noise prediction for a latent close to that for its frozen source.

Both latents are noised with the same noise and timestep and predicted under the same prompt with the same guidance, so
the noise cancels, and so does the part of the prediction that is common to every picture under the prompt.
"""

from jaxtyping import Float
from torch import Tensor

from latent_prior.prior.distillation import lsd_loss


def directional_distillation_loss(
    v: Float[Tensor, "B C h w"],
    eps_hat: Float[Tensor, "B C h w"],
    eps_hat_frozen: Float[Tensor, "B C h w"],
    w: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, ""]:
    """1/2 ||v - sg(v - w (eps_hat - eps_hat_frozen))||^2 / B; the gradient on v is w (eps_hat - eps_hat_frozen) / B.

    eps_hat is the guided prediction for the noised `v`, eps_hat_frozen that for the source's noised latent. Song et
    al. 2022, "Diffusion Guided Domain Adaptation of Image Generators" (StyleGANFusion, arXiv 2212.04473), with
    w = 1 - alpha_bar_t. Reduction: as in `lsd_loss`.
    """
    return lsd_loss(v, eps_hat - eps_hat_frozen, w)
