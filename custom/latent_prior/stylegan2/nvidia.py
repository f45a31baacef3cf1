"""NVIDIA's pickles of StyleGAN2 (`network-snapshot-*.pkl`), read as data.

Such a file contains the source code of its networks, and NVIDIA's loader runs it. Here the pickle may refer only to the
globals below, each of which becomes an inert record; the tensors of the generator's moving average are then extracted
from these. Other contents of a file (discriminator, source code) are never used.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent_prior import OptionError
from latent_prior.stylegan2.torch_file import read_torch

MAX_BYTES = 2 << 30  # limit for a file, and for the tensors in it; the largest published ones are below 400 MB
MAX_DEPTH = 8  # of nested networks; a generator has 4
OTHERS = {  # what a refused global says about the file
    "dnnlib.tflib.": "as TensorFlow's StyleGAN1 and StyleGAN2 do",
    "tfutil.": "as TensorFlow's progressive GAN does",
    "numpy.core.multiarray._reconstruct": "as StyleGAN3 does",
    "numpy._core.multiarray._reconstruct": "as StyleGAN3 does",
}
PERSISTENCE_VERSION = 6  # of NVIDIA's format; all their PyTorch pickles have it


class NotAllowed(pickle.UnpicklingError):
    """The pickle refers to something that a generator's file does not need; the message says what."""


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


class Inert:
    """Placeholder for an object whose value does not matter; accepts any state."""

    def __setstate__(self, state: Any) -> None:
        pass


def read_nvidia(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of G_ema, or of the one module that the pickle is.

    Raises:
        OptionError: a truncated or too large file, or a pickle that refers to anything but the tensors of a network.
    """
    if path.stat().st_size > MAX_BYTES:
        raise OptionError.because(
            f"{path.stat().st_size} bytes are more than the {MAX_BYTES} allowed for a generator's pickle"
        )
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
    except NotAllowed as error:
        raise OptionError.because(f"refused: {error}") from error
    except Exception as error:  # corrupt bytes may raise anything; only the records above have been called
        raise OptionError.because(f"truncated, or not a pickle: {_first_line(error)}") from error
    module = content.get("G_ema") if isinstance(content, dict) else content
    if not isinstance(module, Module):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise OptionError.because(
            f"expected a pickled network or a dict with one as G_ema; found {found or 'nothing'}"[:200]
        )
    return _tensors(module)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # a new class each time: a pickle can set attributes on what it gets
        allowed = {
            "torch_utils.persistence._reconstruct_persistent_obj": lambda meta: _module(meta),
            "collections.OrderedDict": OrderedDict,
            "dnnlib.util.EasyDict": dict,
            "builtins.set": set,
            "torch._utils._rebuild_tensor_v2": lambda *args: Stored(*args[:4]),
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch.storage._load_from_bytes": lambda data: data,
            "numpy.core.multiarray.scalar": lambda *_: Inert(),
            "numpy._core.multiarray.scalar": lambda *_: Inert(),
            "numpy.dtype": lambda *_: Inert(),
        }
        found = allowed.get(f"{module}.{name}")
        if found is None:
            whose = next((f" ({whose})" for start, whose in OTHERS.items() if f"{module}.{name}".startswith(start)), "")
            raise NotAllowed(f"the pickle asks for {module}.{name}{whose}, which a StyleGAN2 generator does not need")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise NotAllowed("the pickle has persistent ids, which a StyleGAN2 generator does not need")


def _module(meta: Any) -> Module:
    version, state = (meta.get("version"), meta.get("state")) if isinstance(meta, dict) else (None, None)
    if version != PERSISTENCE_VERSION or not isinstance(state, dict):
        raise NotAllowed(f"a network in version {version!r} of NVIDIA's format; expected version {PERSISTENCE_VERSION}")
    return Module(state)


def _tensors(root: Module) -> dict[str, Tensor]:
    out, size = {}, 0
    for name, stored in _walk(root, "", set()):
        if not isinstance(stored, Stored) or not isinstance(stored.data, bytes):
            raise OptionError.because(f"{name} is not a tensor")
        size += len(stored.data)
        if size > MAX_BYTES:  # more than the file has: it refers to the same bytes repeatedly
            raise OptionError.because(f"its tensors have more than the {MAX_BYTES} bytes allowed for a generator")
        try:
            out[name] = _decoded(stored)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # sizes and strides may be anything
            raise OptionError.because(f"the tensor {name} cannot be read: {_first_line(error)}") from error
    return out


def _walk(module: Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, Stored]]:
    """Named parameters and persistent buffers, depth first."""
    if not isinstance(module, Module) or id(module) in seen or prefix.count(".") > MAX_DEPTH:
        raise OptionError.because(
            f"{prefix.rstrip('.')[:80] or 'the root'} is not a network, occurs twice, or is nested too deeply"
        )
    seen.add(id(module))
    parts = [module.state.get(part) or {} for part in ("_parameters", "_buffers", "_modules")]
    if not all(isinstance(part, dict) for part in parts):
        raise OptionError.because(
            f"{prefix.rstrip('.') or 'the root'} lacks the parameters, buffers and modules of a torch network"
        )
    skipped = module.state.get("_non_persistent_buffers_set") or ()
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
    storage = read_torch(io.BytesIO(stored.data))
    if not isinstance(storage, torch.storage.TypedStorage) or not storage.dtype.is_floating_point:
        raise OptionError.because("expected a storage of floating point numbers")
    values = torch.empty(0, dtype=storage.dtype).set_(storage)
    # a stride of 0 would allow a view of any size; as_strided checks the rest
    if torch.Size(stored.size).numel() > len(values):
        raise OptionError.because(f"shape {list(stored.size)} of {len(values)} numbers")
    return values.as_strided(stored.size, stored.stride, stored.offset)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0][:200]
