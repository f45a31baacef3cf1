"""What importing latent_prior.prior brings along, looked at in fresh interpreters."""

import os
import subprocess
import sys
from pathlib import Path

import latent_prior
import pytest

PACKAGE_ROOT = Path(latent_prior.__file__).parents[1]
TESTS = Path(__file__).parents[1]

# Exits with 0, or with 1 and the name of the first module that `statement` should not have loaded. torch and jaxtyping
# (our annotations) come first, so that what they pull in is not held against the statement.
CHECKER = """
import sys
import torch, jaxtyping
before = set(sys.modules)
{statement}
forbidden = (
    "diffusers", "transformers", "lightning", "pytorch_lightning", "omegaconf", "threestudio", "nerfacc", "PIL",
    "latent_prior.host", "latent_prior.models", "latent_prior.guidance", "latent_prior.systems",
    "latent_prior.stylegan2", "latent_prior.meshes", "latent_prior.rendering", "latent_prior.editing",
    "latent_prior.pocket", "latent_prior.registration",
)
for name in sorted(sys.modules):
    if any(name == f or name.startswith(f + ".") for f in forbidden):
        sys.exit("forbidden: " + name)
for name in sorted(set(sys.modules) - before):
    if name.partition(".")[0] not in {{"latent_prior", "torch", *sys.stdlib_module_names}}:
        sys.exit("neither torch nor standard library: " + name)
"""


def run(code):
    path = os.pathsep.join([str(PACKAGE_ROOT), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)


def test_prior_imports_torch_and_standard_library_only():
    result = run(CHECKER.format(statement="import latent_prior.prior"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("statement", "culprit"),
    [
        ("import latent_prior.prior, omegaconf", "forbidden: omegaconf"),
        ("import latent_prior.prior, pytest", "neither torch nor standard library: _pytest"),
    ],
)
def test_the_checker_can_fail(statement, culprit):
    result = run(CHECKER.format(statement=statement))
    assert result.returncode == 1
    assert culprit in result.stderr


# In a subprocess, so that it holds whichever test imported the package first.
SHAPES = """
import reference.typecheck
from jaxtyping import TypeCheckError, install_import_hook
install_import_hook("latent_prior.prior", "reference.typecheck.checked")
import torch
from latent_prior.prior import DiffusionSchedule, PriorLosses, fm_loss, kl_loss, lsd_loss, perp_neg, weighting

v, w, t = torch.randn(2, 4, 3, 3), torch.ones(2, 1, 1, 1), torch.tensor([10, 20])
schedule = DiffusionSchedule.scaled_linear(0.00085, 0.012, 1000)
lsd_loss(v, v, weighting("sds", schedule, t))
perp_neg(v, v, v[:, None], torch.zeros(2, 1), 10)
fm_loss(lambda x: [x, x[..., :2]], v, v, v, "denoised")
PriorLosses(None, None, kl_loss(v), t, v, v, v, v, v, v).total({"kl": 1})

wrong = [
    lambda: lsd_loss(v, v[:1], w),
    lambda: lsd_loss(v, v, w.flatten()),
    lambda: kl_loss(v[0]),
    lambda: perp_neg(v, v, v[:, None], torch.zeros(2, 3), 10.0),
    lambda: weighting("sds", schedule, t.float()),
    lambda: PriorLosses(None, None, None, t[:1], v, v, v, v, v, v),
]
for i, call in enumerate(wrong):
    try:
        call()
    except TypeCheckError:
        continue
    raise SystemExit(f"wrong call {i} went through")
"""


def test_shapes_in_signatures_hold_at_run_time():
    result = run(SHAPES)
    assert result.returncode == 0, result.stderr
