"""The forward process z_t = alpha_t v + sigma_t eps of a diffusion or a flow model.

Symbols: `v` a clean latent, already multiplied by the autoencoder's scaling factor; `eps` standard normal noise; `z_t`
the noised latent. A timestep `t` is an index in [0, T): 0 is nearly clean, T - 1 nearly pure noise. A diffusion model
has a table of T noise levels, so t is a whole number; for a flow model t / T may be any number in [0, 1).

`alpha_bar` is alpha^2 / (alpha^2 + sigma^2), the signal's share of the power, by which noise levels of all schedules are
compared: a noised latent divided by sqrt(alpha^2 + sigma^2) is one of a variance-preserving process.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from latent_prior import OptionError

FLOW_TIMES = 1000.0  # sigma = 1 in the numbers that flow models are given


class NoiseSchedule(ABC):
    """The noise levels that a checkpoint was trained with. `t` is not checked to lie in [0, T)."""

    @property
    @abstractmethod
    def num_timesteps(self) -> int:
        """T, the number of noise levels."""

    @abstractmethod
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "NoiseSchedule":
        """The same schedule on another device or in another precision."""

    @abstractmethod
    def alpha(self, t: Real[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Scale of the signal, shaped to broadcast against latents B C h w."""

    @abstractmethod
    def sigma(self, t: Real[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """Standard deviation of the noise."""

    @abstractmethod
    def alpha_bar(self, t: Real[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        """The signal's share of the power, alpha^2 / (alpha^2 + sigma^2)."""

    @abstractmethod
    def network_time(self, t: Real[Tensor, " B"]) -> Real[Tensor, " B"]:
        """The number by which the denoising network is told the noise level."""

    @property
    def every_alpha_bar(self) -> Float[Tensor, " T"]:
        """alpha_bar at all whole timesteps."""
        return self.alpha_bar(torch.arange(self.num_timesteps)).flatten()

    def nearest(self, alpha_bar: float) -> int:
        """The whole timestep whose alpha_bar is nearest."""
        return int((self.every_alpha_bar - alpha_bar).abs().argmin())

    def add_noise(
        self, v: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"], t: Real[Tensor, " B"]
    ) -> Float[Tensor, "B C h w"]:
        """z_t = alpha_t v + sigma_t eps, in v's precision (Ho et al. 2020, eq. 4; Esser et al. 2024, eq. 13)."""
        return self.alpha(t).to(v.dtype) * v + self.sigma(t).to(v.dtype) * eps


@dataclass(frozen=True, eq=False)
class DiffusionSchedule(NoiseSchedule):
    """A variance-preserving process in discrete time: alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar).

    alphas_cumprod: the table of alpha_bar, the cumulative product of 1 - beta, shape (T,); non-increasing, within
    [0, 1]. Source: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", eq. 4.
    """

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
    def from_betas(cls, betas: Float[Tensor, " T"]) -> "DiffusionSchedule":
        """alpha_bar_t as the product of 1 - beta_s over s <= t (Ho et al. 2020, eq. 4)."""
        return cls(torch.cumprod(1.0 - betas, dim=0))

    @classmethod
    def scaled_linear(cls, beta_start: float, beta_end: float, num_timesteps: int) -> "DiffusionSchedule":
        """Betas whose square roots are evenly spaced, as in Stable Diffusion 1, 2 and XL (Rombach et al. 2022).

        Computed in float32, as in diffusers, so both tables agree to the last bit.
        """
        return cls.from_betas(torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float32) ** 2)

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def every_alpha_bar(self) -> Float[Tensor, " T"]:
        return self.alphas_cumprod

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "DiffusionSchedule":
        return DiffusionSchedule(self.alphas_cumprod.to(device=device, dtype=dtype))

    def alpha_bar(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        return self.alphas_cumprod[t].view(-1, 1, 1, 1)

    def alpha(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        return self.alpha_bar(t).sqrt()

    def sigma(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        return (1.0 - self.alpha_bar(t)).sqrt()

    def network_time(self, t: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        return t


@dataclass(frozen=True)
class FlowSchedule(NoiseSchedule):
    """Straight paths from data to noise in continuous time: alpha = 1 - sigma.

    sigma(t) = shift s / (1 + (shift - 1) s) with s = (t + 1) / T, so that sigma is 1 at T - 1. A shift above 1 moves the
    levels towards noise. Source: Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image
    Synthesis" (arXiv 2403.03206), eq. 13 and 23. Raises OptionError unless the shift is a number above 0.
    """

    shift: float = 1.0
    num_timesteps: int = 1000  # type: ignore[misc]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not 0 < self.shift < float("inf") or self.num_timesteps < 1:
            raise OptionError.because(
                f"the shift of a flow is {self.shift} over {self.num_timesteps} timesteps; expected numbers above 0: "
                "check the checkpoint's scheduler_config.json"
            )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "FlowSchedule":
        return replace(self, dtype=dtype or self.dtype)

    def _level(self, t: Real[Tensor, " B"]) -> Float[Tensor, " B"]:
        s = (t.to(self.dtype) + 1) / self.num_timesteps
        return self.shift * s / (1 + (self.shift - 1) * s)

    def sigma(self, t: Real[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        return self._level(t).view(-1, 1, 1, 1)

    def alpha(self, t: Real[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        return 1 - self.sigma(t)

    def alpha_bar(self, t: Real[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
        alpha, sigma = self.alpha(t), self.sigma(t)
        return alpha**2 / (alpha**2 + sigma**2)

    def network_time(self, t: Real[Tensor, " B"]) -> Float[Tensor, " B"]:
        return self._level(t) * FLOW_TIMES


def draw_noise(v: Float[Tensor, "B C h w"], generator: torch.Generator | None = None) -> Float[Tensor, "B C h w"]:
    """Standard normal noise with the shape, precision and device of `v`.

    Drawn on the generator's own device and then moved, so one CPU generator gives the same noise on every machine.
    Without a generator, the global one of v's device is used, as `torch.randn_like` does.
    """
    device = v.device if generator is None else generator.device
    return torch.randn(v.shape, generator=generator, dtype=v.dtype, device=device).to(v.device)
