"""Checks of configs before a library builds a network or a tokenizer from them."""

from math import prod
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.files.json_file import read_json

MAX_VOCABULARY = 1 << 25  # bytes of a tokenizer's file


def check_layers(config: dict[str, Any], tensors: int) -> None:
    """OptionError if a config asks for more layers than a file of `tensors` tensors can hold.

    Each layer has a tensor at least. Nothing else in a config takes time or memory: networks are built without numbers,
    and a tensor of another shape is an error.
    """
    for tower in [config, *(part for part in config.values() if isinstance(part, dict))]:
        layers = {key: value for key, value in tower.items() if key.endswith(("layers", "layers_per_block"))}
        levels = [len(value) for value in tower.values() if isinstance(value, list)]
        if prod(map(_most, layers.values())) * max(levels, default=1) > max(tensors, 1):
            raise OptionError.because(f"its config has more {'/'.join(layers) or 'lists'} than its {tensors} tensors")


def numbers(config: dict[str, Any], key: str, default: int | None = None) -> tuple[int, ...]:
    """The whole number, or the list of them, under a key of a config. OptionError for anything else."""
    value = config.get(key, default)
    found = tuple(value) if isinstance(value, list) else (value,)
    if not found or not all(type(number) is int and number > 0 for number in found):
        raise OptionError.because(f"its config has a {key} that is not a number above 0")
    return found


def check_tokenizer(folder: Path) -> None:
    """OptionError if a JSON file of a tokenizer is unreadable or absurd."""
    for file in sorted(folder.glob("*.json")):
        content = read_json(file, MAX_VOCABULARY)
        length = content.get("model_max_length", 1)  # a huge number where there is no limit
        if file.name == "tokenizer_config.json" and not (isinstance(length, int) and length > 0):
            raise OptionError.because(f"{file}: model_max_length is not a number of tokens")


def _most(value: Any) -> int:
    """The largest number in a value, which may be nested in lists; 1 for anything else."""
    if isinstance(value, list):
        return max(map(_most, value), default=1)
    return max(value, 1) if isinstance(value, int) else 1
