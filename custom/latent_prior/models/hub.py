"""Resolves names that users write to files: a path on this machine, or a repository of the Hugging Face hub.

A name that looks like a path is never tried on the hub, so a missing file is reported at once. With `HF_HUB_OFFLINE=1`
only the local cache is used.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.refusals import denial

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def local_path(name: str, field: str, expected: str) -> Path | None:
    """The file or folder of that name, `~` expanded; None for a name that can only be a hub id `owner/name`.

    Raises OptionError for a path that does not exist; `field` names the option, `expected` says what it takes.
    """
    path = os.path.expanduser(name)  # Path.expanduser raises for an unknown user
    if os.path.exists(path):
        return Path(path)
    if _looks_like_path(name):
        raise OptionError.because(f"{name!r} does not exist; expected {expected}", field)
    return None


def snapshot(hub_id: str, patterns: Sequence[str], field: str, what: str) -> Path:
    """Download the files of a hub repository that match the patterns, and return the repository's folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    # checked here too, since huggingface_hub reads the variable only once
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), local_files_only=offline))
    except Exception as error:  # every transport has its own errors, and all mean the same here
        if refused := denial(error, Path(HF_HUB_CACHE)):
            raise OptionError.because(
                f"cannot fetch {what} from the hub: {refused} (HF_HOME names the cache)", field
            ) from error
        reason = "HF_HUB_OFFLINE is set and it is not in the local cache" if offline else one_line(error)
        raise OptionError.because(f"cannot fetch {what} from the hub: {reason}", field) from error


def one_line(error: Exception) -> str:
    """The message of a library's error, as one line of at most 120 characters (and an ellipsis)."""
    return shown(" ".join(str(error).split()), 120) or type(error).__name__


def _looks_like_path(name: str) -> bool:
    """True unless the name can only be a hub id `owner/name`: the owner must not be a folder here."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) or Path(name).parent.is_dir():
        return True
    return name.endswith(WEIGHT_SUFFIXES)
