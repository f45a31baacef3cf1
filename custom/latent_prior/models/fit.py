"""Whether the parts of a checkpoint fit one another, from their configs alone, before any weights are read."""

import math
from typing import Any

from latent_prior.files import shown
from latent_prior.models.checkpoint import Checkpoint, check_channels
from latent_prior.models.configs import numbers
from latent_prior.models.families import EXPECTED, FLUX, FLUX_PATCH, SD, SD3, XL
from latent_prior.models.weights import refusal, under_key

MAX_SIDE = 1024  # of latents, which are pictures of 8192 pixels


def check_fit(checkpoint: Checkpoint) -> None:
    """Raise OptionError unless denoiser, autoencoder and text encoders fit one another; reads only configs."""
    with under_key():
        _check_autoencoder(checkpoint)
        if checkpoint.family is SD3:
            _check_sd3(checkpoint)
        elif checkpoint.family is FLUX:
            _check_flux(checkpoint)
        else:
            _check_unet(checkpoint)


def require_classic(checkpoint: Checkpoint, what: str) -> None:
    """Raise OptionError for checkpoints of other families than Stable Diffusion 1 and 2, which `what` does not take."""
    if checkpoint.family is not SD:
        raise refusal(
            f"{checkpoint.source!r} is a model of {checkpoint.family.name}; {what} takes Stable Diffusion 1 and 2"
        )


def _check_autoencoder(checkpoint: Checkpoint) -> None:
    vae, source = checkpoint.config("vae"), checkpoint.source
    if vae.get("latents_mean") is not None or vae.get("latents_std") is not None:
        raise refusal(
            f"the autoencoder of {source!r} normalises its latents by latents_mean and latents_std; expected only a "
            "scaling_factor and a shift_factor"
        )
    if not isinstance(vae.get("block_out_channels", []), list):
        raise refusal(f"the autoencoder of {source!r} has a block_out_channels that is not a list")
    if not _is_scale(vae.get("scaling_factor", 1.0)) or not _is_scale(vae.get("shift_factor") or 1.0):
        raise refusal(f"the autoencoder of {source!r} has a scaling_factor or shift_factor of no use")


def _is_scale(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value != 0


def _check_channels(checkpoint: Checkpoint, channels: dict[str, int]) -> None:
    """OptionError unless the denoiser's channels, in latents, are the autoencoder's."""
    channels |= {"autoencoder": numbers(checkpoint.config("vae"), "latent_channels", 4)[0]}
    if len(set(channels.values())) != 1:
        raise refusal(f"the denoiser of {checkpoint.source!r} does not fit its autoencoder: channels {channels}")


def _check_side(checkpoint: Checkpoint, denoiser: dict[str, Any]) -> None:
    if denoiser.get("sample_size") is None:
        raise refusal(f"the denoiser of {checkpoint.source!r} has no sample_size in its config.json")
    if max(numbers(denoiser, "sample_size")) > MAX_SIDE or len(numbers(denoiser, "sample_size")) > 2:
        raise refusal(f"the denoiser of {checkpoint.source!r} has a sample_size beyond {MAX_SIDE}")


def _check_unet(checkpoint: Checkpoint) -> None:
    unet = checkpoint.config("unet")
    taken, given = (numbers(unet, key, 4)[0] for key in ("in_channels", "out_channels"))
    check_channels(checkpoint.source, taken, given)
    if unet.get("addition_embed_type") not in (None, "text_time"):
        kind = shown(str(unet["addition_embed_type"]))
        raise refusal(f"{checkpoint.source!r} needs added conditions of type {kind!r}; {EXPECTED}")
    _check_side(checkpoint, unet)
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        raise refusal(f"the UNet of {checkpoint.source!r} needs class labels; expected one with text conditions only")
    _check_channels(checkpoint, {"UNet in": taken, "UNet out": given})
    towers = {name: checkpoint.config(name) for name in checkpoint.towers}
    widths = set(numbers(unet, "cross_attention_dim", 1280))
    width = sum(numbers(config, "hidden_size", 512)[0] for config in towers.values())
    if widths != {width}:
        raise refusal(
            f"the text {'encoders' if len(towers) > 1 else 'encoder'} of {checkpoint.source!r} "
            f"{'are together' if len(towers) > 1 else 'is'} {width} wide, but its UNet expects cross_attention_dim "
            f"{'/'.join(map(str, sorted(widths)[:5]))}"
        )
    if checkpoint.family is XL:
        pooled = numbers(towers["text_encoder_2"], "projection_dim", 512)[0]
        added = pooled + 6 * numbers(unet, "addition_time_embed_dim", 256)[0]
        if unet.get("projection_class_embeddings_input_dim") != added:
            raise refusal(
                f"the second text encoder of {checkpoint.source!r} pools to {pooled}, which makes {added} added "
                f"conditions; its UNet expects {shown(str(unet.get('projection_class_embeddings_input_dim')))}"
            )


def _check_sd3(checkpoint: Checkpoint) -> None:
    transformer = checkpoint.config("transformer")
    taken, given = (numbers(transformer, key, 16)[0] for key in ("in_channels", "out_channels"))
    _check_channels(checkpoint, {"transformer in": taken, "transformer out": given})
    _check_side(checkpoint, transformer)
    (side,), (patch,) = (
        numbers(transformer, key, value)[:1] for key, value in (("sample_size", 128), ("patch_size", 2))
    )
    most = patch * numbers(transformer, "pos_embed_max_size", 96)[0]
    if side % patch or side > most:
        raise refusal(
            f"the transformer of {checkpoint.source!r} has a sample_size of {side}, which is not a multiple of its "
            f"patch_size {patch} up to {most}"
        )
    clips = [checkpoint.config(part) for part in checkpoint.towers if part != checkpoint.family.t5]
    width = numbers(transformer, "joint_attention_dim", 4096)[0]
    clip_width = sum(numbers(config, "hidden_size", 512)[0] for config in clips)
    if clip_width > width:
        raise refusal(
            f"the CLIPs of {checkpoint.source!r} are together {clip_width} wide, but its transformer takes "
            f"joint_attention_dim {width}"
        )
    _check_pooled(checkpoint, transformer, sum(numbers(config, "projection_dim", 512)[0] for config in clips))
    if checkpoint.has_t5:
        _check_t5(checkpoint, width)


def _check_flux(checkpoint: Checkpoint) -> None:
    transformer = checkpoint.config("transformer")
    taken = numbers(transformer, "in_channels", 64)[0]
    given = taken if transformer.get("out_channels") is None else numbers(transformer, "out_channels")[0]
    if taken != given:
        raise refusal(
            f"the transformer of {checkpoint.source!r} takes {taken} channels and gives {given}, so it needs a picture "
            "besides, as those for filling, depth and edges do; expected an ordinary text-to-image model"
        )
    if taken % FLUX_PATCH**2:
        raise refusal(f"the transformer of {checkpoint.source!r} takes {taken} channels; expected a multiple of 4")
    _check_channels(checkpoint, {"transformer": taken // FLUX_PATCH**2})
    _check_pooled(checkpoint, transformer, numbers(checkpoint.config("text_encoder"), "hidden_size", 512)[0])
    _check_t5(checkpoint, numbers(transformer, "joint_attention_dim", 4096)[0])


def _check_pooled(checkpoint: Checkpoint, transformer: dict[str, Any], width: int) -> None:
    expected = numbers(transformer, "pooled_projection_dim", 768)[0]
    if width != expected:
        raise refusal(
            f"the text encoders of {checkpoint.source!r} pool to {width}, but its transformer takes "
            f"pooled_projection_dim {expected}"
        )


def _check_t5(checkpoint: Checkpoint, expected: int) -> None:
    width = numbers(checkpoint.config(checkpoint.family.t5), "d_model", 512)[0]
    if width != expected:
        raise refusal(
            f"the T5 of {checkpoint.source!r} is {width} wide, but its transformer takes joint_attention_dim {expected}"
        )
