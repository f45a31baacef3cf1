"""Files written by `torch.save`, read as data: tensors, containers and plain values, never code."""

import argparse
import io
import re
from pathlib import Path
from typing import Any

import torch

from latent_prior import OptionError


def read_torch(file: Path | io.BytesIO) -> Any:
    """The contents of the file, on the CPU. OptionError if it is broken or refers to more than plain data."""
    try:
        with torch.serialization.safe_globals(
            [argparse.Namespace]
        ):  # a plain record; training files keep `args` in one
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # corrupt bytes may raise anything; torch's own messages are paragraphs
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            raise OptionError.because(f"refused: it refers to {asked[1]}") from error
        raise OptionError.because(f"truncated, or not a torch file ({type(error).__name__})") from error
