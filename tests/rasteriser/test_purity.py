"""What importing latent_prior.rasteriser brings along, looked at in fresh interpreters."""

import os
import subprocess
import sys
from pathlib import Path

import latent_prior

# Prints the modules that `statement` should not have loaded.
CHECKER = """
import sys
import torch, jaxtyping, numpy
before = set(sys.modules)
{statement}
allowed = {{"torch", "numpy", *sys.stdlib_module_names}}
for name in sorted(set(sys.modules) - before - {{"latent_prior"}}):
    if name.partition(".")[0] not in allowed and not name.startswith("latent_prior.rasteriser"):
        print("not allowed:", name)
"""


def run(statement):
    environment = {**os.environ, "PYTHONPATH": str(Path(latent_prior.__file__).parents[1])}
    code = CHECKER.format(statement=statement)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)


def test_the_rasteriser_imports_torch_and_numpy_alone():
    done = run("import latent_prior.rasteriser")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_checker_can_fail():
    found = run("import latent_prior.rasteriser, latent_prior.metrics, omegaconf").stdout
    assert "not allowed: latent_prior.metrics\n" in found and "not allowed: omegaconf\n" in found
