"""JSON files of others, read under bounds."""

import json
import math
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.pickles import check_size

MOST = 1 << 20  # bytes of a config; a tokenizer's vocabulary has a few MB
MAX_NUMBER = 1_000_000  # of a whole number in a config: widths, counts, ids of tokens
# by which transformers and diffusers load other code or another file than the one that was checked
NOT_OURS = ("auto_map", "quantization_config", "transformers_weights", "_attn_implementation", "attn_implementation")


def read_json(path: Path, most: int = MOST) -> dict[str, Any]:
    """The object in a file. OptionError, with the file's name, for anything else, and for absurd sizes and depths."""
    try:
        size = path.stat().st_size
        if size > most:
            raise OptionError.because(f"{size} bytes are more than the {most} allowed")
        content = json.loads(path.read_text(encoding="utf-8"))
        check_size(content)
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError.because(f"no readable {path}: {shown(str(error), 120)}") from error
    if not isinstance(content, dict):
        raise OptionError.because(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def parse_json(data: bytes, most: int) -> dict[str, Any]:
    """The object in a part of a file. OptionError for anything else, for numbers that are not finite, and beyond `most`
    values, which are counted before any is made."""
    try:
        if sum(map(data.count, (b",", b"[", b"{"))) > most:
            raise OptionError.because(f"it has more than {most} values")
        content = json.loads(data.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
        check_size(content, most)
    except (ValueError, RecursionError) as error:
        raise OptionError.because(f"no readable JSON: {shown(str(error), 120)}") from error
    if not isinstance(content, dict):
        raise OptionError.because(f"its JSON is a {type(content).__name__}; expected an object")
    return content


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"it holds the number {number[:20]}")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """The same for the config of a network. OptionError, with the key, for a number beyond any network's."""
    content = read_json(path)
    waiting: list[tuple[str, Any]] = list(content.items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, part) for part in value]
        elif isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise OptionError.because(f"{path}: {shown(key)} is beyond {MAX_NUMBER}")
        if key in NOT_OURS and value is not None:
            raise OptionError.because(f"{path}: {key} is not supported")
    return content
