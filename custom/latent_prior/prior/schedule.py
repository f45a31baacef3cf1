"""The forward process z_t = alpha_t v + sigma_t eps of a variance-preserving diffusion model in discrete time.

Symbols: `v` a clean latent, already multiplied by the autoencoder's scaling factor; `eps` standard normal noise;
`z_t` the noised latent; `alpha_bar` the cumulative product of 1 - beta; alpha = sqrt(alpha_bar),
sigma = sqrt(1 - alpha_bar). A timestep `t` is an integer index in [0, T): 0 is nearly clean, T - 1 nearly pure noise.
Source: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", eq. 4.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The table of alpha_bar that a checkpoint was trained with, shape (T,); non-increasing, within [0, 1]."""

    alphas_cumprod: Float[Tensor, " T"]

    def __post_init__(self) -> None:
        table = self.alphas_cumprod
        if table.ndim != 1 or len(table) == 0:
            raise OptionError.because(f"alphas_cumprod has shape {tuple(table.shape)}; expected (T,) with T >= 1")
        # Written so that a NaN fails the test too.
        if not bool(((table >= 0) & (table <= 1)).all() and (table.diff() <= 0).all()):
            raise OptionError.because(
                "alphas_cumprod must lie in [0, 1] and never increase with t; "
                "check the checkpoint's scheduler_config.json"
            )

    @classmethod
    def from_betas(cls, betas: Float[Tensor, " T"]) -> "NoiseSchedule":
        """alpha_bar_t as the product of 1 - beta_s over s <= t (Ho et al. 2020, eq. 4)."""
        return cls(torch.cumprod(1.0 - betas, dim=0))

    @classmethod
    def scaled_linear(cls, beta_start: float, beta_end: float, num_timesteps: int) -> "NoiseSchedule":
        """Betas whose square roots are evenly spaced, as in every Stable Diffusion (Rombach et al. 2022).

        Computed in float32, as in diffusers, so both tables agree to the last bit.
        """
        return cls.from_betas(torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float32) ** 2)

    @property
    def num_timesteps(self) -> int:
        """T, the number of noise levels."""
        return len(self.alphas_cumprod)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "NoiseSchedule":
        """The same schedule on another device or in another precision."""
        return NoiseSchedule(self.alphas_cumprod.to(device=device, dtype=dtype))

    def alpha_bar(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """alpha_bar at timesteps t, shaped to broadcast against latents B C h w; t in [0, T), unchecked."""
        return self.alphas_cumprod[t].view(-1, 1, 1, 1)

    def alpha(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Scale of the signal, sqrt(alpha_bar)."""
        return self.alpha_bar(t).sqrt()

    def sigma(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Standard deviation of the noise, sqrt(1 - alpha_bar)."""
        return (1.0 - self.alpha_bar(t)).sqrt()

    def add_noise(
        self, v: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C h w"]:
        """z_t = alpha_t v + sigma_t eps, in v's precision (Ho et al. 2020, eq. 4)."""
        return self.alpha(t).to(v.dtype) * v + self.sigma(t).to(v.dtype) * eps


def draw_noise(v: Float[Tensor, "B C h w"], generator: torch.Generator | None = None) -> Float[Tensor, "B C h w"]:
    """Standard normal noise with the shape, precision and device of `v`.

    Drawn on the generator's own device and then moved, so one CPU generator gives the same noise on every machine.
    Without a generator, the global one of v's device is used, as `torch.randn_like` does.
    """
    device = v.device if generator is None else generator.device
    return torch.randn(v.shape, generator=generator, dtype=v.dtype, device=device).to(v.device)
