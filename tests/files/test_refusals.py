"""A write that the system refuses is one line that names the file, and a bug stays a bug."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from latent_prior import OptionError
from latent_prior.files import atomic_write, refusals
from latent_prior.files.refusals import NotWritten, denial, naming, require_room
from safetensors import SafetensorError


def system(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    "number, said",
    [
        (errno.ENOSPC, "no space left on device; .* are free: make room, or write elsewhere"),
        (errno.EDQUOT, "disk quota exceeded: make room"),
        (errno.EFBIG, "file too large: make room"),
        (errno.EROFS, "read-only file system$"),
        (errno.EACCES, "permission denied$"),
        (errno.EISDIR, "is a directory$"),
        (errno.EIO, "input/output error$"),
    ],
)
def test_what_the_system_says(tmp_path, number, said):
    path = tmp_path / "file"
    assert denial(system(number)) is not None
    with pytest.raises(NotWritten, match=f"^cannot write {path}: {said}"), naming(path):
        raise system(number)
    with pytest.raises(NotWritten, match=r"\(so and so\)$"), naming(path, "so and so"):
        raise RuntimeError from system(number)


@pytest.mark.parametrize("error", [system(errno.ENOENT), system(errno.EINVAL), KeyError("x"), RuntimeError("full")])
def test_anything_else_is_a_bug(tmp_path, error):
    assert denial(error) is None
    with pytest.raises(type(error)), naming(tmp_path):
        raise error
    with pytest.raises(type(error)), atomic_write(tmp_path / "file"):
        raise error
    assert not list(tmp_path.iterdir())


def test_what_was_said_is_not_said_again(tmp_path):
    with pytest.raises(OptionError, match="^inner$"), naming(tmp_path), atomic_write(tmp_path / "file"):
        raise OptionError.because("inner") from system(errno.ENOSPC)


def test_an_old_file_outlives_a_refusal_that_tells_what_was_free(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(refusals, "free_space", lambda folder: 1000)
    with pytest.raises(NotWritten, match="cannot write .*file: .*; 5.0 kB were free, and this file needs more"):
        with atomic_write(path) as beside:
            beside.write_bytes(bytes(4000))
            raise system(errno.ENOSPC)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_safetensors_says_it_in_words(tmp_path):
    with pytest.raises(NotWritten, match="file: no space left"), atomic_write(tmp_path / "file"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), atomic_write(tmp_path / "file"):
        raise SafetensorError("Error while deserializing header: invalid JSON")


def test_of_a_copy_the_new_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "old").write_bytes(bytes(10))

    def full(*_, **__):
        raise system(errno.ENOSPC)

    monkeypatch.setattr(os, "sendfile", full, raising=False)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError) as raised:
        shutil.copyfile(tmp_path / "old", tmp_path / "new")
    assert str(tmp_path / "old") not in str(denial(raised.value))
    with pytest.raises(NotWritten, match=f"^cannot write {tmp_path / 'new'}: no space"):
        with atomic_write(tmp_path / "new") as beside:
            shutil.copyfile(tmp_path / "old", beside)


def test_another_file_than_the_one_meant_is_named_too(tmp_path):
    with pytest.raises(NotWritten, match=f"^cannot write {tmp_path / 'a'}: /b: permission denied"):
        with naming(tmp_path / "a"):
            raise system(errno.EACCES, "/b")
    assert str(denial(system(errno.EACCES, "/b"))) == "/b: permission denied"
    assert str(denial(system(errno.ENOSPC))).startswith("a file: no space left")


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, said in (("file", "file is not a folder"), ("link", "link is a link to nothing, and is not a folder")):
        with pytest.raises(NotWritten, match=f"^cannot write .*below: {tmp_path}/{said}$"):
            with naming(tmp_path / name / "below"):
                (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotWritten, match="folder: is a directory"), atomic_write(tmp_path / "folder") as beside:
        beside.touch()
    with pytest.raises(NotWritten, match="file name too long"), atomic_write(tmp_path / ("x" * 300)):
        pass


def test_a_disk_without_room_for_files(tmp_path, monkeypatch):
    counts = os.statvfs(tmp_path)
    full = os.statvfs_result([*counts[:5], 100, 0, 0, *counts[8:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    monkeypatch.setattr(refusals, "free_space", lambda path: 1 << 30)
    assert "there are too many files" in str(denial(system(errno.ENOSPC), tmp_path / "not yet" / "file"))


def test_room_that_is_needed(tmp_path):
    free = refusals.free_space(Path(tmp_path, "not", "yet"))
    require_room(tmp_path, free // 2, "half")
    with pytest.raises(NotWritten, match=f"^it all needs about .*B, but .*B are free in {tmp_path}: make room"):
        require_room(tmp_path, 2 * free, "it all")


@pytest.mark.parametrize("size, shown", [(0, "0 bytes"), (999, "999 bytes"), (1234, "1.2 kB"), (5.06e9, "5.1 GB")])
def test_sizes(size, shown):
    assert refusals.shown_size(size) == shown
