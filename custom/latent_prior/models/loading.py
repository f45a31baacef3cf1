"""Loads the modules of a resolved checkpoint, frozen and in evaluation mode.

Each function loads one part only: no pipeline, no safety checker. Weights come from safetensors files and
must be complete; a tensor missing from the file is an error, not a random initialisation.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.models.adapters import add_words, merge_loras
from latent_prior.models.checkpoint import Checkpoint
from latent_prior.models.configs import check_layers, check_tokenizer
from latent_prior.models.families import EXPECTED, FLUX, FLUX_PATCH, FLUX_SIDE, SD3
from latent_prior.models.hub import one_line
from latent_prior.models.weights import WEIGHT_NAMES, refusal, weight_variant
from latent_prior.prior import FLOW_TYPE, DiffusionSchedule, FlowSchedule, NoiseSchedule

# the lengths, in tokens, between which diffusers' pipelines move the shift of a schedule that depends on the size
SHIFTS = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}


def load_denoiser(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """The denoising network with the checkpoint's LoRAs merged, frozen, on the CPU."""
    family = checkpoint.family
    cls = {FLUX: FluxTransformer2DModel, SD3: SD3Transformer2DModel}.get(family, UNet2DConditionModel)
    module = _load_diffusers(cls, checkpoint, family.denoiser, dtype)
    merge_loras(module, family.denoiser, checkpoint.adapters.lora, family)
    return module


def load_vae(checkpoint: Checkpoint, dtype: torch.dtype) -> AutoencoderKL:
    """The autoencoder, frozen, on the CPU."""
    return _load_diffusers(AutoencoderKL, checkpoint, "vae", dtype)


def load_schedule(checkpoint: Checkpoint) -> tuple[NoiseSchedule, str]:
    """The noise schedule, and what the network predicts.

    Raises OptionError if they are not of the checkpoint's family, and for a prediction_type given for a flow.
    """
    if checkpoint.family not in (FLUX, SD3):
        scheduler = load_scheduler(checkpoint)
        return DiffusionSchedule(scheduler.alphas_cumprod), scheduler.config.prediction_type
    if checkpoint.prediction_type is not None:
        raise OptionError("prediction_type", checkpoint.prediction_type, "null for a flow, which predicts a velocity")
    config = checkpoint.config("scheduler")
    name = shown(str(config.get("_class_name", "a scheduler")))
    if "Flow" not in name and not config.get("use_flow_sigmas"):
        raise refusal(f"{checkpoint.source!r} is a flow-matching model, but its scheduler is {name}")
    with _named_errors(checkpoint, "scheduler"):
        steps, shift = int(config.get("num_train_timesteps", 1000)), float(config.get("shift") or 1.0)
        if config.get("use_dynamic_shifting"):
            # a straight line through two lengths, and the logarithm of the shift unless it is linear
            low, high, least, most = (float(config.get(key, value)) for key, value in SHIFTS.items())
            mu = least + (most - least) * (_tokens(checkpoint) - low) / (high - low)
            linear = config.get("time_shift_type", "exponential") == "linear"
            shift = mu if linear else float(torch.tensor(mu, dtype=torch.float64).exp())
        return FlowSchedule(shift, steps), FLOW_TYPE


def _tokens(checkpoint: Checkpoint) -> int:
    """Of a picture of the size that a transformer was trained on."""
    config = checkpoint.config("transformer")
    if checkpoint.family is FLUX:
        return int(config.get("sample_size", FLUX_SIDE) // FLUX_PATCH) ** 2
    return int(config["sample_size"] // config["patch_size"]) ** 2


def load_scheduler(checkpoint: Checkpoint) -> DDIMScheduler:
    """The noise schedule as a DDIM scheduler, whatever sampler the checkpoint names.

    Raises OptionError if it is not a schedule of betas, for example with flow matching.
    """
    config = checkpoint.config("scheduler")
    name = shown(str(config.get("_class_name", "a scheduler")))
    if "Flow" in name or config.get("use_flow_sigmas") or config.get("prediction_type") == FLOW_TYPE:
        raise refusal(f"{checkpoint.source!r} has a UNet that matches flows (its scheduler is {name}); {EXPECTED}")
    betas = {"beta_schedule", "beta_start", "beta_end"}
    if config.get("trained_betas") is None and not betas <= config.keys():
        lost = ", ".join(sorted(betas - config.keys()))
        raise refusal(f"the scheduler of {checkpoint.source!r}, {name}, has no {lost}; {EXPECTED}")
    with _named_errors(checkpoint, "scheduler"):
        return DDIMScheduler.from_config(config | checkpoint.schedule_changes)


def load_text_encoder(checkpoint: Checkpoint, dtype: torch.dtype, part: str = "text_encoder") -> tuple[Any, Any]:
    """Tokenizer and text tower (one of the checkpoint's `towers`) with its adapters, frozen, on the CPU."""
    words, family = part.replace("text_encoder", "tokenizer"), checkpoint.family
    vocabulary, folder = checkpoint.part(words), str(checkpoint.part(part))
    is_t5 = part == family.t5
    projects = not is_t5 and (part == "text_encoder_2" or family is SD3)
    cls = T5EncoderModel if is_t5 else CLIPTextModelWithProjection if projects else CLIPTextModel
    # transformers makes an empty tokenizer from an empty folder
    files = ("tokenizer.json", "spiece.model") if is_t5 else ("vocab.json", "tokenizer.json")
    if not any((vocabulary / name).is_file() for name in files):
        raise refusal(f"{checkpoint.source!r} has neither {files[0]} nor {files[1]} in {vocabulary}")
    with _named_errors(checkpoint, words):
        check_tokenizer(vocabulary)
        tokenizer = (AutoTokenizer if is_t5 else CLIPTokenizer).from_pretrained(str(vocabulary))
    missing = set()
    with _named_errors(checkpoint, part):
        if prefixes := checkpoint.in_file(part):
            tensors = checkpoint.single_file_tensors(*prefixes)
            check_layers(checkpoint.config(part), len(tensors))
            model = _single_file_tower(cls, tensors, folder, dtype)
        else:
            variant = weight_variant(Path(folder), WEIGHT_NAMES[part])
            model, info = cls.from_pretrained(folder, use_safetensors=True, variant=variant, output_loading_info=True)
            missing = info["missing_keys"]
    if len(tokenizer) > model.config.vocab_size:
        raise refusal(
            f"the tokenizer of {checkpoint.source!r} knows {len(tokenizer)} tokens, but its text encoder only "
            f"{model.config.vocab_size}"
        )
    # converted here, since the name of transformers' argument for it depends on the version
    model = _finish(model, checkpoint, part, missing).to(dtype)
    if not is_t5:
        merge_loras(model, part, checkpoint.adapters.lora, family)
        add_words(tokenizer, model, part, checkpoint.adapters.textual_inversion, family)
    return tokenizer, model


def _single_file_tower(cls: Any, tensors: dict[str, torch.Tensor], folder: str, dtype: torch.dtype) -> Any:
    from diffusers.loaders import single_file_utils as convert

    if cls is not T5EncoderModel:
        return convert.create_diffusers_clip_model_from_ldm(cls, tensors, config=folder, torch_dtype=dtype)
    model = convert.create_diffusers_t5_model_from_checkpoint(cls, tensors, config=folder, torch_dtype=dtype)
    model.tie_weights()  # the embeddings have two names
    return model


def _load_diffusers(cls: Any, checkpoint: Checkpoint, part: str, dtype: torch.dtype) -> Any:
    folder = str(checkpoint.part(part))
    missing = set()
    with _named_errors(checkpoint, part):
        if prefixes := checkpoint.in_file(part):
            tensors = checkpoint.single_file_tensors(*prefixes)
            check_layers(checkpoint.config(part), len(tensors))
            if not tensors:
                raise OptionError.because(f"the file holds no {prefixes[0]}*")
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
        raise refusal(f"cannot read {part!r} from {checkpoint.source!r}: {reason}") from error


def _finish(model: nn.Module, checkpoint: Checkpoint, part: str, missing: Iterable[str]) -> nn.Module:
    missing = sorted({*missing, *(name for name, parameter in model.named_parameters() if parameter.is_meta)})
    if missing:
        raise refusal(
            f"{part!r} of {checkpoint.source!r} lacks {len(missing)} of its tensors, for example {missing[0]!r}"
        )
    return model.eval().requires_grad_(False)
