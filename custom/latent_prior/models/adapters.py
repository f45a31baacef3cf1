"""Adds Textual Inversion embeddings and LoRA weights to a checkpoint with diffusers' own loaders.

A Textual Inversion (Gal et al. 2022) adds a word to the tokenizer and its vectors to the text encoder. A LoRA (Hu et
al. 2022) changes weights of the denoiser and of the text encoders; it is merged into them once, so it adds no cost to a
step. An adapter that does not fit the checkpoint, even in part, is rejected.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import (
    FluxLoraLoaderMixin,
    SD3LoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
    TextualInversionLoaderMixin,
)
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.pickles import first_few
from latent_prior.models.adapter_files import AdapterFile
from latent_prior.models.families import FLUX, SD, SD3, XL, Family
from latent_prior.models.hub import one_line

LORA_LOADERS: dict[Family, Any] = {
    SD: StableDiffusionLoraLoaderMixin,
    XL: StableDiffusionXLLoraLoaderMixin,
    SD3: SD3LoraLoaderMixin,
    FLUX: FluxLoraLoaderMixin,
}
# The keys of a Stable Diffusion XL embedding, by text encoder.
XL_KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


class _TextPart(DiffusionPipeline, TextualInversionLoaderMixin):
    """The smallest pipeline that diffusers' Textual Inversion loader works on."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel | CLIPTextModelWithProjection):
        super().__init__()
        self.register_modules(tokenizer=tokenizer, text_encoder=text_encoder)


def add_words(
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel | CLIPTextModelWithProjection,
    part: str,
    adapters: Sequence[AdapterFile],
    family: Family,
) -> None:
    """Add the words of Textual Inversions that apply to a part to its tokenizer and text encoder."""
    width = text_encoder.get_input_embeddings().embedding_dim
    for adapter in adapters:
        with _named_errors(adapter):
            if family not in (SD, XL):
                raise OptionError.because(f"a checkpoint of {family.name} takes no added words: omit it")
            word, vectors = _word(adapter, part, family is XL)
            if vectors is None:
                continue
            if vectors.ndim > 2 or vectors.shape[-1] != width:
                raise OptionError.because(
                    f"its vectors have shape {tuple(vectors.shape)[:5]}, but the {part} is {width} wide: it was made for "
                    "another model"
                )
            _TextPart(tokenizer, text_encoder).load_textual_inversion(vectors, token=word)
    text_encoder.requires_grad_(False)


def with_all_vectors(prompt: str, tokenizer: CLIPTokenizer) -> str:
    """The prompt, with every added multi-vector word followed by its other tokens."""
    return TextualInversionLoaderMixin().maybe_convert_prompt(prompt, tokenizer)


def merge_loras(module: Any, part: str, adapters: Sequence[AdapterFile], family: Family) -> None:
    """Merge LoRAs into the denoiser or a text encoder of a checkpoint, where they apply to it."""
    loader = LORA_LOADERS[family]
    denoises, unet = part == family.denoiser, isinstance(module, UNet2DConditionModel)
    parts = (f"{family.denoiser}.", *(f"{tower}." for tower in family.towers if tower != family.t5))
    # of a UNet's LoRA the loader needs the UNet's config, and some give the alphas only where they are asked for
    needs: dict[str, Any] = {"unet_config": module.config} if unet else {}
    needs |= {"return_alphas": True} if family is FLUX else {}
    for adapter in adapters:
        with _named_errors(adapter):
            tensors = adapter.tensors()
            if any("dora_scale" in name for name in tensors):
                raise OptionError.because("it is a DoRA (it has dora_scale); expected a LoRA")
            found = loader.lora_state_dict(tensors, **needs)
            state, alphas = found[:2] if isinstance(found, tuple) else (found, None)
            _require_fit([name for name in state if not name.startswith(parts)], state)
            state = {name: value for name, value in state.items() if name.startswith(f"{part}.")}
            if not state:
                continue
            _require_fit(_misfits(state, module, part), state)
            if denoises:
                if unet:
                    loader.load_lora_into_unet(state, network_alphas=alphas, unet=module)
                else:
                    module.load_lora_adapter(state, network_alphas=alphas, prefix=part)
                module.fuse_lora(lora_scale=adapter.scale)
                module.unload_lora()
            else:
                loader.load_lora_into_text_encoder(
                    state, network_alphas=alphas, text_encoder=module, prefix=part, lora_scale=adapter.scale
                )
                _merge(module)
    module.requires_grad_(False)


def _word(adapter: AdapterFile, part: str, xl: bool) -> tuple[str, Tensor | None]:
    """The word of a Textual Inversion and its vectors for a text encoder; None if it has none for it."""
    tensors = adapter.tensors()
    name = next(iter(tensors), "")
    if set(tensors) == set(XL_KEYS.values()):
        if not xl:
            raise OptionError.because(
                "it was made for Stable Diffusion XL (clip_l and clip_g), and the checkpoint is not"
            )
        return adapter.word or adapter.path.stem, tensors[XL_KEYS[part]]
    if len(tensors) != 1 or not isinstance(tensors[name], Tensor):
        raise OptionError.because(
            f"it holds {first_few(sorted(tensors))}; expected one tensor, named by its word "
            "or emb_params, or clip_l and clip_g"
        )
    # web UIs write emb_params and use the file's name as the word
    word = adapter.word or (adapter.path.stem if name == "emb_params" else name)
    return word, tensors[name] if part == "text_encoder" else None


def _misfits(state: dict[str, Tensor], module: nn.Module, part: str) -> list[str]:
    """The weights of a LoRA that have no layer of matching size in the module."""
    state = {name.removeprefix(f"{part}."): value for name, value in state.items()}
    if part.startswith("text_encoder"):
        state = convert_state_dict_to_peft(convert_state_dict_to_diffusers(state))
        if not hasattr(module, "text_model"):
            state = {name.removeprefix("text_model."): value for name, value in state.items()}
    elif not any("lora_A" in name for name in state):
        state = convert_unet_state_dict_to_peft(state)
    layers = dict(module.named_modules())

    def fits(name: str, value: Tensor) -> bool:
        weight = getattr(layers.get(re.split(r"\.(?:lora_|lokr_|alpha$)", name)[0]), "weight", None)
        if weight is None:
            return False
        side = 1 if ".lora_A." in name else 0 if ".lora_B." in name else None
        return side is None or value.shape[side] == weight.shape[side]

    return [f"{part}.{name}" for name, value in state.items() if not fits(name, value)]


def _require_fit(misfits: list[str], state: dict[str, Tensor]) -> None:
    if not state:
        raise OptionError.because("it holds no weights")
    if misfits:
        raise OptionError.because(
            f"{len(misfits)} of its {len(state)} weights do not fit the checkpoint, for example {shown(misfits[0], 100)}: "
            "it was made for another model"
        )


def _merge(text_encoder: Any) -> None:
    """Merge what peft has put into a transformers model, and remove every trace of peft."""
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
def _named_errors(adapter: AdapterFile) -> Iterator[None]:
    """Report in one line which adapter cannot be used; the libraries raise many types of errors for a bad file."""
    try:
        yield
    except OptionError as error:
        if error.field:
            raise
        raise OptionError.because(f"cannot load {adapter.entry!r}: {error}", adapter.field) from error
    except Exception as error:
        reason = one_line(error)
        if "PEFT backend" in reason:
            reason = "it needs peft: pip install peft"
        raise OptionError.because(f"cannot load {adapter.entry!r}: {reason}", adapter.field) from error
