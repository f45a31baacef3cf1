"""A folder has one owner at a time, who is named to the others."""

import errno
import fcntl
import json

import pytest
from latent_prior import OptionError
from latent_prior.files.lock import FolderLock, locked, owned


def test_a_folder_is_made_locked_and_taken_back_if_it_stays_empty(tmp_path):
    folder = tmp_path / "a" / "b"
    with owned(folder, "--out") as mine:
        assert mine == folder
        with pytest.raises(OptionError, match=f"^--out: {folder} is in use by .* \\(process "), owned(folder, "--out"):
            pass
        assert json.loads((folder / ".lock").read_text())["process"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError), owned(folder, "--out"):
        (folder / "made.txt").touch()
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["made.txt"]


def test_numbered_folders_are_new(tmp_path):
    with owned(tmp_path / "t", "", numbered=True) as first, owned(tmp_path / "t", "", numbered=True) as second:
        assert (first.name, second.name) == ("t", "t-1")


def test_who_is_refused_changes_nothing(tmp_path):
    (tmp_path / "mine.txt").touch()
    with owned(tmp_path, "--out"):
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
        with pytest.raises(OptionError):
            locked(tmp_path)
        assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_was_replaced_is_anothers(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    old = locked(folder)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    new = locked(folder)
    old.release()
    assert (folder / ".lock").exists() and not FolderLock(folder).acquire()
    new.release()


@pytest.mark.parametrize("content", [b"", b"[" * 60_000, b"\xff", b"7", b'{"process": 1}', b"x" * 100_000])
def test_an_owner_that_cannot_be_read_is_another_process(tmp_path, content):
    held = locked(tmp_path)
    (tmp_path / ".lock").write_bytes(content)
    with pytest.raises(OptionError, match="in use by another process"):
        locked(tmp_path)
    held.release()


def test_a_file_system_without_locks_gets_a_notice(tmp_path, capsys, monkeypatch):
    def missing(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", missing)
    with owned(tmp_path, "--out"):
        pass
    assert "no file locks here" in capsys.readouterr().err


def test_a_link_or_a_folder_in_the_locks_place_is_one_line(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").symlink_to("/etc/passwd")
    (tmp_path / "b" / ".lock").mkdir(parents=True)
    for folder in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(OptionError, match="cannot write to the folder"):
            locked(folder)
