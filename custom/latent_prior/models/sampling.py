"""Deterministic sampling, to show what the prior makes of a noised latent.

Symbols as in `latent_prior.prior`: z_t = alpha_t v + sigma_t eps. A step of DDIM with eta = 0 (Song et al. 2021, eq.
12) adds the predicted noise to the clean estimate at the lower timestep. Each sample goes from its own timestep down to
a clean latent in the same number of steps, so a batch of mixed timesteps needs no loop over samples.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.prior import NoiseSchedule


@torch.no_grad()
def ddim(
    denoise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    schedule: NoiseSchedule,
    z_t: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    steps: int,
) -> Float[Tensor, "B C h w"]:
    """Clean latents from noised ones: `steps` calls of `denoise(z, t) → (eps_hat, x0_hat)`, evenly spaced timesteps."""
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1")
    for step in range(steps):
        eps_hat, x0_hat = denoise(z_t, t * (steps - step) // steps)
        z_t = schedule.add_noise(x0_hat, eps_hat, t * (steps - step - 1) // steps)
    return x0_hat
