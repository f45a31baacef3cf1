"""Denoising networks behind one call: `(z_t, time, condition) → output`, whatever they want to be told besides.

A condition is one tensor of rows, the prompt's hidden states, with the pooled embedding packed below them (packing.py)
where a network takes one. `time` is NoiseSchedule.network_time.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from jaxtyping import Float, Real
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.checkpoint import Checkpoint
from latent_prior.models.families import FLUX, FLUX_PATCH, FLUX_SIDE, SD3
from latent_prior.models.joint_attention import RepeatedLastToken
from latent_prior.models.loading import load_denoiser
from latent_prior.models.packing import unpacked
from latent_prior.prior.schedule import FLOW_TIMES


class Network(ABC):
    """A denoising network.

    module: of torch. sample_size: height and width of the latents it was trained on. condition_width: of a condition's
    rows. pooled_width: of the pooled embedding, None without one. patch: sides of latents are multiples of it.
    """

    module: Any  # a ModelMixin of diffusers
    condition_width: int
    pooled_width: int | None = None
    sample_size: tuple[int, int]
    patch: int = 1

    @staticmethod
    def from_checkpoint(
        checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, embedded_guidance_scale: float = 3.5
    ) -> "Network":
        """Load the network of a checkpoint onto a device."""
        module = load_denoiser(checkpoint, dtype).to(device)
        if checkpoint.family is FLUX:
            return FluxNetwork(module, embedded_guidance_scale)
        if checkpoint.family is SD3:
            return SD3Network(module, None if checkpoint.has_t5 else SD3.t5_tokens)
        return UNetNetwork(module, 2 ** (len(checkpoint.config("vae").get("block_out_channels", (64,))) - 1))

    @abstractmethod
    def __call__(
        self, z_t: Float[Tensor, "B C h w"], time: Real[Tensor, "B"], condition: Float[Tensor, "B R D"]
    ) -> Float[Tensor, "B C h w"]:
        """The output, in the precision of the weights. OptionError for sizes that it does not take."""

    def check_size(self, height: int, width: int) -> None:
        """Raise OptionError for latents that cannot be cut into patches."""
        if height % self.patch or width % self.patch:
            raise OptionError.because(
                f"got latents of {height}x{width}; the denoiser takes multiples of {self.patch}: change the pictures' "
                "size (data.height and data.width), or set resize_input=true"
            )

    def split(self, condition: Float[Tensor, "B R D"]) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B P"] | None]:
        """Hidden states and pooled embedding, in the precision of the weights."""
        dtype = self.module.dtype
        if self.pooled_width is None:
            return condition.to(dtype), None
        hidden, pooled = unpacked(condition, self.pooled_width)
        return hidden.to(dtype), pooled.to(dtype)


class UNetNetwork(Network):
    """Stable Diffusion's UNet. XL's is told sizes as well: those of the whole picture, uncropped.

    downscale: pixels per latent, for these sizes.
    """

    module: UNet2DConditionModel

    def __init__(self, module: UNet2DConditionModel, downscale: int = 8):
        self.module, self.downscale = module, downscale
        config = module.config
        width, size = config.cross_attention_dim, config.sample_size
        self.condition_width = width if isinstance(width, int) else width[0]
        self.sample_size = (size, size) if isinstance(size, int) else tuple(size)
        if config.addition_embed_type == "text_time":
            sizes = 6 * config.addition_time_embed_dim
            self.pooled_width = config.projection_class_embeddings_input_dim - sizes

    def __call__(self, z_t: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        (hidden, pooled), dtype, added = self.split(condition), self.module.dtype, None
        if pooled is not None:
            height, width = (side * self.downscale for side in z_t.shape[-2:])
            sizes = z_t.new_tensor([height, width, 0, 0, height, width]).expand(len(z_t), -1)
            added = {"text_embeds": pooled, "time_ids": sizes.to(dtype)}
        return self.module(z_t.to(dtype), time, encoder_hidden_states=hidden, added_cond_kwargs=added).sample


class SD3Network(Network):
    """Stable Diffusion 3's transformer.

    repeated: how many tokens the last one of a condition stands for, see joint_attention.py; None: for itself.
    """

    module: SD3Transformer2DModel

    def __init__(self, module: SD3Transformer2DModel, repeated: int | None = None):
        self.module = module
        config = module.config
        self.condition_width, self.pooled_width = config.joint_attention_dim, config.pooled_projection_dim
        self.sample_size, self.patch = (config.sample_size, config.sample_size), config.patch_size
        if repeated is not None:
            module.set_attn_processor(RepeatedLastToken(repeated))

    def check_size(self, height: int, width: int) -> None:
        super().check_size(height, width)
        most = self.module.config.pos_embed_max_size * self.patch
        if max(height, width) > most:
            raise OptionError.because(
                f"got latents of {height}x{width}; the denoiser takes at most {most}x{most}: change the pictures' size "
                "(data.height and data.width), or set resize_input=true"
            )

    def __call__(self, z_t: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        self.check_size(*z_t.shape[-2:])
        hidden, pooled = self.split(condition)
        return self.module(z_t.to(self.module.dtype), hidden, pooled, time).sample


class FluxNetwork(Network):
    """Flux's transformer, on patches of 2x2 latents.

    embedded_guidance_scale: what a model that guidance was distilled into (Flux dev) is told of it.
    """

    module: FluxTransformer2DModel
    patch = FLUX_PATCH

    def __init__(self, module: FluxTransformer2DModel, embedded_guidance_scale: float = 3.5):
        self.module, self.embedded_guidance_scale = module, embedded_guidance_scale
        config = module.config
        self.condition_width, self.pooled_width = config.joint_attention_dim, config.pooled_projection_dim
        side = config.get("sample_size", FLUX_SIDE)
        self.sample_size = (side, side)

    def __call__(self, z_t: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        self.check_size(*z_t.shape[-2:])
        (hidden, pooled), dtype, device = self.split(condition), self.module.dtype, z_t.device
        height, width = (side // 2 for side in z_t.shape[-2:])
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
        places = torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=-1).to(dtype)
        guidance = None
        if self.module.config.guidance_embeds:
            guidance = torch.full((len(z_t),), self.embedded_guidance_scale, device=device)
        patches = z_t.to(dtype).unflatten(-1, (width, 2)).unflatten(-3, (height, 2))  # B C height 2 width 2
        output = self.module(
            hidden_states=patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
            timestep=time.to(dtype) / FLOW_TIMES,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=hidden,
            txt_ids=places.new_zeros(hidden.shape[1], 3),
            img_ids=places,
        ).sample
        patches = output.unflatten(1, (height, width)).unflatten(-1, (-1, 2, 2))  # B height width C 2 2
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(-2).flatten(2, 3)
