"""Deterministic sampling, to show what the prior makes of a noised latent, and its inversion, which finds the noise.

Symbols as in `latent_prior.prior`: z_t = alpha_t v + sigma_t eps. A step of DDIM with eta = 0 (Song et al. 2021, eq.
12) adds the predicted noise to the clean estimate at the lower timestep; the inversion takes the same step upwards.
Each sample has its own timestep, at which its way begins or ends.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.prior import NoiseSchedule

Denoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (z, t) → (eps_hat, x0_hat)


@torch.no_grad()
def ddim(
    denoise: Denoise,
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


@torch.no_grad()
def ddim_inversion(
    denoise: Denoise,
    schedule: NoiseSchedule,
    v: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    stride: int,
    eta: float = 0.0,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Float[Tensor, "B C h w"]:
    """The noised latents at timesteps t from which sampling leads to the clean latents v.

    Upwards by `stride` timesteps at a time, each sample to its own t, with as many calls as the noisiest needs. eta: of
    the noise that is added on the way, as a share of the noise between two levels in the forward process; `draw` gives
    it, like what it is called with. A sample at t = 0 stays v.
    """
    if stride < 1:
        raise ValueError(f"stride is {stride}; expected at least 1")
    z, now = v, torch.zeros_like(t)
    while bool((now < t).any()):
        later = (now + stride).minimum(t)
        eps_hat, x0_hat = denoise(z, now)
        clean = (now == 0).view(-1, 1, 1, 1)  # v has no noise, and so is its own estimate
        moved = schedule.add_noise(torch.where(clean, v, x0_hat), eps_hat, later)
        if eta > 0:
            before = torch.where(clean, torch.ones_like(schedule.alpha_bar(now)), schedule.alpha_bar(now))
            after = schedule.alpha_bar(later)
            variance = (1 - before) / (1 - after) * (1 - after / before)
            # of a variance-preserving process, and so of noised latents divided by their scale in another one
            scale = (schedule.alpha(later) ** 2 + schedule.sigma(later) ** 2).sqrt()
            moved = moved + eta * variance.sqrt() * scale * draw(z)
        z, now = torch.where((now < later).view(-1, 1, 1, 1), moved, z), later
    return z
