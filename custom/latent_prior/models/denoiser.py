"""One interface to denoising networks: `(z_t, t, condition) → eps_hat, x0_hat`, whatever the checkpoint predicts.

z_t = alpha_t v + sigma_t eps; t are integer timesteps of the checkpoint's own schedule. Both estimates are computed
from the network's output, since at zero terminal SNR (alpha_t = 0) neither follows from the other. Guidance is not
applied here: the caller concatenates its conditional, unconditional and negative rows and makes one call.

Stable Diffusion XL has added conditions: the pooled embedding, which is packed below the hidden states (packing.py),
and the sizes, which are those of the whole picture, uncropped.
"""

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.checkpoint import KEY, Checkpoint
from latent_prior.models.loading import load_scheduler, load_unet
from latent_prior.models.packing import unpacked
from latent_prior.prior import PREDICTION_TYPES, NoiseSchedule, eps_from_model, x0_from_model


class Denoiser:
    """A UNet with its noise schedule and parameterisation."""

    def __init__(self, unet: UNet2DConditionModel, schedule: NoiseSchedule, prediction_type: str, downscale: int = 8):
        if prediction_type not in PREDICTION_TYPES:
            raise OptionError.because(
                f"prediction_type is {prediction_type!r}; expected one of {', '.join(PREDICTION_TYPES)}", KEY
            )
        self.unet = unet
        self.schedule = schedule
        self.prediction_type = prediction_type
        width = unet.config.cross_attention_dim
        self.condition_width: int = width if isinstance(width, int) else width[0]
        self.downscale = downscale  # pixels per latent, for the sizes that an XL model takes
        self.pooled_width: int | None = None
        if unet.config.addition_embed_type == "text_time":
            sizes = 6 * unet.config.addition_time_embed_dim
            self.pooled_width = unet.config.projection_class_embeddings_input_dim - sizes
        size = unet.config.sample_size
        self.sample_size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        # the last timestep at which the output determines the clean latent: at alpha = 0 predicted noise does not
        table = schedule.alphas_cumprod
        self.last_timestep = int((table > 0).sum() if prediction_type == "epsilon" else len(table)) - 1

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> "Denoiser":
        """Load UNet and noise schedule of a checkpoint onto a device."""
        scheduler = load_scheduler(checkpoint)
        schedule = NoiseSchedule(scheduler.alphas_cumprod.to(device))
        downscale = 2 ** (len(checkpoint.config("vae").get("block_out_channels", (64,))) - 1)
        return cls(load_unet(checkpoint, dtype).to(device), schedule, scheduler.config.prediction_type, downscale)

    def __call__(
        self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], condition: Float[Tensor, "B R D"]
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """(noise, clean latent) estimated for each row, float32; computed in the precision of the weights."""
        dtype, added = self.unet.dtype, None
        if self.pooled_width is not None:
            condition, pooled = unpacked(condition, self.pooled_width)
            height, width = (side * self.downscale for side in z_t.shape[-2:])
            sizes = z_t.new_tensor([height, width, 0, 0, height, width]).expand(len(z_t), -1)
            added = {"text_embeds": pooled.to(dtype), "time_ids": sizes.to(dtype)}
        condition = condition.to(dtype)
        output = self.unet(z_t.to(dtype), t, encoder_hidden_states=condition, added_cond_kwargs=added).sample.float()
        known = (output, z_t, self.schedule.alpha(t), self.schedule.sigma(t), self.prediction_type)
        return eps_from_model(*known), x0_from_model(*known)
