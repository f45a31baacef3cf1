"""The weight files of a part in diffusers' layout: a safetensors file or shards, plain or in a half-precision variant.

Plain files are preferred; if there are none, `*.fp16.safetensors` and then `*.bf16.safetensors` are used.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latent_prior import OptionError
from latent_prior.files.json_file import read_json
from latent_prior.files.tensors import tensor_shapes

KEY = "pretrained_model_name_or_path"

WEIGHT_NAMES = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
    "text_encoder_3": "model",
}

MAX_INDEX = 1 << 25  # bytes of an index of shards

# Suffixes of weights, in order of preference.
VARIANTS = (None, "fp16", "bf16")


@contextmanager
def under_key() -> Iterator[None]:
    """Errors of readers of files, under the key that names the checkpoint."""
    try:
        yield
    except OptionError as error:
        if error.field:
            raise
        raise OptionError.because(str(error), KEY) from error


def refusal(problem: str) -> OptionError:
    """An error about a checkpoint, under the key that names it."""
    return OptionError.because(problem, KEY)


def check_safetensors(path: Path) -> int:
    """The number of tensors in a safetensors file. OptionError if it is truncated or its header cannot be read."""
    with under_key():
        return len(tensor_shapes(path))


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
    with under_key():
        shards = read_json(index, MAX_INDEX).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) and all(map(_is_shard, shards.values())) else set()
    if not names:
        raise OptionError.because(f"{index} is not an index of shards beside it", KEY)
    return [folder / name for name in sorted(names)]


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[\w.-]{1,200}\.safetensors", name) is not None


def _names(folder: Path, stem: str, variant: str | None) -> tuple[Path, Path]:
    suffix = f".{variant}" if variant else ""
    return folder / f"{stem}{suffix}.safetensors", folder / f"{stem}.safetensors.index{suffix}.json"


def weight_patterns(stem: str, variant: str | None) -> list[str]:
    """File name patterns of a variant's weights on the hub, including shards."""
    if variant is None:
        return [f"{stem}.safetensors", f"{stem}-?????-of-?????.safetensors"]
    return [f"{stem}.{variant}*.safetensors", f"{stem}-?????-of-?????.{variant}.safetensors"]
