"""One contract over denoising networks: `(z_t, t, condition) → eps_hat`, unguided, whatever the checkpoint predicts.

z_t = alpha_t v + sigma_t eps; t are integer timesteps of the checkpoint's own schedule. Guidance is not done here: the
caller lays its conditional, unconditional and negative rows side by side and makes one call.

Added conditions (pooled text and sizes, as Stable Diffusion XL has) would come as further tensors beside `condition`.
"""

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.models.checkpoint import KEY, Checkpoint
from latent_prior.models.loading import load_scheduler, load_unet
from latent_prior.prior import PREDICTION_TYPES, NoiseSchedule, eps_from_model


class Denoiser:
    """A UNet with its noise schedule and parameterisation."""

    def __init__(self, unet: UNet2DConditionModel, schedule: NoiseSchedule, prediction_type: str):
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"{KEY}: prediction_type is {prediction_type!r}; expected one of {', '.join(PREDICTION_TYPES)}"
            )
        self.unet = unet
        self.schedule = schedule
        self.prediction_type = prediction_type
        width = unet.config.cross_attention_dim
        self.condition_width: int = width if isinstance(width, int) else width[0]
        size = unet.config.sample_size
        self.sample_size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> "Denoiser":
        """Load UNet and noise schedule of a checkpoint onto a device."""
        scheduler = load_scheduler(checkpoint)
        schedule = NoiseSchedule(scheduler.alphas_cumprod.to(device))
        return cls(load_unet(checkpoint, dtype).to(device), schedule, scheduler.config.prediction_type)

    def __call__(
        self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], condition: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        """The noise predicted for each row, float32; computed in the precision of the weights."""
        dtype = self.unet.dtype
        output = self.unet(z_t.to(dtype), t, encoder_hidden_states=condition.to(dtype)).sample.float()
        return eps_from_model(output, z_t, self.schedule.alpha(t), self.schedule.sigma(t), self.prediction_type)
