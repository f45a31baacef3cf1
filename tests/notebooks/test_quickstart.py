"""notebooks/quickstart.ipynb runs from top to bottom, with few steps, and is committed without outputs."""

import os
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra notebook")
nbclient = pytest.importorskip("nbclient", reason="needs the extra notebook")

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
SMALL = "data.n_test_views=4 system.exporter.texture_size=64"


def test_it_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 8 and not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    values = {"PAINT_STEPS": "4", "MESH_STEPS": "3", "TEXTURE_STEPS": "3", "SETTINGS": SMALL, "OUT": "made"}
    path = os.pathsep.join([str(NOTEBOOK.parents[1] / "custom"), os.environ.get("PYTHONPATH", "")])
    for name, value in {**values, "PYTHONPATH": path}.items():
        monkeypatch.setenv(name, value)
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, 4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for run in ("mug", "golden"):
        assert (tmp_path / "made" / "meshes" / run / "report.html").stat().st_size > 100_000
    assert "meshes/golden/report.html" in (tmp_path / "made" / "report.html").read_text()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 3


@pytest.mark.slow
def test_a_command_that_fails_stops_it(tmp_path):
    notebook = nbformat.read(NOTEBOOK, 4)
    notebook.cells = [nbformat.v4.new_code_cell("%%bash\npython -m latent_prior paint ' '")]
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}}).execute()
