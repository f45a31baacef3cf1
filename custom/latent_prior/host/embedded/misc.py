"""Small helpers of the embedded host under threestudio's names: devices, checkpoints, batches in chunks."""

import gc
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import user_path
from latent_prior.host.embedded.activations import get_activation, trunc_exp
from latent_prior.host.embedded.logs import debug, get_rank, info, warn
from latent_prior.host.embedded.scalars import C, C_max

__all__ = [
    "C",
    "C_max",
    "chunk_batch",
    "cleanup",
    "debug",
    "find_last_path",
    "get_activation",
    "get_device",
    "get_rank",
    "info",
    "load_module_weights",
    "trunc_exp",
    "warn",
]


def get_device() -> torch.device:
    """The device to compute on: $LATENT_PRIOR_DEVICE where set, else this rank's GPU if there is one, else the CPU."""
    override = os.environ.get("LATENT_PRIOR_DEVICE")
    if override:
        try:
            return torch.device(override)
        except RuntimeError as error:
            raise OptionError.because(
                f"LATENT_PRIOR_DEVICE={override!r} is not a device; try 'cpu' or 'cuda:0'"
            ) from error
    return torch.device(f"cuda:{get_rank()}") if torch.cuda.is_available() else torch.device("cpu")


def cleanup() -> None:
    """Give back memory that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def find_last_path(path: str | None) -> str | None:
    """Replace `LAST` in a path by the rest of the name of the newest trial (the last one in alphabetical order).

    `outputs/mug/a_red_mug@LAST/ckpts/last.ckpt` becomes `outputs/mug/a_red_mug@20230807-123456/ckpts/last.ckpt`.
    Spaces before LAST become underscores, as they do in trial names. A path without LAST, or None, comes back as it is.
    Raises ValueError when there is no such trial or the trial lacks the file.
    """
    if path is None:
        return None
    path = str(user_path(path))
    if "LAST" not in path:
        return path
    before, after = path.replace(" ", "_").split("LAST", 1)
    folder, prefix = os.path.split(before)
    root = Path(folder or ".")
    trials = sorted(entry.name for entry in root.iterdir() if entry.name.startswith(prefix)) if root.is_dir() else []
    if not trials:
        raise OptionError.because(f"{path}: no trial in {root}/ starts with {prefix!r}")
    found = os.path.join(folder, trials[-1]) + after
    if not os.path.exists(found):
        raise OptionError.because(
            f"{path}: the newest trial, {os.path.join(folder, trials[-1])}, has no {after.lstrip('/')}"
        )
    return found


def load_module_weights(
    path: str,
    module_name: str | None = None,
    ignore_modules: list[str] | None = None,
    map_location: Any = None,
) -> tuple[dict[str, Tensor], int, int]:
    """Read the weights of a Lightning checkpoint: (state dict, epoch, global step).

    module_name: keep this module's entries only, its name taken off theirs; ignore_modules: leave these modules out;
    map_location: as torch.load's, None means get_device(). Only tensors and plain containers are read, never code.
    Raises ValueError when the file is missing, is no checkpoint, or has no such module.
    """
    if module_name is not None and ignore_modules is not None:
        raise OptionError.because("module_name and ignore_modules exclude each other")
    path = str(user_path(path))
    if not os.path.isfile(path):
        raise OptionError.because(f"no checkpoint at {path!r}; set `weights` to a .ckpt file written by a training run")
    try:
        checkpoint = torch.load(path, map_location=map_location or get_device(), weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to run whatever the file asks for
        raise OptionError.because(
            f"{path!r} is no readable checkpoint: it holds more than tensors, or is cut off"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise OptionError.because(f"{path!r} is no readable checkpoint: {reason}") from error
    keys = checkpoint if isinstance(checkpoint, dict) else ()
    missing = [key for key in ("state_dict", "epoch", "global_step") if key not in keys]
    if missing:
        raise OptionError.because(f"{path!r} is not a Lightning checkpoint: it has no {', '.join(missing)}")
    state = checkpoint["state_dict"]
    if ignore_modules is not None:
        ignored = tuple(f"{name}." for name in ignore_modules)
        state = {key: value for key, value in state.items() if not key.startswith(ignored)}
    if module_name is not None:
        prefix = f"{module_name}."
        known = sorted({key.split(".")[0] for key in state})
        state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        if not state:
            raise OptionError.because(f"{path!r} has no module {module_name!r}; it holds {', '.join(known)}")
    return state, checkpoint["epoch"], checkpoint["global_step"]


def chunk_batch(func: Callable, chunk_size: int, *args, **kwargs) -> Any:
    """Call `func` on slices of at most `chunk_size` rows of every tensor argument and join what it returns.

    Arguments that are no tensors go to every call as they are. `func` returns a tensor, or a tuple, list or dict of
    tensors or Nones; outside of autograd the parts are detached. chunk_size <= 0 means one call on everything.
    """
    if chunk_size <= 0:
        return func(*args, **kwargs)
    rows = next((arg.shape[0] for arg in [*args, *kwargs.values()] if isinstance(arg, Tensor)), None)
    if rows is None:
        raise OptionError.because("chunk_batch needs at least one tensor argument to know the number of rows")

    def cut(arg: Any, start: int) -> Any:
        return arg[start : start + chunk_size] if isinstance(arg, Tensor) else arg

    parts = []
    for start in range(0, max(1, rows), chunk_size):  # an empty batch still gets its one call
        part = func(*(cut(arg, start) for arg in args), **{key: cut(arg, start) for key, arg in kwargs.items()})
        if part is not None:
            parts.append(part)
    if not parts:
        return None
    kind = type(parts[0])
    if isinstance(parts[0], Tensor):
        return _join(parts)
    if isinstance(parts[0], tuple | list):
        return kind(_join([part[i] for part in parts]) for i in range(len(parts[0])))
    if isinstance(parts[0], dict):
        return {key: _join([part[key] for part in parts]) for key in parts[0]}
    raise OptionError.because(f"chunk_batch joins tensors, tuples, lists and dicts, not {kind.__name__}")


def _join(values: list[Tensor | None]) -> Tensor | None:
    if all(value is None for value in values):
        return None
    if not all(isinstance(value, Tensor) for value in values):
        raise OptionError.because(f"chunk_batch joins tensors, got {[type(value).__name__ for value in values]}")
    return torch.cat([value if torch.is_grad_enabled() else value.detach() for value in values], dim=0)
