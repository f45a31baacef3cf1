"""`latent-prior link`: in, again, out; only what is ours is touched."""

import shutil
import subprocess
import sys

import pytest
from latent_prior import cli
from latent_prior.cli.link import PACKAGE, link, unlink


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like threestudio's checkout."""
    (tmp_path / "threestudio").mkdir()
    (tmp_path / "threestudio" / "__init__.py").touch()
    (tmp_path / "launch.py").touch()
    return tmp_path


def contents(checkout):
    return sorted(path.name for path in (checkout / "custom").iterdir())


def test_linked_twice_is_linked_once(checkout):
    assert link(checkout) == link(checkout)
    assert contents(checkout) == ["latent_prior", "latent_prior.yaml"]
    assert (checkout / "custom" / "latent_prior").resolve() == PACKAGE
    assert "latent-prior-system" in (checkout / "custom" / "latent_prior.yaml").read_text()


def test_removed_leaves_what_was_there(checkout):
    (checkout / "custom" / "other_extension").mkdir(parents=True)
    link(checkout)
    assert len(unlink(checkout)) == 2
    assert contents(checkout) == ["other_extension"]
    assert unlink(checkout) == []
    assert (PACKAGE / "__init__.py").is_file()


def test_a_copy_stands_alone_and_is_made_anew(checkout):
    link(checkout, copy=True)
    copied = checkout / "custom" / "latent_prior"
    assert not copied.is_symlink() and (copied / "pocket" / "weights" / "model_index.json").is_file()
    assert not list(copied.rglob("__pycache__"))
    (copied / "stale.py").touch()
    link(checkout, copy=True)
    assert not (copied / "stale.py").exists()
    link(checkout)
    assert copied.is_symlink()
    link(checkout, copy=True)
    assert len(unlink(checkout)) == 2 and contents(checkout) == []


def test_an_interrupted_copy_is_made_anew(checkout, monkeypatch):
    copy = shutil.copytree

    def interrupted(*args, **options):
        copy(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copytree", interrupted)
        link(checkout, copy=True)
    assert len(link(checkout, copy=True)) == 2
    assert (checkout / "custom" / "latent_prior" / "__init__.py").is_file()


def test_what_is_not_ours_is_left_alone(checkout):
    theirs = checkout / "custom" / "latent_prior"
    theirs.mkdir(parents=True)
    (theirs / "mine.py").touch()
    with pytest.raises(ValueError, match="not ours"):
        link(checkout)
    with pytest.raises(ValueError, match="not ours"):
        unlink(checkout)
    assert (theirs / "mine.py").is_file() and contents(checkout) == ["latent_prior"]


def test_an_edited_config_is_left_alone(checkout):
    link(checkout, copy=True)
    config = checkout / "custom" / "latent_prior.yaml"
    config.write_text("name: mine\n")
    with pytest.raises(ValueError, match="latent_prior.yaml.*edited"):
        unlink(checkout)
    assert config.read_text() == "name: mine\n"


def test_a_link_of_a_clone_that_moved_is_replaced(checkout, tmp_path):
    (checkout / "custom").mkdir()
    (checkout / "custom" / "latent_prior").symlink_to(tmp_path / "gone")
    link(checkout)
    assert (checkout / "custom" / "latent_prior").resolve() == PACKAGE


def test_a_folder_that_is_no_threestudio_is_refused_in_one_line(tmp_path, capsys):
    assert cli.main(["link", str(tmp_path)]) == 2
    assert "not threestudio's checkout" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_commands(checkout, capsys):
    assert cli.main(["link", str(checkout)]) == 0
    assert "python launch.py --config custom/latent_prior.yaml --train" in capsys.readouterr().out
    assert cli.main(["link", str(checkout), "--remove"]) == 0
    assert "removed" in capsys.readouterr().out


def test_threestudios_loader_imports_it_under_its_own_name(checkout):
    """As its `load_custom_module` does: from a file, under the folder's base name, into sys.modules first."""
    link(checkout)
    code = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("latent_prior", "custom/latent_prior/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules["latent_prior"] = module
spec.loader.exec_module(module)
import latent_prior.prior
assert latent_prior.prior.__file__.endswith("prior/__init__.py")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
