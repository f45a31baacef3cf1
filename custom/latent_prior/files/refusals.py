"""Writes that the system refuses, in words: what could not be written, why, and what to do. Standard library only."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latent_prior import OptionError

# How a system refuses to write: there is no room, or no right, or something else is in the place.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}
IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP}
NO_DEVICE = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE}
NOT_A_FOLDER = "is not a folder"


class NotWritten(OptionError):
    """The system refused a write: no room, no right, or something else in the place."""


@contextmanager
def naming(path: Path, hint: str = "") -> Iterator[None]:
    """In the block, a write that the system refuses becomes a NotWritten error: names `path`, and ends with `hint`."""
    try:
        yield
    except Exception as error:
        refused = error if isinstance(error, NotWritten) else denial(error, path)
        if refused is None:
            raise
        raise NotWritten.because(f"{refused} ({hint})" if hint else str(refused)) from error


def denial(error: BaseException, path: Path | None = None, written: Path | None = None) -> NotWritten | None:
    """The NotWritten error for a write that the system refused; None if `error` is anything else.

    path: the file meant, within whose writing the error arose; written: what was written of it. Libraries wrap the
    system's error, or replace it: then it is found in the chain of causes, in its message, or a full disk shows when
    more is written.
    """
    found: BaseException | None = error
    if isinstance(error, OptionError):  # said already
        return None
    while path is not None and found is not None and not _is_denial(found):
        code = re.search(r"\(os error (\d+)\)", str(found))  # as safetensors says it
        inner = code and OSError(int(code[1]), os.strerror(int(code[1])))
        found = inner if inner and _is_denial(inner) else found.__cause__ or found.__context__
    if found is None and written is not None:
        found = _full(written)
    if found is None or not _is_denial(found):
        return None
    name = found.filename2 or found.filename  # of two, that of the copy
    named = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
    at = path if path is not None and named in (None, path, written) else named
    why = reason(found, at, written if at == path else None)
    start = "" if path is None else f"cannot write {path}: "
    if (path is None or at != path) and not why.endswith(NOT_A_FOLDER):
        start += f"{at or 'a file'}: "
    return NotWritten.because(start + why)


def _is_denial(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in NO_ROOM | NO_RIGHT | IN_THE_WAY | NO_DEVICE


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


def reason(error: OSError, path: Path | None, written: Path | None = None) -> str:
    """The system's reason in words: what is in the way, or what was free and what to do."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR) and (obstacle := _obstacle(path)):
        return f"{obstacle}{' is a link to nothing, and' if not obstacle.exists() else ''} {NOT_A_FOLDER}"
    why = (error.strerror or str(error)).lower()
    if error.errno not in NO_ROOM:
        return why
    size = written.stat().st_size if written is not None and written.is_file() else 0
    more = f"this file needs more than {shown_size(size)}" if size else ""
    if error.errno == errno.ENOSPC and path is not None:
        if _holds_no_more_files(path):
            more = "there are too many files"
        elif (free := free_space(path)) is not None:
            more = f"{shown_size(free + size)} {'were free, and this file needs more' if size else 'are free'}"
    return f"{why}; {more}: make room, or write elsewhere" if more else f"{why}: make room, or write elsewhere"


def _holds_no_more_files(path: Path) -> bool:
    """Whether the file system is full of files, however small."""
    try:
        system = os.statvfs(_folder_of(path))
    except (OSError, AttributeError):  # Windows has no such call
        return False
    return system.f_files > 0 and system.f_favail == 0


def _folder_of(path: Path) -> Path:
    """The folder at `path`, or the first of its parents that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _obstacle(path: Path | None) -> Path | None:
    """The file, or the link to nothing, among a path and its parents."""
    outermost_first = () if path is None else (*reversed(path.absolute().parents), path.absolute())
    return next((part for part in outermost_first if os.path.lexists(part) and not part.is_dir()), None)


def free_space(path: Path) -> int | None:
    """Free bytes in the folder at `path`, or in the first of its parents that exists; None if that cannot be told."""
    try:
        return shutil.disk_usage(_folder_of(path)).free
    except OSError:
        return None


def require_room(folder: Path, needed: int, what: str) -> None:
    """OptionError unless `needed` bytes are free in a folder."""
    free = free_space(folder)
    if free is not None and free < needed:
        raise NotWritten.because(
            f"{what} needs about {shown_size(needed)}, but {shown_size(free)} are free in {folder}: make room, or write "
            "elsewhere"
        )


def shown_size(size: float) -> str:
    """Bytes in words."""
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"
