"""Atomic writes of files, paths as users write them, and names for files. Standard library only."""

import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latent_prior.files.refusals import denial

__all__ = ["atomic_write", "slug", "user_path"]


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path next to `path`, with the same suffix, that replaces it once the block has ended without errors.

    The bytes are flushed to disk first, so neither a kill nor a power cut leaves half a file, and an error leaves the
    old file. The file's mode follows the umask, whatever the writer sets (safetensors and Lightning write through
    temporary files that only their owner may read). NotWritten if the disk refuses, whatever the writer raises then.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem[:100]}.{os.getpid()}.{threading.get_ident()}.partial{path.suffix}")
    try:
        with beside.open("wb"):
            mode = beside.stat().st_mode & 0o777
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.chmod(mode)
        os.replace(beside, path)
    except Exception as error:
        refused = denial(error, path, beside)
        if refused is None:
            raise
        raise refused from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def user_path(path: str | os.PathLike) -> Path:
    """A path from a config or a flag, with `~` expanded; unchanged for an unknown user."""
    return Path(os.path.expanduser(path))


def slug(text: str) -> str:
    """A text, such as a prompt, as a short name for a file or folder: its words of any script, joined by underscores.

    At most 60 characters and 180 bytes, cut between words if possible; "prompt" if no word is left.
    """
    text = re.sub("[\ufe00-\ufe0f]", "", unicodedata.normalize("NFC", text))  # they only select how an emoji looks
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()
    short = "_".join(words)[:61]  # one more, so that a word that ends at the limit is kept
    while len(short) > 60 or len(short.encode()) > 180:
        short = short.rpartition("_")[0] or short[:-1]
    return short or "prompt"
