"""The weight files of a part in diffusers' layout: a safetensors file or shards, plain or in a half-precision variant.

Plain files are preferred; if there are none, `*.fp16.safetensors` and then `*.bf16.safetensors` are used.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from latent_prior import OptionError
from latent_prior.models import hub

KEY = "pretrained_model_name_or_path"

WEIGHT_NAMES = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}

# Suffixes of weights, in order of preference.
VARIANTS = (None, "fp16", "bf16")


def check_safetensors(path: Path) -> None:
    """Raise OptionError if a safetensors file is truncated or its header cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise OptionError.because(
            f"{path} is not a readable safetensors file (corrupt or cut short?): {error}", KEY
        ) from error


def has_weights(folder: Path, stem: str, variant: str | None) -> bool:
    """Whether a part has weights of a variant."""
    return any(file.is_file() for file in _names(folder, stem, variant))


def weight_variant(folder: Path, stem: str) -> str | None:
    """The available variant of a part's weights; None for the plain ones. Raises OptionError if there are none."""
    for variant in VARIANTS:
        if has_weights(folder, stem, variant):
            return variant
    raise OptionError.because(f"no {stem}.safetensors in {folder} (pickled weights are not read: convert them)", KEY)


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a part: one file, or the shards that an index names."""
    single, index = _names(folder, stem, weight_variant(folder, stem))
    if single.is_file():
        return [single]
    try:
        return [folder / shard for shard in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError.because(f"{index} is not an index of shards: {hub.one_line(error)}", KEY) from error


def _names(folder: Path, stem: str, variant: str | None) -> tuple[Path, Path]:
    suffix = f".{variant}" if variant else ""
    return folder / f"{stem}{suffix}.safetensors", folder / f"{stem}.safetensors.index{suffix}.json"


def weight_patterns(stem: str, variant: str | None) -> list[str]:
    """File name patterns of a variant's weights on the hub, including shards."""
    if variant is None:
        return [f"{stem}.safetensors", f"{stem}-?????-of-?????.safetensors"]
    return [f"{stem}.{variant}*.safetensors", f"{stem}-?????-of-?????.{variant}.safetensors"]
