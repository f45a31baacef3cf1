"""No mesh file, however odd, ends in a traceback, in gigabytes or in another program; refusals are one line each."""

from pathlib import Path

import pytest
from latent_prior import OptionError
from latent_prior.meshes import atlas, parts
from latent_prior.meshes.asset import Asset
from meshes import odd_meshes
from reliability.in_child import outcomes


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """The corpus, each in a folder of its own, and what is to become of it."""
    found = {}
    for number, (name, (data, result)) in enumerate(odd_meshes.corpus().items()):
        path = tmp_path_factory.mktemp(f"odd{number}") / name
        path.write_bytes(data)
        found[name] = (path, result)
    assert len(found) > 100
    return found


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_every_odd_mesh_is_read_or_refused_in_one_line(files, monkeypatch, step):
    monkeypatch.setattr(atlas, "XATLAS_FACES", 0)  # whose start would take most of the time
    for name, (path, result) in list(files.items())[::step]:
        try:
            odd_meshes.read_and_write(path)
            assert result == odd_meshes.READ, name
        except OptionError as error:
            text = str(error).replace(str(path.parent), "")
            assert result == odd_meshes.REFUSED, (name, text)
            assert text.startswith("system.geometry.mesh") and text.isprintable() and len(text) < 300, (name, text)


@pytest.mark.slow
def test_none_takes_long_or_much_memory_or_starts_a_program(files):
    found = outcomes([(name, odd_meshes.read_alone, path) for name, (path, _) in files.items()])
    faults = {outcome.name: outcome.faults(may_read=True, most=300 << 20) for outcome in found}
    assert {name: wrong for name, wrong in faults.items() if wrong} == {}


def test_what_is_no_file_of_a_mesh(tmp_path):
    (tmp_path / "folder").mkdir()
    for name, said in (
        ("none.glb", "system.geometry.mesh: there is no file .*none.glb"),
        ("folder", "system.geometry.mesh is '.*folder'; expected a mesh file or the folder of a run"),
        ("x" * 300 + ".glb", "system.geometry.mesh: there is no file"),
    ):
        with pytest.raises(OptionError, match=said):
            Asset.read(tmp_path / name)


def test_a_run_is_read_by_its_newest_export(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "parsed.yaml").touch()
    with pytest.raises(
        OptionError, match=rf"system.geometry.mesh: {tmp_path} has no exported GLB: latent-prior export"
    ):
        Asset.read(tmp_path)
    folder = tmp_path / "save" / "it100-export"
    folder.mkdir(parents=True)
    (folder / "model.glb").write_bytes(odd_meshes.three_nodes().to_glb())
    assert Asset.read(str(tmp_path)).path == folder / "model.glb"


def test_a_mesh_for_which_there_is_no_memory(tmp_path, monkeypatch):
    (tmp_path / "a.glb").write_bytes(odd_meshes.three_nodes().to_glb())
    monkeypatch.setattr(parts, "NUMBERS_PER_FACE", 1 << 40)
    with pytest.raises(OptionError, match="system.geometry.mesh=36 faces: needs 158.3 TB of memory or more, and"):
        Asset.read(tmp_path / "a.glb")
