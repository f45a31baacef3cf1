"""Small disks, and what befalls a run's disk at a chosen moment in a child process (accidents.py).

    with small_disk(tmp_path / "disk") as disk:
        run = start([...], tmp_path / "said", Befalls(fill, disk, tmp_path / "copy"), at(STEP, call=3))

`whole` tells whether everything on it is as it was, or a whole newer file.
"""

import csv
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
import torch
import yaml
from latent_prior.meshes.files import load_mesh
from PIL import Image
from reliability.accidents import Moment
from safetensors.torch import load_file

FILLER = "filler"
TEMPORARY = "latent_prior_export_"  # removed as the interpreter ends, which a child of a server does not


@contextmanager
def small_disk(folder: Path, options: str = "size=4m") -> Iterator[Path]:
    """A file system of its own in memory at `folder`; the test is skipped where none can be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def at(function: str, call: int = 1) -> Moment:
    """The moment of what `Befalls` names."""
    return Moment(function, (signal.SIGUSR1,), call)


@dataclass(frozen=True)
class Befalls:
    """In the child: `what(disk, *how)` at the moment `at`, once a copy of the disk is made."""

    what: Callable[..., None]
    disk: Path
    copy: Path
    how: tuple[Any, ...] = ()

    def arm(self) -> None:
        signal.signal(signal.SIGUSR1, self._happen)

    def _happen(self, *_: Any) -> None:
        shutil.copytree(self.disk, self.copy)
        self.what(self.disk, *self.how)


def fill(disk: Path, leave: int = 0) -> None:
    """Leave `leave` bytes free."""
    with (disk / FILLER).open("ab") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - leave)))


def fill_with_files(disk: Path) -> None:
    """Leave room, but for no file more."""
    (disk / FILLER).mkdir(exist_ok=True)
    try:
        for number in range(10_000):
            (disk / FILLER / str(number)).touch()
    except OSError:
        pass


def put_a_file(disk: Path, path: str) -> None:
    shutil.rmtree(disk / path, ignore_errors=True)
    (disk / path).write_text("in the way")


def put_a_folder(disk: Path, path: str) -> None:
    (disk / path / "in the way").mkdir(parents=True)


def remove(disk: Path, path: str) -> None:
    shutil.rmtree(disk / path)


@dataclass(frozen=True)
class Refuses:
    """In the child, on Linux: the system refuses to flush files of that suffix."""

    number: int
    suffix: str

    def arm(self) -> None:
        flush = os.fsync

        def refused(descriptor: int) -> None:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(self.suffix):
                raise OSError(self.number, os.strerror(self.number))
            flush(descriptor)

        os.fsync = refused


@dataclass(frozen=True)
class FilesUpTo:
    """In the child: no file may grow beyond `size` bytes."""

    size: int

    def arm(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@dataclass(frozen=True)
class TemporaryFilesIn:
    """In the child: the folder for temporary files."""

    folder: Path

    def arm(self) -> None:
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder)


@dataclass(frozen=True)
class WithoutPrivileges:
    """In the child: permissions hold for root as well."""

    def arm(self) -> None:
        if os.geteuid() != 0:
            return
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
        sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(header, sets) == 0
        sets[0] &= ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        assert libc.capset(header, sets) == 0


def whole(disk: Path, before: Path) -> str:
    """What is wrong with the files on a disk, compared with the copy from before; empty if nothing is."""
    files = {path.relative_to(before): path for path in before.rglob("*") if path.is_file()}
    for name, old in files.items():
        now = disk / name
        if now.is_file() and not _holds(now, old):
            return f"{name} lost what it held"
        if not now.is_file() and now.suffix == ".ckpt" and not list(now.parent.glob("[!.]*.ckpt")):
            return f"{name} is gone, and no other checkpoint is there"
    for path in disk.rglob("*"):
        if ".partial" in path.name:
            return f"{path.name} is left"
        ours = path.is_file() and FILLER not in path.parts and not path.parent.name.startswith(TEMPORARY)
        if ours and not _is_whole(path):
            return f"{path.relative_to(disk)} is not whole"
    return ""


def _holds(now: Path, old: Path) -> bool:
    """Whether a log still has all that it had; other files may be replaced."""
    if old.name == "metrics.csv":  # a new column changes its first line
        rows, kept = (
            [{(key, value) for key, value in row.items() if value} for row in csv.DictReader(path.open(newline=""))]
            for path in (old, now)
        )
        return all(any(row <= other for other in kept) for row in rows)
    return not old.name.startswith("events.out") or now.read_bytes().startswith(old.read_bytes())


def _is_whole(path: Path) -> bool:
    readers = {
        ".ckpt": lambda: torch.load(path, weights_only=True)["state_dict"],
        ".png": lambda: Image.open(path).load(),
        ".mp4": lambda: imageio_ffmpeg.count_frames_and_secs(path),
        ".yaml": lambda: yaml.safe_load(path.read_text()),
        ".json": lambda: json.loads(path.read_text()),
        ".glb": lambda: load_mesh(path),
        ".ply": lambda: load_mesh(path),
        ".safetensors": lambda: load_file(path),
        ".pt": lambda: torch.load(path, weights_only=True),
    }
    try:
        readers.get(path.suffix, lambda: None)()
    except Exception:  # each format has errors of its own
        return False
    return True
