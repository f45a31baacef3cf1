"""Writing files and folders whole; paths as users write them, names of files, texts in messages. Standard library only."""

import os
import re
import shutil
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latent_prior.files.refusals import denial, naming

__all__ = ["atomic_folder", "atomic_write", "remove_partial", "shown", "slug", "user_path", "write_text"]


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path next to `path`, with the same suffix, that replaces it once the block has ended without errors.

    The bytes are flushed to disk first, so neither a kill nor a power cut leaves half a file, and an error leaves the
    old file. The folder is not flushed: a power cut may bring back the old file of seconds ago. The file's mode follows
    the umask, whatever the writer sets (safetensors and Lightning write through temporary files that only their owner
    may read). NotWritten if the disk refuses, whatever the writer raises then.
    """
    path = Path(path)
    # a short part of the name, since the whole may be as long as names can be
    beside = path.with_name(f".{path.stem[:40]}.{os.getpid()}.{threading.get_ident()}.partial{path.suffix}")
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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as beside:
        beside.write_text(text)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder next to `path` that replaces it, with all that is in it, once the block has ended without errors.

    Only one process at a time may do this for a path. Between the two renames a kill leaves the old folder, and the
    new one, under their hidden names. NotWritten if the disk refuses.
    """
    beside, old = (path.with_name(f".{path.name}.{part}") for part in ("partial", "replaced"))
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with naming(path):
            beside.mkdir(parents=True)
            yield beside
            for file in beside.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as written:
                        os.fsync(written.fileno())
            shutil.rmtree(old, ignore_errors=True)
            with suppress(FileNotFoundError):
                path.rename(old)
            beside.rename(path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        with suppress(OSError):
            if not path.exists():
                old.rename(path)
        shutil.rmtree(beside, ignore_errors=True)


def remove_partial(folder: Path, below: bool = True) -> None:
    """Remove what `atomic_write` of killed processes left in a folder, and in all below; for the folder's owner alone.

    Files of another process that is running here are left, whoever it is.
    """
    for path in (folder.rglob if below else folder.glob)(".*.partial*"):
        left = re.fullmatch(r"\..*\.(\d+)\.\d+\.partial(\..*)?", path.name)
        if left and (int(left[1]) == os.getpid() or not _is_running(int(left[1]))):
            with suppress(OSError):
                path.unlink()


def _is_running(process: int) -> bool:
    if os.name != "posix":  # where asking would be a signal
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        pass
    return True


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


def shown(text: str, most: int = 60) -> str:
    """A text of a foreign file, for a message: at most `most` characters and an ellipsis, unprintable ones escaped."""
    cut = text if len(text) <= most else f"{text[:most]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
