"""Refuses sizes that cannot fit in memory, by their config keys, before anything of such a size is made."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from latent_prior import OptionError
from latent_prior.files.refusals import shown_size
from latent_prior.host.embedded.misc import get_device

FLOAT = 4  # bytes
COPIES = 4  # of a trained parameter: itself, its gradient, and Adam's two averages
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def available() -> int:
    """Bytes that can still be had: in the machine, within the limit of its container, and on the GPU in use, if any."""
    found = [psutil.virtual_memory().available]
    if (device := get_device()).type == "cuda":
        found.append(torch.cuda.mem_get_info(device)[0])
    for limit in map(Path, _LIMITS):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found)


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raise OptionError for a size below 1, naming its key."""
    for key, size in sizes.items():
        if size < 1:
            raise OptionError(key, size, "at least 1")


def require_memory(numbers: float, sizes: Mapping[str, Any], trained: bool = False) -> None:
    """Raise OptionError, naming the keys in `sizes`, unless that many float32 numbers fit in memory at once.

    numbers: a lower bound of what is needed; a large size is allowed as long as it fits. trained: they are parameters,
    which an optimiser keeps several copies of.
    """
    needed, there = numbers * FLOAT * (COPIES if trained else 1), available()
    if needed > there:
        given = ", ".join(f"{key}={value}" for key, value in sizes.items())
        error = OptionError.because(
            f"{given}: needs {shown_size(needed)} of memory or more, and {shown_size(there)} are available"
        )
        error.field = next(iter(sizes))  # which takes a prefix
        raise error


def shortage(error: BaseException) -> OptionError | None:
    """An allocation that failed, in our words; None for any other error."""
    lacking = re.search("can't allocate memory|not enough memory", str(error))
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not (
        isinstance(error, RuntimeError) and lacking
    ):
        return None
    return OptionError.because(
        f"out of memory ({str(error).splitlines()[0] if str(error) else type(error).__name__}): lower the size of the "
        "pictures, the batch or the field in the config"
    )
