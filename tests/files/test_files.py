"""Files are whole or not there, and every written file has an ordinary mode."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from latent_prior.files import atomic_folder, atomic_write, user_path
from latent_prior.files.refusals import NotWritten
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file


@pytest.fixture
def umask():
    """The umask that most systems have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_write(path) as beside:
        assert beside.parent == path.parent and beside.suffix == ".txt"
        beside.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), atomic_write(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first" and [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_the_mode_follows_the_umask_whoever_writes(tmp_path, umask):
    with atomic_write(tmp_path / "a.safetensors") as beside:
        save_file({"x": torch.ones(2)}, beside)
        beside.chmod(0o600)
    assert mode(tmp_path / "a.safetensors") == 0o644 and load_file(tmp_path / "a.safetensors")["x"].sum() == 2


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (
        "import os, signal, sys\nfrom latent_prior.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as beside:\n"
        "    beside.write_text('ne')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "custom")}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL and path.read_text() == "old"


def test_two_threads_write_the_same_file(tmp_path):
    path, failed = tmp_path / "file.txt", []

    def write(text: str) -> None:
        try:
            for _ in range(20):
                with atomic_write(path) as beside:
                    beside.write_text(text * 1000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and path.read_text() in ("a" * 1000, "b" * 1000)


def test_a_name_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("\u732b" * 83 + ".txt")  # 253 bytes
    with atomic_write(path) as beside:
        beside.write_text("cat")
    assert path.read_text() == "cat"


def refused_once(rename, name):
    def refused(self, target):
        if self.name == name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    return refused


def test_a_folder_is_replaced_as_a_whole_or_stays(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    (tmp_path / ".folder.partial").mkdir()  # of a killed process
    (tmp_path / ".folder.partial" / "half").touch()
    with pytest.raises(RuntimeError), atomic_folder(path) as beside:
        (beside / "new").touch()
        raise RuntimeError
    with pytest.raises(NotWritten, match="folder: no space left"), atomic_folder(path) as beside:
        (beside / "new").touch()
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with monkeypatch.context() as patch:  # between the two renames
        patch.setattr(Path, "rename", refused_once(Path.rename, ".folder.partial"))
        with pytest.raises(NotWritten, match="folder: input/output error"), atomic_folder(path) as beside:
            (beside / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "old"]
    with atomic_folder(path) as beside:
        (beside / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "new"]


def test_home_is_expanded_and_an_unknown_user_is_left(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/x") == Path("/somewhere/x")
    assert user_path("~no_such_user_here/x") == Path("~no_such_user_here/x")
