"""Works of code_run.py, whose runs take milliseconds, and waiting for what happens in other processes."""

import time

import code_run
import pytest
from latent_prior.runs.sweep.work import Work


@pytest.fixture(autouse=True)
def code_runs(monkeypatch):
    """Commands of code_run.py can be run."""
    monkeypatch.setenv("PYTHONPATH", str(code_run.FOLDER))


@pytest.fixture
def work(tmp_path):
    """Makes the work of some code, for the run `name`."""

    def make(code, name="a", **given):
        return Work(
            code_run.command(code), tmp_path / "runs" / name, tmp_path / "launches" / "x" / f"{name}.json", **given
        )

    return make


@pytest.fixture
def until():
    """Waits for a condition."""

    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)

    return wait
