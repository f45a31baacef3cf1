"""Devices and checkpoints."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import user_path
from latent_prior.files.torch_file import read_torch


def get_device() -> torch.device:
    """The device to compute on: $LATENT_PRIOR_DEVICE if set, else this process's GPU if there is one, else the CPU.

    Of several processes on a machine each has the GPU of its LOCAL_RANK.
    """
    override = os.environ.get("LATENT_PRIOR_DEVICE")
    if override:
        try:
            return torch.device(override)
        except RuntimeError as error:
            raise OptionError.because(
                f"LATENT_PRIOR_DEVICE={override!r} is not a device; try 'cpu' or 'cuda:0'"
            ) from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}")


def find_last_path(path: str | None) -> str | None:
    """Replace `LAST` in a path with the rest of the newest trial's name (the last one in alphabetical order).

    `outputs/mug/a_red_mug@LAST/ckpts/last.ckpt` becomes `outputs/mug/a_red_mug@20230807-123456/ckpts/last.ckpt`.
    Spaces in the trial's name become underscores, as in run folders, and ~ is expanded. None, a path without LAST, and
    a path that exists are returned unchanged.
    Raises OptionError if there is no such trial or the trial lacks the file.
    """
    if path is None:
        return None
    path = str(user_path(path))
    if "LAST" not in path or os.path.exists(path):
        return path
    before, after = path.split("LAST", 1)
    folder, prefix = os.path.split(before)
    prefix = prefix.replace(" ", "_")
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
    path: str, ignore_modules: Sequence[str] = (), *, data: bool = True
) -> tuple[dict[str, Tensor], int, int]:
    """Read the weights of a Lightning checkpoint, on the CPU: (state dict, epoch, global step).

    ignore_modules: modules to leave out; data: False gives their names, shapes and types alone. Only tensors and plain
    containers are read, never code. Raises OptionError if the file is missing or is not a checkpoint.
    """
    path = str(user_path(path))
    if not os.path.isfile(path):
        raise OptionError.because(f"no checkpoint at {path!r}; expected a .ckpt file written by a training run")
    try:
        checkpoint = read_torch(Path(path), data=data)
    except (OptionError, OSError) as error:
        raise OptionError.because(f"{path!r} is not a readable checkpoint: {error}") from error
    keys = checkpoint if isinstance(checkpoint, dict) else ()
    missing = [key for key in ("state_dict", "epoch", "global_step") if key not in keys]
    if missing:
        raise OptionError.because(f"{path!r} is not a Lightning checkpoint: it has no {', '.join(missing)}")
    state, epoch, step = (checkpoint[key] for key in ("state_dict", "epoch", "global_step"))
    if not (isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())):
        raise OptionError.because(f"{path!r} is not a Lightning checkpoint: its state_dict holds more than tensors")
    if not all(type(count) is int and 0 <= count < 1 << 40 for count in (epoch, step)):
        raise OptionError.because(f"{path!r} is not a Lightning checkpoint: its epoch or global_step is not a count")
    ignored = tuple(f"{name}." for name in ignore_modules)
    return {key: value for key, value in state.items() if not key.startswith(ignored)}, epoch, step
