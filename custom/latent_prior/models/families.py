"""The families of checkpoints that are understood, and what a checkpoint of each consists of.

Only this package asks of which family a checkpoint is; all else sees one denoiser, one autoencoder and one text encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

DENOISER = "model.diffusion_model."  # how a denoiser's tensors begin in a single file
VAE = ("first_stage_model.", "vae.")


@dataclass(frozen=True, eq=False)
class Family:
    """One family.

    name: for messages. denoiser: its folder. towers: the folders of its text encoders; their tokenizers' have
    `tokenizer` instead of `text_encoder` in the name. prefixes: how the tensors of each part begin in a single file.
    t5: the text encoder that is a T5, if any, t5_tokens: how many tokens it is given, t5_optional: whether it may be
    missing. half: the half precision of the weights.
    """

    name: str
    denoiser: str
    towers: tuple[str, ...]
    prefixes: Mapping[str, tuple[str, ...]]
    t5: str = ""
    t5_tokens: int = 0
    t5_optional: bool = False
    half: torch.dtype = torch.float16


SD = Family(
    "Stable Diffusion 1 or 2",
    "unet",
    ("text_encoder",),
    {"unet": (DENOISER,), "vae": VAE, "text_encoder": ("cond_stage_model.",)},
)
XL = Family(
    "Stable Diffusion XL",
    "unet",
    ("text_encoder", "text_encoder_2"),
    {
        "unet": (DENOISER,),
        "vae": VAE,
        "text_encoder": ("conditioner.embedders.0.",),
        "text_encoder_2": ("conditioner.embedders.1.",),
    },
)
SD3 = Family(
    "Stable Diffusion 3",
    "transformer",
    ("text_encoder", "text_encoder_2", "text_encoder_3"),
    {
        "transformer": (DENOISER,),
        "vae": VAE,
        "text_encoder": ("text_encoders.clip_l.",),
        "text_encoder_2": ("text_encoders.clip_g.",),
        "text_encoder_3": ("text_encoders.t5xxl.",),
    },
    t5="text_encoder_3",
    t5_tokens=256,  # as in diffusers' pipelines
    t5_optional=True,
    half=torch.bfloat16,
)
FLUX = Family(
    "Flux",
    "transformer",
    ("text_encoder", "text_encoder_2"),
    {
        # the published files have the transformer alone, without a prefix
        "transformer": (DENOISER, "double_blocks.", "single_blocks.", "img_in.", "txt_in.", "time_in.", "vector_in.")
        + ("guidance_in.", "final_layer."),
        "vae": VAE,
        "text_encoder": ("text_encoders.clip_l.",),
        "text_encoder_2": ("text_encoders.t5xxl.",),
    },
    t5="text_encoder_2",
    t5_tokens=512,
    half=torch.bfloat16,
)

TRANSFORMERS = {"SD3Transformer2DModel": SD3, "FluxTransformer2DModel": FLUX}  # by the class in a denoiser's config
FLUX_PATCH = 2  # latents along each side of one of its tokens
FLUX_SIDE = 128  # of the latents it was trained on; neither stands in its config
LAYOUTS = ("input_blocks.", "joint_blocks.", "double_blocks.")  # blocks of UNets, of SD3's and of Flux's transformers
EXPECTED = "expected a model of the Stable Diffusion 1, 2, XL or 3 families, or Flux"
