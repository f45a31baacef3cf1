"""One owner per folder: who writes to it holds its lock, which the system releases however the process ends."""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from latent_prior import OptionError
from latent_prior.files.refusals import reason

NAME = ".lock"  # in the folder while it is locked; it says who holds it
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # of some network file systems


class FolderLock:
    """The lock of a folder that exists. Other processes, and other locks of this one, are refused while it is held."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._file = folder.absolute() / NAME
        self._lock = FileLock(self._file, blocking=False, thread_local=False, fallback_to_soft=False)
        self._ours: os.stat_result | None = None

    def acquire(self) -> bool:
        """Whether it is held now. Raises OSError where the folder cannot be written.

        A file system without locks gets a notice, and the folder counts as held.
        """
        try:
            self._lock.acquire()
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"{self.folder}: no file locks here; make sure that nothing else writes to it", file=sys.stderr)
            return True
        try:
            self._ours = self._file.stat()
            self._introduce()
        except OSError:
            self.release()
            raise
        return True

    def _introduce(self) -> None:
        owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
        }
        with contextlib.suppress(*[PermissionError] if os.name == "nt" else []):  # there a locked file is closed to all
            self._file.write_text(json.dumps(owner) + "\n")

    def release(self) -> None:
        """Give it up, and remove its file; nothing happens if it is not held."""
        if not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):
            # by another name now if the folder was replaced, and then the file here is another's
            if self._ours is not None and os.path.samestat(self._file.stat(), self._ours):
                self._file.unlink()  # filelock takes no lock on a file that is removed, so nobody waits for this one
        self._lock.release()

    def owner(self) -> str:
        """Who holds it, in words."""
        try:
            with self._file.open() as file:
                owner = json.loads(file.read(1 << 16))
            process, host, since, command = (str(owner[key]) for key in ("process", "host", "since", "command"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return "another process"
        command = command if len(command) <= 80 else f"{command[:77]}..."
        return f"{command!r} (process {process[:20]} on {host[:80]}, since {since[:20]})"


def locked(folder: Path, key: str = "") -> FolderLock:
    """The folder's lock, held. OptionError, under `key`, if another process holds it or the folder cannot be written."""
    lock = FolderLock(folder)
    try:
        if lock.acquire():
            return lock
    except OSError as error:
        raise _unwritable(folder, key, error) from error
    raise OptionError.because(f"{folder} is in use by {lock.owner()}: wait until that has ended, or stop it", key)


def _unwritable(folder: Path, key: str, error: OSError) -> OptionError:
    return OptionError.because(f"cannot write to the folder {folder}: {reason(error, folder)}", key)


@dataclass(frozen=True)
class Taken:
    """A folder, its lock, and the folders created for it, innermost first."""

    folder: Path
    lock: FolderLock
    made: tuple[Path, ...]


def take(
    folder: Path, key: str = "", numbered: bool = False, check: Callable[[Path], None] = lambda folder: None
) -> Taken:
    """Lock a folder, created if it does not exist.

    numbered: append `-1`, `-2`, ... to the name of a folder that exists. check: called for one that exists, and again
    under its lock; raises what refuses it. OptionError, under `key`, if another process holds it; OSError if it cannot be
    created. After an error, nothing that was created is left.
    """
    made: list[Path] = []
    try:
        for part in [*reversed(folder.parents), folder]:
            _make(part, made)
        name, number = folder.name, 0
        while numbered and folder not in made:
            number += 1
            folder = folder.with_name(f"{name}-{number}")
            _make(folder, made)
        if not (folder / NAME).exists():  # else the lock says who is there
            check(folder)
        held = locked(folder, key)
        try:
            check(folder)
        except BaseException:
            held.release()
            raise
        return Taken(folder, held, tuple(reversed(made)))
    except BaseException:
        remove_empty(reversed(made))
        raise


@contextlib.contextmanager
def owned(folder: Path, key: str, numbered: bool = False) -> Iterator[Path]:
    """The folder of `take` in the block; afterwards, what was created and stayed empty is removed."""
    try:
        taken = take(folder, key, numbered)
    except OSError as error:
        raise _unwritable(folder, key, error) from error
    try:
        yield taken.folder
    finally:
        taken.lock.release()
        remove_empty(taken.made)


def _make(folder: Path, made: list[Path]) -> None:
    """Create a folder whose parent exists; added to `made` if it is new."""
    while True:
        try:
            folder.mkdir()
            made.append(folder)
            return
        except OSError as error:
            if folder.is_dir():
                return
            if not isinstance(error, FileExistsError):
                raise
            if os.path.lexists(folder) and not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
            # else another process has removed it meanwhile


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those that are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
