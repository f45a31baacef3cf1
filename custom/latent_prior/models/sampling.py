"""Deterministic sampling, to look at what the prior makes of a noised latent.

Symbols as in `latent_prior.prior`: z_t = alpha_t v + sigma_t eps. Each sample walks from its own timestep down to a clean
latent in the same number of steps, so a batch of mixed timesteps needs no loop over samples.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.prior import NoiseSchedule, x0_from_eps


def ddim_step(
    z_t: Float[Tensor, "B C h w"],
    eps_hat: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    t_next: Int[Tensor, "B"],
    schedule: NoiseSchedule,
) -> Float[Tensor, "B C h w"]:
    """The latent at the lower timestep `t_next` (Song et al. 2021, "DDIM", eq. 12 with eta = 0)."""
    x0 = x0_from_eps(z_t, eps_hat, schedule.alpha(t), schedule.sigma(t))
    return schedule.add_noise(x0, eps_hat, t_next)


@torch.no_grad()
def ddim(
    denoise: Callable[[Tensor, Tensor], Tensor],
    schedule: NoiseSchedule,
    z_t: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    steps: int,
) -> Float[Tensor, "B C h w"]:
    """Clean latents from noised ones in `steps` calls of `denoise(z, t) → eps_hat`, timesteps evenly spaced below t."""
    if steps < 1:
        raise OptionError.because(f"steps is {steps}; expected at least 1")
    grid = [t * (steps - step) // steps for step in range(steps)]
    for now, after in zip(grid[:-1], grid[1:], strict=True):
        z_t = ddim_step(z_t, denoise(z_t, now), now, after, schedule)
    return x0_from_eps(z_t, denoise(z_t, grid[-1]), schedule.alpha(grid[-1]), schedule.sigma(grid[-1]))
