"""Loads the modules of a resolved checkpoint: frozen, in evaluation mode, and checked to fit one another.

Each function loads one part only: no pipeline, no safety checker. Weights come from safetensors files and
must be complete; a tensor missing from the file is an error, not a random initialisation.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.models.adapters import add_words, merge_loras
from latent_prior.models.checkpoint import Checkpoint, check_channels
from latent_prior.models.configs import check_layers, check_tokenizer, numbers
from latent_prior.models.hub import one_line
from latent_prior.models.weights import KEY, WEIGHT_NAMES, under_key, weight_variant

MAX_SIDE = 1024  # of latents, which are pictures of 8192 pixels


def check_fit(checkpoint: Checkpoint) -> None:
    """Raise OptionError unless UNet, autoencoder and text encoder fit one another; reads only configs."""
    with under_key():
        _check_fit(checkpoint)


def _check_fit(checkpoint: Checkpoint) -> None:
    unet, vae = checkpoint.config("unet"), checkpoint.config("vae")
    taken, given = (numbers(unet, key, 4)[0] for key in ("in_channels", "out_channels"))
    check_channels(checkpoint.source, taken, given)
    if unet.get("addition_embed_type") not in (None, "text_time"):
        raise _refusal(
            f"{checkpoint.source!r} needs added conditions of type {shown(str(unet['addition_embed_type']))!r}; expected a "
            "model of the Stable Diffusion 1, 2 or XL family"
        )
    towers = {name: checkpoint.config(name) for name in text_towers(checkpoint)}
    if unet.get("sample_size") is None:
        raise _refusal(f"the UNet of {checkpoint.source!r} has no sample_size in its config.json")
    if max(numbers(unet, "sample_size")) > MAX_SIDE or len(numbers(unet, "sample_size")) > 2:
        raise _refusal(f"the UNet of {checkpoint.source!r} has a sample_size beyond {MAX_SIDE}")
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        raise _refusal(f"the UNet of {checkpoint.source!r} needs class labels; expected one with text conditions only")
    if vae.get("latents_mean") is not None or vae.get("latents_std") is not None:
        raise _refusal(
            f"the autoencoder of {checkpoint.source!r} normalises its latents by latents_mean and latents_std; "
            "expected only a scaling_factor"
        )
    if not isinstance(vae.get("block_out_channels", []), list):
        raise _refusal(f"the autoencoder of {checkpoint.source!r} has a block_out_channels that is not a list")
    if not _is_scale(vae.get("scaling_factor", 1.0)) or not _is_scale(vae.get("shift_factor") or 1.0):
        raise _refusal(f"the autoencoder of {checkpoint.source!r} has a scaling_factor or shift_factor of no use")
    channels = {"UNet in": taken, "UNet out": given, "autoencoder": numbers(vae, "latent_channels", 4)[0]}
    if len(set(channels.values())) != 1:
        raise _refusal(f"the UNet of {checkpoint.source!r} does not fit its autoencoder: channels {channels}")
    widths = set(numbers(unet, "cross_attention_dim", 1280))
    width = sum(numbers(config, "hidden_size", 512)[0] for config in towers.values())
    if widths != {width}:
        raise _refusal(
            f"the text {'encoders' if len(towers) > 1 else 'encoder'} of {checkpoint.source!r} "
            f"{'are together' if len(towers) > 1 else 'is'} {width} wide, but its UNet expects cross_attention_dim "
            f"{'/'.join(map(str, sorted(widths)[:5]))}"
        )
    if checkpoint.is_xl:
        pooled = numbers(towers["text_encoder_2"], "projection_dim", 512)[0]
        added = pooled + 6 * numbers(unet, "addition_time_embed_dim", 256)[0]
        if unet.get("projection_class_embeddings_input_dim") != added:
            raise _refusal(
                f"the second text encoder of {checkpoint.source!r} pools to {pooled}, which makes {added} added "
                f"conditions; its UNet expects {shown(str(unet.get('projection_class_embeddings_input_dim')))}"
            )


def _is_scale(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value != 0


def text_towers(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The folders of the text encoders; their tokenizers' have `tokenizer` instead of `text_encoder` in the name."""
    return ("text_encoder", "text_encoder_2") if checkpoint.is_xl else ("text_encoder",)


def load_unet(checkpoint: Checkpoint, dtype: torch.dtype) -> UNet2DConditionModel:
    """The denoising network with the checkpoint's LoRAs merged, frozen, on the CPU."""
    unet = _load_diffusers(UNet2DConditionModel, checkpoint, "unet", dtype, "model.diffusion_model.")
    merge_loras(unet, "unet", checkpoint.adapters.lora, checkpoint.is_xl)
    return unet


def load_vae(checkpoint: Checkpoint, dtype: torch.dtype) -> AutoencoderKL:
    """The autoencoder, frozen, on the CPU."""
    return _load_diffusers(AutoencoderKL, checkpoint, "vae", dtype, "first_stage_model.")


def load_scheduler(checkpoint: Checkpoint) -> DDIMScheduler:
    """The noise schedule as a DDIM scheduler, whatever sampler the checkpoint names.

    Raises OptionError if it is not a schedule of betas, for example with flow matching.
    """
    config = checkpoint.config("scheduler")
    name = shown(str(config.get("_class_name", "a scheduler")))
    expected = "expected a model of the Stable Diffusion 1, 2 or XL family, which predicts the noise or v"
    if "Flow" in name or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise _refusal(f"{checkpoint.source!r} is a flow-matching model (its scheduler is {name}); {expected}")
    betas = {"beta_schedule", "beta_start", "beta_end"}
    if config.get("trained_betas") is None and not betas <= config.keys():
        lost = ", ".join(sorted(betas - config.keys()))
        raise _refusal(f"the scheduler of {checkpoint.source!r}, {name}, has no {lost}; {expected}")
    with _named_errors(checkpoint, "scheduler"):
        return DDIMScheduler.from_config(config | checkpoint.schedule_changes)


def load_text_encoder(
    checkpoint: Checkpoint, dtype: torch.dtype, part: str = "text_encoder"
) -> tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]:
    """Tokenizer and text tower (one of `text_towers`) with the checkpoint's adapters, frozen, on the CPU."""
    words = part.replace("text_encoder", "tokenizer")
    vocabulary, folder = checkpoint.part(words), str(checkpoint.part(part))
    cls = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
    # transformers makes an empty tokenizer from an empty folder
    if not any((vocabulary / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise _refusal(f"{checkpoint.source!r} has neither vocab.json nor tokenizer.json in {vocabulary}")
    with _named_errors(checkpoint, words):
        check_tokenizer(vocabulary)
        tokenizer = CLIPTokenizer.from_pretrained(str(vocabulary))
    missing = set()
    with _named_errors(checkpoint, part):
        if checkpoint.kind == "single_file":
            from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

            tensors = checkpoint.single_file_tensors(*single_file_prefixes(part))
            check_layers(checkpoint.config(part), len(tensors))
            model = create_diffusers_clip_model_from_ldm(cls, tensors, config=folder, torch_dtype=dtype)
        else:
            variant = weight_variant(Path(folder), WEIGHT_NAMES[part])
            model, info = cls.from_pretrained(folder, use_safetensors=True, variant=variant, output_loading_info=True)
            missing = info["missing_keys"]
    if len(tokenizer) > model.config.vocab_size:
        raise _refusal(
            f"the tokenizer of {checkpoint.source!r} knows {len(tokenizer)} tokens, but its text encoder only "
            f"{model.config.vocab_size}"
        )
    # converted here, since the name of transformers' argument for it depends on the version
    model = _finish(model, checkpoint, part, missing).to(dtype)
    merge_loras(model, part, checkpoint.adapters.lora, checkpoint.is_xl)
    add_words(tokenizer, model, part, checkpoint.adapters.textual_inversion, checkpoint.is_xl)
    return tokenizer, model


def single_file_prefixes(part: str) -> tuple[str, ...]:
    """Prefixes of a text tower's tensor names in a single file: Stable Diffusion 1 and 2, or XL."""
    if part == "text_encoder_2":
        return ("conditioner.embedders.1.",)
    return ("cond_stage_model.", "conditioner.embedders.0.")


def _load_diffusers(cls, checkpoint: Checkpoint, part: str, dtype: torch.dtype, prefix: str):
    folder = str(checkpoint.part(part))
    missing = set()
    with _named_errors(checkpoint, part):
        if checkpoint.kind == "single_file":
            tensors = checkpoint.single_file_tensors(prefix)
            check_layers(checkpoint.config(part), len(tensors))
            if not tensors:
                raise OptionError.because(f"the file holds no {prefix}*")
            model = cls.from_single_file(tensors, config=folder, torch_dtype=dtype)
        else:
            model, info = cls.from_pretrained(
                folder,
                use_safetensors=True,
                variant=weight_variant(Path(folder), WEIGHT_NAMES[part]),
                torch_dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
            )
            missing = info["missing_keys"]
    return _finish(model, checkpoint, part, missing)


@contextmanager
def _named_errors(checkpoint: Checkpoint, part: str) -> Iterator[None]:
    """Report in one line which part of a checkpoint cannot be read; the libraries raise many types of errors."""
    try:
        yield
    except Exception as error:
        reason = one_line(error)
        if "meta tensor" in reason:  # diffusers' message for an incomplete single file
            reason = "some of its tensors are missing from the file"
        raise _refusal(f"cannot read {part!r} from {checkpoint.source!r}: {reason}") from error


def _finish(model: nn.Module, checkpoint: Checkpoint, part: str, missing: Iterable[str]) -> nn.Module:
    missing = sorted({*missing, *(name for name, parameter in model.named_parameters() if parameter.is_meta)})
    if missing:
        raise _refusal(
            f"{part!r} of {checkpoint.source!r} lacks {len(missing)} of its tensors, for example {missing[0]!r}"
        )
    return model.eval().requires_grad_(False)


def _refusal(problem: str) -> OptionError:
    return OptionError.because(problem, KEY)
