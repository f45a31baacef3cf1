"""What threestudio is given of ours when it is brought in, by what the machine has. A package of two files plays it."""

import sys

import pytest
import torch
from latent_prior import rasteriser
from latent_prior.host import threestudio as threestudio_host
from latent_prior.host.embedded.misc import get_device
from latent_prior.host.threestudio import environment_light

PARTS = """
import envlight
import nvdiffrast.torch as dr

def get_device():
    return "theirs"
"""


@pytest.mark.parametrize(
    "installed, cuda, replaced",
    [
        (("nvdiffrast", "envlight"), True, set()),
        (("nvdiffrast", "envlight"), False, {"get_device", "dr", "envlight"}),
        (("nvdiffrast",), True, {"envlight"}),
        (("envlight",), True, {"dr", "envlight"}),
        ((), True, {"dr", "envlight"}),
        ((), False, {"get_device", "dr", "envlight"}),
    ],
)
def test_ours_replace_what_cannot_run_and_nothing_else(installed, cuda, replaced, tmp_path, monkeypatch):
    packages = {"threestudio/__init__.py": "from threestudio import parts\n", "threestudio/parts.py": PARTS}
    if "nvdiffrast" in installed:
        packages |= {"nvdiffrast/__init__.py": "", "nvdiffrast/torch.py": ""}
    if "envlight" in installed:
        packages["envlight/__init__.py"] = "import nvdiffrast.torch as dr\n"
    for path, text in packages.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    names = ("threestudio", "nvdiffrast", "envlight")
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(threestudio_host, "_absent", ())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setenv("THREESTUDIO_ROOT", str(tmp_path))
    try:
        assert set(threestudio_host.bring_in()) == {"nvdiffrast", "envlight"} - set(installed)
        parts = sys.modules["threestudio.parts"]
        ours = {"get_device": get_device, "dr": rasteriser, "envlight": environment_light}
        assert {name for name, value in ours.items() if getattr(parts, name) is value} == replaced
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(kept)
