"""safetensors files of others, read under bounds. The library checks offsets and lengths; names and sizes are ours."""

import struct
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.pickles import MAX_NAME

MAX_HEADER = 1 << 24  # bytes; a file of 2,500 tensors has 400,000


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a file, from its header. OptionError if it is broken or absurd."""
    try:
        with path.open("rb") as opened:
            head = opened.read(8)
        if len(head) < 8 or struct.unpack("<Q", head)[0] > MAX_HEADER:
            raise ValueError("its header is missing or too long")
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, and others for types that torch does not have
        raise _broken(path, error) from error
    for name in shapes:
        if len(name) > MAX_NAME or not name.isprintable():
            raise OptionError.because(
                f"{_short(path)}: refused: it has a name of {len(name)} characters, or an unprintable one"
            )
    return shapes


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU. OptionError if it is broken or absurd."""
    tensor_shapes(path)
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError, and others for types that torch does not have
        raise _broken(path, error) from error


def _short(path: Path) -> str:
    """The file and its folder, such as `unet/model.safetensors`; what the user wrote is the caller's to say."""
    return shown("/".join(path.parts[-2:]), 80)


def _broken(path: Path, error: Exception) -> OptionError:
    return OptionError.because(f"{_short(path)}: truncated, or not a safetensors file: {shown(str(error), 100)}")
