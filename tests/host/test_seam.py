"""The seam: which host is chosen, and that either one offers everything the plugin needs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from latent_prior import host

PACKAGE_ROOT = Path(host.__file__).parents[2]
CONTRACT = """NAME register find BaseObject BaseModule BaseSystem BaseLift3DSystem Exporter ExporterOutput PromptProcessor
Updateable C parse_structured load_config get_device find_last_path info warn""".split()
SHIPPED_TYPES = ["random-camera-datamodule", "volume-grid", "implicit-volume", "no-material", "solid-color-background"]

THREESTUDIO = os.environ.get("THREESTUDIO_ROOT")


@pytest.fixture(autouse=True)
def no_checkout(monkeypatch):
    """What is tested here must not depend on a checkout that the environment names."""
    monkeypatch.delenv("THREESTUDIO_ROOT", raising=False)


@pytest.fixture
def wish(monkeypatch):
    """Sets LATENT_PRIOR_HOST and hides any real threestudio from the choice."""
    for name in [name for name in sys.modules if name.split(".")[0] == "threestudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "threestudio").is_dir()])
    return lambda value: monkeypatch.setenv("LATENT_PRIOR_HOST", value)


def seam_imports():
    """What the seam takes from threestudio: {module: names}."""
    imports = {}
    for node in ast.walk(ast.parse(Path(host.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "threestudio":
            imports.setdefault(node.module, []).extend(alias.name for alias in node.names)
    return imports


@pytest.fixture
def fake_threestudio(tmp_path):
    """A package with the modules and names that the seam takes from threestudio, and nothing else."""
    for module, names in seam_imports().items():
        folder = tmp_path
        for part in module.split("."):
            folder = folder / part
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        body = "".join(f"class {name}:\n    pass\n" for name in names)
        (folder / "__init__.py").write_text(body)
    with open(tmp_path / "threestudio" / "__init__.py", "a") as file:
        file.write("__modules__ = {'their-type': int}\n")
    return tmp_path


def test_the_contract_is_exported():
    assert set(CONTRACT) <= set(host.__all__)
    assert all(hasattr(host, name) for name in host.__all__)


def test_shipped_types_are_registered():
    for name in SHIPPED_TYPES:
        assert isinstance(host.find(name), type)


@pytest.mark.parametrize("value, expected", [("embedded", "embedded"), ("auto", "embedded"), ("", "embedded")])
def test_without_threestudio_we_are_embedded(wish, value, expected):
    wish(value)
    assert host._choose() == expected


def test_asking_for_a_missing_threestudio_fails(wish):
    wish("threestudio")
    with pytest.raises(ValueError, match="LATENT_PRIOR_HOST .* is threestudio.*No module named 'threestudio'"):
        host._choose()


def test_a_folder_called_threestudio_is_not_it(wish, tmp_path, monkeypatch, recwarn):
    (tmp_path / "threestudio" / "threestudio").mkdir(parents=True)  # a clone beside the working directory
    monkeypatch.syspath_prepend(str(tmp_path))
    wish("auto")
    assert host._choose() == "embedded" and not recwarn.list


def test_unknown_host_is_refused(wish):
    wish("lightning")
    with pytest.raises(ValueError, match="LATENT_PRIOR_HOST .* must be auto, embedded or threestudio, got 'lightning'"):
        host._choose()


def test_auto_takes_threestudio_where_it_is(wish, fake_threestudio, monkeypatch):
    monkeypatch.syspath_prepend(str(fake_threestudio))
    wish("embedded")
    assert host._choose() == "embedded"
    wish("auto")
    try:
        assert host._choose() == "threestudio"
        assert host._choose() == "threestudio"  # now it is imported already
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "threestudio"]:
            del sys.modules[name]


@pytest.mark.parametrize(
    "fault", ["import a_cuda_package_that_is_missing", "raise OSError('a_cuda_package_that_is_missing')"]
)
def test_auto_passes_over_a_broken_threestudio_and_says_so(wish, tmp_path, monkeypatch, fault):
    (tmp_path / "threestudio").mkdir()
    (tmp_path / "threestudio" / "part.py").touch()
    (tmp_path / "threestudio" / "__init__.py").write_text(f"from . import part\n{fault}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    wish("auto")
    with pytest.warns(UserWarning, match="a_cuda_package_that_is_missing"):
        assert host._choose() == "embedded"
    assert not [name for name in sys.modules if name.split(".")[0] == "threestudio"]
    wish("threestudio")
    with pytest.raises(ValueError, match="a_cuda_package_that_is_missing"):
        host._choose()


def test_under_threestudio_its_own_classes_are_exported(fake_threestudio):
    code = """
from latent_prior import host
import sys
assert host.NAME == "threestudio"
assert all(hasattr(host, name) for name in host.__all__)
assert host.BaseSystem.__module__ == "threestudio.systems.base"
assert host.find("their-type") is int
try:
    host.find("their-tipe", "system.geometry_type")
except ValueError as error:
    assert "system.geometry_type: unknown type 'their-tipe'; did you mean 'their-type'" in str(error)
else:
    raise AssertionError("no error")
assert "latent_prior.host.embedded.cameras" not in sys.modules
"""
    path = os.pathsep.join([str(PACKAGE_ROOT), str(fake_threestudio)])
    environment = {**os.environ, "PYTHONPATH": path, "LATENT_PRIOR_HOST": "auto"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not THREESTUDIO, reason="THREESTUDIO_ROOT names no checkout of threestudio")
def test_the_real_threestudio_has_what_the_seam_imports():
    root = Path(THREESTUDIO)
    for module, names in seam_imports().items():
        path = root.joinpath(*module.split("."))
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        defined = set()
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                defined.add(node.name)
            elif isinstance(node, ast.Assign):
                defined.update(target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.ImportFrom):
                defined.update(alias.asname or alias.name for alias in node.names)
        assert set(names) <= defined, (module, set(names) - defined)
