"""Imports run downwards: the contracts in pyproject.toml hold, and a single import upwards breaks them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = {"__init__.py", "__main__.py", "registration.py"}


def lint_imports(package_root: Path) -> subprocess.CompletedProcess:
    """import-linter's verdict on the package `latent_prior` below `package_root`."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", str(ROOT / "pyproject.toml")],
        env=os.environ | {"PYTHONPATH": str(package_root)},
        cwd=package_root,
        capture_output=True,
        text=True,
    )


def test_imports_run_downwards():
    done = lint_imports(ROOT / "custom")
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    "file, statement, contract",
    [
        ("metrics/pictures.py", "from latent_prior.models import clip", "Imports run downwards"),
        ("rasteriser/edges.py", "from latent_prior.prior import cfg", "Imports run downwards"),
        ("host/embedded/misc.py", "from latent_prior.runs import folder", "Imports run downwards"),
        ("runs/folder.py", "from latent_prior.cli import errors", "Imports run downwards"),
        ("meshes/mesh.py", "from latent_prior.stylegan2 import files", "Imports run downwards"),
        ("pocket/judge.py", "from latent_prior import host", "The pocket world"),
        ("prior/kl.py", "import numpy", "The formulas"),
    ],
)
def test_an_import_upwards_breaks_a_contract(tmp_path, file, statement, contract):
    shutil.copytree(
        ROOT / "custom" / "latent_prior",
        tmp_path / "latent_prior",
        ignore=lambda folder, names: [name for name in names if "." in name and not name.endswith(".py")],
    )
    with (tmp_path / "latent_prior" / file).open("a") as module:
        module.write(f"\n{statement}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert contract in done.stdout.split("Broken contracts")[1]


def test_nothing_else_lies_at_the_top_of_the_package():
    assert {path.name for path in (ROOT / "custom" / "latent_prior").glob("*.py")} == TOP
