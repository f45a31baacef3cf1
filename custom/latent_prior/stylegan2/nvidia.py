"""NVIDIA's pickles of StyleGAN2 (`network-snapshot-*.pkl`), read as data.

Such a file contains the source code of its networks, and NVIDIA's loader runs it. Here the pickle may refer only to the
globals below, each of which becomes an inert record; the tensors of the generator's moving average are then extracted
from these. Other contents of a file (discriminator, source code) are never used.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.pickles import PLAIN, Function, Record, first_few, read_pickle
from latent_prior.files.torch_file import read_torch

MAX_BYTES = 2 << 30  # limit for a file, and for the tensors in it; the largest published ones are below 400 MB
MAX_DEPTH = 8  # of nested networks; a generator has 4
OTHERS = {  # what a refused global says about the file
    "dnnlib.tflib.": "as TensorFlow's StyleGAN1 and StyleGAN2 do",
    "tfutil.": "as TensorFlow's progressive GAN does",
    "numpy.core.multiarray._reconstruct": "as StyleGAN3 does",
    "numpy._core.multiarray._reconstruct": "as StyleGAN3 does",
}
PERSISTENCE_VERSION = 6  # of NVIDIA's format; all their PyTorch pickles have it


@dataclass(frozen=True)
class Module:
    """A network as described by the pickle."""

    state: dict


@dataclass(frozen=True)
class Stored:
    """A tensor as described by the pickle: a view of a storage, which is still bytes."""

    data: bytes
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_nvidia(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of G_ema, or of the one module that the pickle is.

    Raises:
        OptionError: a truncated or too large file, or a pickle that refers to anything but the tensors of a network.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise OptionError.because(f"{size} bytes are more than the {MAX_BYTES} allowed for a generator's pickle")
    allowed = PLAIN | {
        "torch_utils.persistence._reconstruct_persistent_obj": Function(_module),
        "dnnlib.util.EasyDict": Function(dict),
        "torch._utils._rebuild_tensor_v2": Function(lambda *args: Stored(*args[:4])),
        "torch._utils._rebuild_parameter": Function(lambda data, *_: data),
        "torch.storage._load_from_bytes": Function(lambda data: data),
        "numpy.core.multiarray.scalar": Function(lambda *_: None),
        "numpy._core.multiarray.scalar": Function(lambda *_: None),
        "numpy.dtype": Function(lambda *_: Record()),
    }
    with path.open("rb") as file:
        content = read_pickle(file, allowed, refusal=_refusal)
    module = content.get("G_ema") if isinstance(content, dict) else content
    if not isinstance(module, Module):
        found = first_few(content) if isinstance(content, dict) else type(content).__name__
        raise OptionError.because(f"expected a pickled network or a dict with one as G_ema; found {found}")
    return _tensors(module, min(2 * size, MAX_BYTES))


def _refusal(name: str) -> str:
    whose = next((f" ({whose})" for start, whose in OTHERS.items() if name.startswith(start)), "")
    return f"the pickle asks for {name}{whose}, which a StyleGAN2 generator does not need"


def _module(meta: Any) -> Module:
    version, state = (meta.get("version"), meta.get("state")) if isinstance(meta, dict) else (None, None)
    if version != PERSISTENCE_VERSION or not isinstance(state, dict):
        given = version if isinstance(version, int) else f"of type {type(version).__name__}"
        raise OptionError.because(
            f"refused: a network in version {given} of NVIDIA's format; expected version {PERSISTENCE_VERSION}"
        )
    return Module(state)


def _tensors(root: Module, most: int) -> dict[str, Tensor]:
    """The parameters and buffers of a network, which may take `most` bytes together."""
    out, size = {}, 0
    for name, stored in _walk(root, "", set()):
        if not isinstance(stored, Stored) or not isinstance(stored.data, bytes):
            raise OptionError.because(f"{shown(name)} is not a tensor")
        size += len(stored.data)
        if size > most:
            raise OptionError.because(f"its tensors have more than the {most} bytes allowed for this file")
        try:
            out[name] = _decoded(stored)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # sizes and strides may be anything
            raise OptionError.because(f"the tensor {shown(name)} cannot be read: {_first_line(error)}") from error
    return out


def _walk(module: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Named parameters and persistent buffers, depth first."""
    where = shown(prefix.rstrip(".")) or "the root"
    if not isinstance(module, Module) or id(module) in seen or prefix.count(".") > MAX_DEPTH:
        raise OptionError.because(f"{where} is not a network, occurs twice, or is nested too deeply")
    seen.add(id(module))
    parts = [module.state.get(part) or {} for part in ("_parameters", "_buffers", "_modules")]
    skipped = module.state.get("_non_persistent_buffers_set", set())
    if not (all(isinstance(part, dict) for part in parts) and isinstance(skipped, set)):
        raise OptionError.because(f"{where} lacks the parameters, buffers and modules of a torch network")
    for name, stored in [*parts[0].items(), *parts[1].items()]:
        if stored is not None and name not in skipped:
            yield f"{prefix}{name}", stored
    for name, inner in parts[2].items():
        if inner is not None:
            yield from _walk(inner, f"{prefix}{name}.", seen)


def _decoded(stored: Stored) -> Tensor:
    """The tensor described by a record. Its storage is a torch file in the legacy format, never a zip."""
    if stored.data.startswith(b"PK"):
        raise OptionError.because("its storage is a zip archive")
    values = read_torch(io.BytesIO(stored.data))
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise OptionError.because("expected a storage of floating point numbers")
    # a stride of 0 would allow a view of any size; as_strided checks the rest
    count = values.untyped_storage().nbytes() // values.itemsize
    if torch.Size(stored.size).numel() > count:
        raise OptionError.because(f"shape {list(stored.size)[:5]} of {count} numbers")
    return values.as_strided(stored.size, stored.stride, stored.offset)


def _first_line(error: Exception) -> str:
    return shown((str(error) or type(error).__name__).strip().split("\n")[0], 150)
