"""`latent-prior doctor`: what is there, what is missing and what mends it; exit code 1 if the host cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from latent_prior.cli import doctor
from latent_prior.cli.doctor import BROKEN, MISSING, OK, OLD, Row, package_row, report


def package(**fields):
    return doctor._Package(**{"module": "trimesh", "distribution": "trimesh", "needed_for": "meshes"} | fields)


@pytest.fixture(autouse=True)
def asked_for(monkeypatch):
    """What setup.py asks for, as an installed package says it."""
    lines = ["trimesh>=4.5", 'no-such-thing>=4.5; extra == "dev"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: lines)
    doctor.requirements.cache_clear()
    yield lines
    doctor.requirements.cache_clear()


def test_a_package_that_is_there():
    row = package_row(package())
    assert row.state == OK and row.found and not row.mend


def test_a_package_that_is_missing_too_old_or_broken(tmp_path, monkeypatch, asked_for):
    row = package_row(package(module="no_such_module", distribution="no-such-thing"))
    assert (row.state, row.mend) == (MISSING, 'pip install "no-such-thing>=4.5"')
    row = package_row(package(module="no_such_module", distribution="nobody-asks-for-it"))
    assert (row.state, row.mend) == (MISSING, "pip install nobody-asks-for-it")
    asked_for[0] = "trimesh>=9999"
    doctor.requirements.cache_clear()
    row = package_row(package())
    assert (row.state, row.mend) == (OLD, 'pip install "trimesh>=9999"') and row.found
    (tmp_path / "broken_module.py").write_text("raise OSError('no driver')")
    monkeypatch.syspath_prepend(str(tmp_path))
    row = package_row(package(module="broken_module"))
    assert row.state == BROKEN and "no driver" in row.found


def test_what_is_asked_for_is_setup_pys(monkeypatch):
    """One list of versions: every package of the report but tomesd, which no extra has, is in setup.py."""
    monkeypatch.undo()
    doctor.requirements.cache_clear()
    text = (Path(__file__).parents[2] / "setup.py").read_text()
    for name, requirement in doctor.requirements().items():
        extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
        assert f'"{name}{extras}{requirement.specifier}' in text or f'"{name}"' in text, name
    assert {p.distribution for p in doctor.OURS} - set(doctor.requirements()) in (
        {"tomesd"},
        {p.distribution for p in doctor.OURS},  # a clone that is not installed
    )


def test_the_report_names_what_mends_each_row():
    text = report(
        "embedded", [Row("torch", OK, "2.6", "everything"), Row("peft", MISSING, "", "LoRA", "pip install peft")]
    )
    assert "✓ torch" in text and "- peft" in text and "pip install peft" in text and text.endswith("Host: embedded")


def run(*arguments, **environment):
    package_root = str(Path(doctor.__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": package_root, **environment}
    return subprocess.run(
        [sys.executable, "-m", "latent_prior", "doctor", *arguments], env=env, capture_output=True, text=True
    )


def test_on_this_machine_the_embedded_host_can_run():
    done = run("--host", "embedded")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Host: embedded" in done.stdout and "diffusers" in done.stdout


@pytest.mark.slow
def test_a_host_that_cannot_run_is_exit_code_1(tmp_path):
    done = run("--host", "threestudio", str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "holds no threestudio" in done.stdout and "Host: none" in done.stdout


@pytest.mark.skipif(not os.environ.get("THREESTUDIO_ROOT"), reason="THREESTUDIO_ROOT names no checkout of threestudio")
def test_with_threestudio_its_missing_packages_are_named():
    done = run("--host", "threestudio", os.environ["THREESTUDIO_ROOT"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Host: threestudio" in done.stdout
    try:
        import tinycudann  # noqa: F401
    except Exception:
        assert "tinycudann" in done.stdout and "stand-in, with our encodings in plain torch" in done.stdout
    try:
        import nvdiffrast  # noqa: F401
    except ImportError:
        row = next(line for line in done.stdout.splitlines() if "nvdiffrast" in line)
        assert row.endswith("missing: ours, in plain torch")
