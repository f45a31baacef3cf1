"""Blended latent diffusion: editing inside a mask (Avrahami et al. 2023, arXiv 2206.02779).

The whole latent is denoised; after every step, the part outside the mask is replaced by the source's latent, noised to
that step. diffusers' inpainting pipeline does this for a UNet with four channels, so we use its loop; we add the mask
that shrinks during sampling (sec. 4.3, "progressive mask shrinking") and a seed per sample.

Masks are 0 or 1, with 1 where the edit goes. A latent pixel belongs to the mask if any pixel of its block does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.autoencoder import Autoencoder
from latent_prior.models.checkpoint import resolve
from latent_prior.models.fit import check_fit, require_classic
from latent_prior.models.loading import load_denoiser, load_scheduler
from latent_prior.models.text_encoder import TextEncoder

DILATIONS = (3, 2, 1, 0)  # of the mask in the four quarters of the steps, in latent pixels at REFERENCE_SIDE
REFERENCE_SIDE = 64


@dataclass(frozen=True)
class SamplerOptions:
    """steps: of the whole schedule, of which the fraction `strength` is run; guidance_scale in the standard form."""

    steps: int = 50
    strength: float = 0.76
    guidance_scale: float = 7.5
    shrink: bool = True  # thin masks start dilated


def latent_mask(mask: Float[Tensor, "1 1 H W"], downscale: int) -> Float[Tensor, "1 1 h w"]:
    """The mask over latent pixels."""
    return (F.max_pool2d(mask, downscale) > 0).float()


def is_thin(mask: Float[Tensor, "1 1 h w"]) -> bool:
    """Whether opening with a 3 x 3 square removes half of the mask: little of it is three pixels wide."""
    padded = F.pad(1 - mask, (1, 1, 1, 1), value=1.0)
    eroded = 1 - F.max_pool2d(padded, 3, stride=1)
    opened = dilated(eroded, 1)
    return bool(opened.sum() < 0.5 * mask.sum())


def dilated(mask: Float[Tensor, "1 1 h w"], radius: int) -> Float[Tensor, "1 1 h w"]:
    """The mask dilated by a square of side 2 radius + 1."""
    return F.max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius) if radius else mask


def shrinking(mask: Float[Tensor, "1 1 h w"]) -> list[Float[Tensor, "1 1 h w"]]:
    """The masks for the four quarters of the steps; the last one is `mask` itself.

    For 64 x 64 latents they are dilated by squares of 7, 5 and 3, as published; other sizes are scaled in proportion.
    At the pocket prior's 16 x 16 no dilation is left, and it would not help there: see benchmarks/thin_mask.py.
    """
    side = min(mask.shape[-2:])
    return [dilated(mask, radius * side // REFERENCE_SIDE) for radius in DILATIONS]


class BlendedDiffusion:
    """A checkpoint's pipeline, and editing with it."""

    def __init__(
        self, pipeline: StableDiffusionInpaintPipeline, autoencoder: Autoencoder, text_encoder: TextEncoder, source: str
    ):
        self.pipeline = pipeline
        self.autoencoder = autoencoder
        self.text_encoder = text_encoder
        self.source = source

    @classmethod
    def from_pretrained(cls, name: str = "pocket", device: torch.device | str = "cpu") -> "BlendedDiffusion":
        """Load `pocket`, a diffusers folder, a .safetensors file or a hub id, of the Stable Diffusion 1 or 2 family.

        Raises OptionError for anything that cannot be read, and for XL and inpainting checkpoints.
        """
        device = torch.device(device)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        checkpoint = resolve(name)
        require_classic(checkpoint, "blended diffusion")
        check_fit(checkpoint)  # also rejects the nine channels of an inpainting checkpoint
        autoencoder = Autoencoder.from_checkpoint(checkpoint, device, dtype)
        # steps_offset and clip_sample: the pipeline requires these of every scheduler
        scheduler = DDIMScheduler.from_config(load_scheduler(checkpoint).config, steps_offset=1, clip_sample=False)
        pipeline = StableDiffusionInpaintPipeline(
            vae=autoencoder.vae,
            text_encoder=None,
            tokenizer=None,
            unet=load_denoiser(checkpoint, dtype).to(device),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, autoencoder, TextEncoder(checkpoint, device, dtype), name)

    @property
    def short_side(self) -> int:
        """Size of the pictures that the checkpoint was trained on."""
        size = self.pipeline.unet.config.sample_size
        return (size if isinstance(size, int) else min(size)) * self.autoencoder.downscale

    @torch.no_grad()
    def edit(
        self,
        picture: Float[Tensor, "1 3 H W"],
        mask: Float[Tensor, "1 1 H W"],
        prompt: str,
        negative_prompt: str = "",
        *,
        seed: int = 0,
        options: SamplerOptions | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> Float[Tensor, "1 C h w"]:
        """The scaled latent of one sample. picture in [0, 1]; on_step is called after every step.

        Raises OptionError for an empty prompt, steps that the schedule does not have, and a size that the autoencoder
        does not accept.
        """
        options = options or SamplerOptions()
        if not prompt.strip():
            raise OptionError("prompt", prompt, "what to make inside the mask")
        most = self.pipeline.scheduler.config.num_train_timesteps // 2  # more: no pure noise at first
        if not 1 <= options.steps <= most or steps_run(options) < 1:
            raise OptionError("steps", options.steps, f"1 to {most}, of which strength {options.strength:g} leaves one")
        self.autoencoder.check_image_size(*picture.shape[-2:])
        device = self.pipeline.unet.device
        small = latent_mask(mask.to(device), self.autoencoder.downscale)
        stages = shrinking(small) if options.shrink and is_thin(small) else [small]
        total = steps_run(options)

        def after_step(pipeline, i: int, t, tensors: dict) -> dict:
            on_step()
            following = stages[min(i + 1, total - 1) * len(stages) // total].to(tensors["mask"])
            return {"mask": following.repeat(len(tensors["mask"]), 1, 1, 1)}  # one for each row of guidance

        embeddings = self.text_encoder([prompt, negative_prompt]).to(self.pipeline.unet.dtype)
        # at the picture's size in whole blocks, so that the pipeline's own reduction restores the stage
        first = stages[0].repeat_interleave(self.autoencoder.downscale, 2)
        first = first.repeat_interleave(self.autoencoder.downscale, 3)
        out = self.pipeline(
            prompt_embeds=embeddings[:1],
            negative_prompt_embeds=embeddings[1:],
            image=picture.to(device),  # the pipeline treats input without negative values as [0, 1], pale pictures too
            mask_image=first,
            height=picture.shape[2],
            width=picture.shape[3],
            strength=options.strength,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=["mask"],
        )
        return out.images.float()


def steps_run(options: SamplerOptions) -> int:
    """The number of the schedule's steps that are run."""
    return min(int(options.steps * options.strength), options.steps)
