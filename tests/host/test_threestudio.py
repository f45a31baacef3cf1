"""The embedded host against threestudio's own source: the same seed, the same bits.

Only the files in question are loaded, in a process of their own, with empty stand-ins for the packages that they import
but do not use here.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latent_prior.host.embedded.base import BaseObject
from latent_prior.host.embedded.cameras import RandomCameraDataModule
from latent_prior.host.embedded.prompts import PromptProcessor
from latent_prior.host.embedded.scalars import C, C_max

pytestmark = pytest.mark.skipif(
    not os.environ.get("THREESTUDIO_ROOT"), reason="THREESTUDIO_ROOT names no checkout of threestudio"
)

CAMERAS = {
    "plain": {"batch_size": 4, "height": 8, "width": 6},
    "free": {"batch_size": 2, "height": 5, "width": 5, "batch_uniform_azimuth": False},
    "progressive": {
        "batch_size": [5, 2],
        "height": [4, 8],
        "width": [4, 8],
        "resolution_milestones": [3],
        "progressive_until": 5,
        "elevation_range": [-10, 45],
        "rays_d_normalize": False,
    },
}
EVAL = {"eval_height": 6, "eval_width": 4, "n_val_views": 4, "n_test_views": 7}
SCHEDULES = [
    3,
    0.5,
    [1.0, 5.0, 10],
    [2, 1.0, 5.0, 10],
    [0, 1.0, 2.0, 3.0],
    [0, 5000, 1e4, 2, 2e5, 8],
    [0, 1.0, 3.0, 4, 2.0, 8, 9.0, 9],
]
ANGLES = [
    [0.0, 0.0],
    [0.0, 30.0],
    [20.0, -44.9],
    [0.0, 100.0],
    [59.0, 135.1],
    [0.0, -179.0],
    [61.0, 10.0],
    [0.0, 300.0],
]

PRELUDE = """
import sys, types, logging, importlib.abc, importlib.machinery
from unittest.mock import MagicMock
import jaxtyping, torch  # the former asks for typeguard's version, which a stand-in lacks

ABSENT = {"tinycudann", "igl", "transformers", "typeguard"}

class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__, module.__loader__ = [], spec, spec.name, self
        return module
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, StandIns())
root = sys.argv[1]
for name in ("threestudio", "threestudio.data", "threestudio.models", "threestudio.models.prompt_processors"):
    package = types.ModuleType(name)
    package.__path__ = [f"{root}/" + name.replace(".", "/")]
    sys.modules[name] = package
threestudio = sys.modules["threestudio"]
threestudio.register = lambda name: lambda cls: cls
threestudio.info = threestudio.warn = threestudio.debug = lambda *args: None
import threestudio.utils.base
threestudio.utils.base.get_device = lambda: torch.device("cpu")
from threestudio.data.uncond import RandomCameraDataModule
from threestudio.models.prompt_processors.base import PromptProcessor
from threestudio.utils.base import BaseObject
from threestudio.utils.config import C_max
from threestudio.utils.misc import C
"""


def outcomes(RandomCameraDataModule, PromptProcessor, BaseObject, C, C_max, cases):
    """Everything compared, as plain data; runs here with our classes and in the other process with theirs."""
    import random

    import torch
    from omegaconf import OmegaConf

    cameras, evaluation, schedules, angles = cases
    out = {}
    for name, cfg in cameras.items():
        module = RandomCameraDataModule(OmegaConf.create({**cfg, **evaluation}))
        module.setup()
        random.seed(7)
        torch.manual_seed(7)
        stream = iter(module.train_dataloader())
        batches = []
        for step in range(6):
            batches.append(next(stream))
            module.train_dataset.update_step(0, step)
        out[name] = batches
        out[name + "-val"] = list(module.val_dataloader())
        out[name + "-test"] = list(module.test_dataloader())
    wrap = [OmegaConf.create({"x": schedule}).x for schedule in schedules]
    out["C"] = [[C(value, epoch, step) for epoch in range(3) for step in range(12)] for value in wrap]
    out["C_max"] = [C_max(value) for value in wrap]

    class Prompts(PromptProcessor):
        def prepare_text_embeddings(self):
            pass

        def load_from_cache(self, prompt):
            generator = torch.Generator().manual_seed(sum(map(ord, prompt)))
            return torch.randn(3, 5, generator=generator)

    elevation, azimuth = torch.tensor(angles).T
    for front in (False, True):
        prompts = Prompts({"prompt": "a red mug", "negative_prompt": "ugly", "view_dependent_prompt_front": front})
        output = prompts()
        out[f"prompts-{front}"] = {
            "texts": output.prompts_vd,
            "plain": output.get_text_embeddings(elevation, azimuth, elevation, False),
            "views": output.get_text_embeddings(elevation, azimuth, elevation),
            "perp": list(output.get_text_embeddings_perp_neg(elevation, azimuth, elevation)),
        }
    return out


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    import inspect

    folder = tmp_path_factory.mktemp("threestudio")
    cases = (CAMERAS, EVAL, SCHEDULES, ANGLES)
    call = "outcomes(RandomCameraDataModule, PromptProcessor, BaseObject, C, C_max, cases)"
    script = folder / "theirs.py"
    script.write_text(f"{PRELUDE}\n{inspect.getsource(outcomes)}\ncases = {cases!r}\ntorch.save({call}, sys.argv[2])\n")
    root = str(Path(os.environ["THREESTUDIO_ROOT"]).resolve())
    done = subprocess.run(
        [sys.executable, str(script), root, str(folder / "theirs.pt")], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    theirs = torch.load(folder / "theirs.pt", weights_only=True)
    state = random.getstate(), torch.get_rng_state()
    ours = outcomes(RandomCameraDataModule, PromptProcessor, BaseObject, C, C_max, cases)
    random.setstate(state[0])
    torch.set_rng_state(state[1])
    return ours, theirs


@pytest.mark.parametrize("name", [name + kind for name in CAMERAS for kind in ("", "-val", "-test")])
def test_cameras_agree_to_the_bit(both, name):
    ours, theirs = both[0][name], both[1][name]
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.keys() == its.keys()
        for key in mine:
            torch.testing.assert_close(mine[key], its[key], rtol=0, atol=0, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", ["C", "C_max"])
def test_schedules_agree(both, name):
    assert both[0][name] == both[1][name]


@pytest.mark.parametrize("front", [False, True])
def test_prompts_agree(both, front):
    ours, theirs = both[0][f"prompts-{front}"], both[1][f"prompts-{front}"]
    assert ours["texts"] == theirs["texts"]
    for key in ("plain", "views", "perp"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-6, atol=1e-6)
