"""Every test runs on the embedded host, on the CPU, without network, with shapes in signatures checked at run time."""

import os
import random
import signal
import sys
from pathlib import Path

# in the background of a script and under nohup signals are ignored, and what the tests start would inherit it
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.update(LATENT_PRIOR_HOST="embedded", LATENT_PRIOR_DEVICE="cpu", HF_HUB_OFFLINE="1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "custom")]

import reference.typecheck  # noqa: E402, F401
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("latent_prior", "reference.typecheck.checked")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from browser import chromium  # noqa: E402, F401
from tiny_checkpoints import GEOMETRIES, write_checkpoint  # noqa: E402


@pytest.fixture(autouse=True)
def same_numbers():
    """Every test draws the same random numbers, on every machine and in every order."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """One checkpoint folder per geometry."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {geometry: write_checkpoint(root / name, geometry) for name, geometry in GEOMETRIES.items()}


@pytest.fixture(scope="session")
def pocket_like(folders):
    """The checkpoint folder shaped like the pocket prior."""
    return folders[GEOMETRIES["pocket"]]


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory) -> Path:
    """A random checkpoint of the pocket prior's shape, a few kilobytes small."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "prior", GEOMETRIES["pocket"])
