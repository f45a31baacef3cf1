"""Stand-ins: inert on import, a clear error on use, for threestudio's files only, and never in place of what is there."""

import importlib
import importlib.util
import re
import sys
import types

import pytest
from latent_prior.host.threestudio import refusal, stand_ins
from latent_prior.host.threestudio.stand_ins import MissingPackage, Package


@pytest.fixture
def asker(tmp_path, monkeypatch):
    """Writes a module `threestudio.asker` (or another name) with the given source, and imports it under stand-ins."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(stand_ins.PACKAGES, "absent_kernels", Package("fast grids", "pip install absent-kernels"))
    monkeypatch.setitem(
        stand_ins.PACKAGES, "absent_memory", Package("x", "pip install y", without_effect=("free_memory",))
    )
    known = set(sys.modules)

    def ask(source: str, package: str = "threestudio"):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "asker.py").write_text(source)
        importlib.invalidate_caches()
        with stand_ins.installed() as names:
            module = importlib.import_module(f"{package}.asker")
        return module, names

    yield ask
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_what_is_absent_can_be_imported_and_named(asker):
    module, names = asker(
        "import absent_kernels as k\nimport absent_kernels.torch as dr\nfrom absent_kernels import Grid, sample\n"
        "Alias = k.sub.Thing\n"
    )
    assert names == ["absent_kernels"]
    assert "absent_kernels.sub.Thing" in repr(module.Alias)


@pytest.mark.parametrize(
    "use",
    [
        "asker.k.Grid(3)",
        "asker.dr.Context()",
        "asker.Grid.from_file('x')",
        "types.new_class('Mine', (asker.Grid,))",  # what a class statement does
        "asker.Grid[0]",
        "asker.Grid.__enter__()",
    ],
)
def test_use_says_what_is_missing_what_for_and_how_to_get_it(asker, use):
    module, _ = asker(
        "import absent_kernels as k\nimport absent_kernels.torch as dr\nfrom absent_kernels import Grid\n"
    )
    with pytest.raises(MissingPackage, match=r"absent_kernels.*fast grids.*pip install absent-kernels"):
        eval(use, {"asker": module, "types": types})


def test_calls_with_nothing_to_do_are_let_through(asker):
    module, _ = asker("import absent_memory")
    assert module.absent_memory.free_memory() is None
    with pytest.raises(MissingPackage):
        module.absent_memory.allocate()


def test_envlight_gets_stand_ins_too_or_threestudio_could_not_import_it(asker):
    assert asker("import absent_kernels", package="envlight")[1] == ["absent_kernels"]


def test_only_threestudio_gets_stand_ins(asker):
    with pytest.raises(ModuleNotFoundError, match="absent_kernels"):
        asker("import absent_kernels", package="somebody_else")


def test_other_libraries_looking_for_the_package_find_nothing(asker):
    _, names = asker("import absent_kernels")
    assert names == ["absent_kernels"]
    assert "absent_kernels" not in sys.modules
    assert importlib.util.find_spec("absent_kernels") is None


def test_what_is_installed_is_never_replaced(asker, monkeypatch):
    monkeypatch.setitem(stand_ins.PACKAGES, "trimesh", Package("meshes", "pip install trimesh"))
    module, names = asker("import trimesh\nimport absent_kernels")
    assert names == ["absent_kernels"]
    assert module.trimesh.creation.box().is_watertight


def test_packages_that_nobody_knows_stay_missing(asker):
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        asker("import no_such_thing")


@pytest.mark.parametrize(
    "error, said",
    [
        (FileNotFoundError(2, "No such file", "load/tets/128_tets.npz"), "no load/tets/128_tets.npz in .*checkout"),
        (ModuleNotFoundError("No module named 'pysdf'", name="pysdf"), "pysdf is not installed.*pip install pysdf"),
        (FileNotFoundError(2, "No such file", "ours/file"), None),
        (ModuleNotFoundError("No module named 'ours'", name="ours"), None),
    ],
)
def test_what_threestudio_misses_only_when_it_runs_is_named_too(error, said):
    refused = refusal(error)
    assert refused is None if said is None else re.search(said, str(refused))
