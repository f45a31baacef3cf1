"""One interface to denoising networks: `(z_t, t, condition) → eps_hat, x0_hat`, whatever the checkpoint predicts.

z_t = alpha_t v + sigma_t eps; t are timesteps of the checkpoint's own schedule. Both estimates are computed from the
network's output, since where there is no signal (alpha_t = 0) neither follows from the other. Guidance is not applied
here: the caller concatenates its conditional, unconditional and negative rows and makes one call.
"""

from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.checkpoint import KEY, Checkpoint
from latent_prior.models.loading import load_schedule
from latent_prior.models.networks import Network
from latent_prior.prior import PREDICTION_TYPES, NoiseSchedule, eps_from_model, x0_from_model


class Denoiser:
    """A denoising network with its noise schedule and parameterisation."""

    def __init__(self, network: Network, schedule: NoiseSchedule, prediction_type: str):
        if prediction_type not in PREDICTION_TYPES:
            raise OptionError.because(
                f"prediction_type is {prediction_type!r}; expected one of {', '.join(PREDICTION_TYPES)}", KEY
            )
        self.network = network
        self.schedule = schedule
        self.prediction_type = prediction_type
        # the last timestep at which the output determines the clean latent: at alpha = 0 predicted noise does not
        shares = schedule.every_alpha_bar
        self.last_timestep = int((shares > 0).sum() if prediction_type == "epsilon" else len(shares)) - 1

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, embedded_guidance_scale: float = 3.5
    ) -> "Denoiser":
        """Load network and noise schedule of a checkpoint onto a device."""
        schedule, prediction_type = load_schedule(checkpoint)
        network = Network.from_checkpoint(checkpoint, device, dtype, embedded_guidance_scale)
        return cls(network, schedule.to(device), prediction_type)

    @property
    def module(self) -> Any:
        """The network as a module of diffusers."""
        return self.network.module

    @property
    def condition_width(self) -> int:
        """Width of the rows of a condition."""
        return self.network.condition_width

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of the latents that it was trained on."""
        return self.network.sample_size

    def __call__(
        self, z_t: Float[Tensor, "B C h w"], t: Real[Tensor, "B"], condition: Float[Tensor, "B R D"]
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """(noise, clean latent) estimated for each row, float32; computed in the precision of the weights."""
        output = self.network(z_t, self.schedule.network_time(t), condition).float()
        known = (output, z_t, self.schedule.alpha(t), self.schedule.sigma(t), self.prediction_type)
        return eps_from_model(*known), x0_from_model(*known)
