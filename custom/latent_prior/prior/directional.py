"""Directional regulariser: what is optimised keeps the noise prediction that its frozen source has.

Both latents are noised with the same noise and timestep and predicted under the same prompt with the same guidance, so
the noise itself cancels, and what the prompt asks of every picture with it.
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

    eps_hat is the guided prediction for the noised `v`, eps_hat_frozen that for the noised latent of the source. Song et
    al. 2022, "Diffusion Guided Domain Adaptation of Image Generators" (StyleGANFusion, arXiv 2212.04473), with
    w = 1 - alpha_bar_t. Reduction: that of `lsd_loss`.
    """
    return lsd_loss(v, eps_hat - eps_hat_frozen, w)
