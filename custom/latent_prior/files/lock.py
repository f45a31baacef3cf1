"""One owner per folder: who writes to it holds its lock, which the system releases however the process ends."""

import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from latent_prior import OptionError

NAME = ".lock"  # in the folder; it says who holds it, and stays, empty, when it is released


class FolderLock:
    """The lock of a folder that exists. Other processes, and other locks of this one, are refused while it is held."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._file = folder / NAME
        self._lock = FileLock(self._file, blocking=False, thread_local=False)

    def acquire(self) -> bool:
        """Whether it is held now. Raises OSError where the folder cannot be written."""
        try:
            self._lock.acquire()
        except Timeout:
            return False
        owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
        try:
            self._file.write_text(json.dumps(owner) + "\n")
        except OSError:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        """Give it up; nothing happens if it is not held."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone
                os.truncate(self._file, 0)
            self._lock.release()

    def owner(self) -> str:
        """Who holds it, in words."""
        try:
            owner = json.loads(self._file.read_text())
            command = owner["command"] if len(owner["command"]) <= 80 else f"{owner['command'][:77]}..."
            return f"{command!r} (process {owner['process']} on {owner['host']}, since {owner['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


def locked(folder: Path, key: str = "") -> FolderLock:
    """The folder's lock, held. OptionError, under `key`, if another process holds it or the folder cannot be written."""
    lock = FolderLock(folder)
    try:
        if lock.acquire():
            return lock
    except OSError as error:
        raise OptionError.because(f"cannot write to the folder {folder}: {error.strerror}", key) from error
    raise OptionError.because(f"{folder} is in use by {lock.owner()}: wait until that has ended, or stop it", key)
