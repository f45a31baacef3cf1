"""Ways to spend less memory or time on a step, each off by default; benchmarks/guidance_step.py measures their effect.

The names are threestudio's if it has the option.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from latent_prior import OptionError
from latent_prior.models.autoencoder import Autoencoder
from latent_prior.models.denoiser import Denoiser


@dataclass
class Efficiency:
    """How a checkpoint's networks are run. Except for token merging, no option changes what they compute."""

    # Keep convolution weights and activations in the order N H W C.
    enable_channels_last_format: bool = False
    # Compute attention in slices: less memory where torch's fused attention cannot be used, slower.
    enable_attention_slicing: bool = False
    # Recompute the autoencoder's activations in the backward pass instead of keeping them: less memory, slower.
    enable_gradient_checkpointing: bool = False
    # Merge similar tokens in the denoiser's attention (Bolya and Hoffman 2023, "Token Merging for Fast Stable
    # Diffusion"): faster at large sizes, approximate. Needs tomesd.
    token_merging: bool = False
    # Keyword arguments of tomesd.apply_patch, such as ratio: 0.5.
    token_merging_params: dict[str, Any] = field(default_factory=dict)
    # Compile the denoiser with torch.compile: the first step takes minutes, later ones are faster.
    enable_compile: bool = False


def make_efficient(denoiser: Denoiser, autoencoder: Autoencoder, options: Efficiency) -> None:
    """Apply the options to loaded networks. Raises OptionError if token merging needs tomesd and it is missing."""
    if options.enable_channels_last_format:
        denoiser.module.to(memory_format=torch.channels_last)
        autoencoder.vae.to(memory_format=torch.channels_last)
    if options.enable_attention_slicing:
        if not isinstance(denoiser.module, UNet2DConditionModel):
            raise OptionError("enable_attention_slicing", True, "false: this denoiser has no attention in slices")
        denoiser.module.set_attention_slice("auto")
    if options.enable_gradient_checkpointing:
        autoencoder.vae.enable_gradient_checkpointing()
    if options.token_merging:
        if not isinstance(denoiser.module, UNet2DConditionModel):
            raise OptionError("token_merging", True, "false: tomesd merges tokens of a UNet, and this is a transformer")
        try:
            import tomesd
        except ModuleNotFoundError as error:
            raise OptionError.because("needs tomesd: pip install tomesd", "token_merging") from error
        tomesd.apply_patch(denoiser.module, **options.token_merging_params)
    if options.enable_compile:
        denoiser.module.compile()
