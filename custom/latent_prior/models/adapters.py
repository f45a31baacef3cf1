"""Textual Inversion embeddings and LoRA weights on top of a checkpoint, read by diffusers' own loaders.

A Textual Inversion file (Gal et al. 2022) adds a word to the tokenizer and its vectors to the text encoder. A LoRA file
(Hu et al. 2022) changes weights of the denoiser and of the text encoders; it is merged into them once, so that a step
costs what it costs without.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import (
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
    TextualInversionLoaderMixin,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from latent_prior import OptionError

TEXTUAL_INVERSION_KEY = "system.guidance.textual_inversion"
LORA_KEY = "system.guidance.lora"


class _TextPart(DiffusionPipeline, TextualInversionLoaderMixin):
    """The least that diffusers' Textual Inversion loader works on."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel):
        super().__init__()
        self.register_modules(tokenizer=tokenizer, text_encoder=text_encoder)


def add_words(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, files: tuple[str, ...]) -> None:
    """Add the words of Textual Inversion files to a tokenizer and its text encoder."""
    for file in files:
        with _named_errors(TEXTUAL_INVERSION_KEY, file):
            _TextPart(tokenizer, text_encoder).load_textual_inversion(file)
    text_encoder.requires_grad_(False)


def with_all_vectors(prompt: str, tokenizer: CLIPTokenizer) -> str:
    """A prompt in which every added word of several vectors is followed by its further tokens."""
    return TextualInversionLoaderMixin().maybe_convert_prompt(prompt, tokenizer)


def merge_loras(module: nn.Module, part: str, files: tuple[str, ...], xl: bool) -> None:
    """Merge LoRA files into the `unet`, `text_encoder` or `text_encoder_2` of a checkpoint, as far as they concern it."""
    loader = StableDiffusionXLLoraLoaderMixin if xl else StableDiffusionLoraLoaderMixin
    for entry in files:
        file, scale = lora_scale(entry)
        with _named_errors(LORA_KEY, entry):
            if isinstance(module, UNet2DConditionModel):
                state, alphas = loader.lora_state_dict(file, unet_config=module.config)[:2]
                loader.load_lora_into_unet(state, network_alphas=alphas, unet=module)
                module.fuse_lora(lora_scale=scale)
                module.unload_lora()
            else:
                state, alphas = loader.lora_state_dict(file)[:2]
                state = {name: value for name, value in state.items() if name.startswith(f"{part}.")}
                if state:
                    loader.load_lora_into_text_encoder(
                        state, network_alphas=alphas, text_encoder=module, prefix=part, lora_scale=scale
                    )
                    _merge(module)
    module.requires_grad_(False)


def lora_scale(entry: str) -> tuple[str, float]:
    """(file, scale) of an entry `file` or `file:scale`; a drive letter or a hub id has no number after its colon."""
    file, colon, scale = entry.rpartition(":")
    try:
        return (file, float(scale)) if colon else (entry, 1.0)
    except ValueError:
        return entry, 1.0


def _merge(text_encoder: nn.Module) -> None:
    """Merge what peft has put into a transformers model, and leave nothing of peft behind."""
    from diffusers.utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in text_encoder.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    recurse_remove_peft_layers(text_encoder)
    text_encoder._hf_peft_config_loaded = False
    if hasattr(text_encoder, "peft_config"):
        del text_encoder.peft_config


@contextmanager
def _named_errors(key: str, entry: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        if "PEFT backend" in reason:
            reason = "it needs peft: pip install peft"
        raise OptionError.because(f"{key}: cannot load {entry!r}: {reason}") from error
