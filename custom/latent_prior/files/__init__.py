"""Atomic writes of files, paths as users write them, and names for files. Standard library only."""

import errno
import os
import re
import shutil
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latent_prior import OptionError

__all__ = ["atomic_write", "denial", "slug", "user_path"]

# How a system refuses to write: there is no room, or no right, or something else is in the place.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
NO_DEVICE = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE}


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path next to `path`, with the same suffix, that replaces it once the block has ended without errors.

    The bytes are flushed to disk first, so neither a kill nor a power cut leaves half a file, and an error leaves the
    old file. The file's mode follows the umask, whatever the writer sets (safetensors and Lightning write through
    temporary files that only their owner may read). OptionError if the disk refuses, whatever the writer raises then.
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


def denial(error: BaseException, path: Path | None = None, written: Path | None = None) -> OptionError | None:
    """The OptionError for a write that the system refused; None if `error` is anything else.

    path: the file meant, within whose writing the error arose; written: what was written of it. Libraries wrap the
    system's error, or replace it: then it is found in the chain of causes, or a full disk shows when more is written.
    """
    found: BaseException | None = error
    while path is not None and found is not None and not _is_denial(found):
        found = found.__cause__ or found.__context__
    if found is None and written is not None and not isinstance(error, OptionError):
        found = _full(written)
    if found is None or not _is_denial(found):
        return None
    where = path or (Path(os.fsdecode(found.filename)) if found.filename else None)
    why = (found.strerror or str(found)).lower()
    if found.errno in NO_ROOM:
        why += _room(where or Path(), written)
    return OptionError.because(f"cannot write {where}: {why}" if path else f"{where or 'a file'}: {why}")


def _is_denial(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in NO_ROOM | NO_RIGHT | NO_DEVICE


def _full(written: Path) -> OSError | None:
    """The error of a disk on which not even a block more can be written; None if it can."""
    try:
        with written.open("ab") as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def _room(path: Path, written: Path | None) -> str:
    """What is free there and what was needed, as far as known."""
    folder = next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), None)
    if folder is None:
        return ""
    free = shutil.disk_usage(folder).free
    size = written.stat().st_size if written is not None and written.is_file() else 0
    need = f"; this file needs more than {size / 1e6:.1f} MB" if size else ""
    return f" ({free / 1e6:.1f} MB are free{need}: make room, or write elsewhere)"


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
