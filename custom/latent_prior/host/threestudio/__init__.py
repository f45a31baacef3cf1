"""Importing threestudio from its checkout, also on a CPU.

On a machine without its CUDA packages, threestudio is imported with stand-ins (stand_ins.py), its `get_device` returns
the CPU, and what it takes from tiny-cuda-nn (encodings), nvdiffrast and envlight is replaced with ours in plain torch.
Where a GPU and the packages are present, nothing is changed.
"""

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from latent_prior import OptionError, options_under
from latent_prior.host.threestudio import stand_ins

ROOT_VARIABLE = "THREESTUDIO_ROOT"
NEEDED = ("cv2",)  # packages that may have stand-ins but that every run uses

_absent: tuple[str, ...] = ()


def root() -> str | None:
    """The checkout that THREESTUDIO_ROOT names, if any."""
    return os.path.expanduser(os.environ.get(ROOT_VARIABLE, "").strip()) or None


def is_there() -> bool:
    """Whether threestudio could be imported: already loaded, named by THREESTUDIO_ROOT, or installed."""
    if "threestudio" in sys.modules or root():
        return True
    spec = importlib.util.find_spec("threestudio")
    return spec is not None and spec.origin is not None  # without an origin it is just a folder of that name


def bring_in() -> tuple[str, ...]:
    """Import threestudio; returns the packages that got a stand-in.

    Raises OptionError if it is not found or cannot be imported; nothing half-imported is left behind.
    """
    global _absent
    if "threestudio" in sys.modules:
        return _absent
    folder = root()
    if folder is not None:
        if not (Path(folder) / "threestudio" / "__init__.py").is_file():
            raise OptionError.because(
                f"{ROOT_VARIABLE} (--threestudio) is {folder!r}, which holds no threestudio/__init__.py; expected the "
                "folder of threestudio's launch.py"
            )
        sys.path.insert(0, str(Path(folder).resolve()))
    import jaxtyping  # noqa: F401  # it asks for typeguard's version, which a stand-in lacks
    import torch

    from latent_prior import rasteriser
    from latent_prior.host.embedded.misc import get_device
    from latent_prior.host.threestudio import environment_light

    before = set(sys.modules)
    try:
        with stand_ins.installed() as absent:
            importlib.import_module("threestudio")
        for package in sorted(set(NEEDED) & set(absent)):
            raise stand_ins.MissingPackage(stand_ins.message(package))
    except Exception as error:  # tinycudann, for example, raises OSError without a GPU
        for name in set(sys.modules) - before:  # a second import would take the half-imported threestudio for all of it
            if name.split(".")[0] in ("threestudio", "extern"):
                del sys.modules[name]
        if folder is not None:
            sys.path.remove(str(Path(folder).resolve()))
        raise OptionError.because(
            f"threestudio cannot be imported: {type(error).__name__}: {error} (--host embedded does without it)"
        ) from error
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        _everywhere("get_device", get_device)  # theirs always returns cuda
    if "tinycudann" in absent:
        _encodings_in_plain_torch()
    if on_cpu or "nvdiffrast" in absent:
        _everywhere("dr", rasteriser)
    if on_cpu or {"nvdiffrast", "envlight"} & set(absent):  # envlight needs nvdiffrast
        _everywhere("envlight", environment_light)
    _absent = tuple(sorted(absent))
    return _absent


def _everywhere(name: str, value: Any) -> None:
    """Replace a name in every module of threestudio that has it."""
    for path, module in list(sys.modules.items()):
        if path.split(".")[0] == "threestudio" and name in vars(module):
            setattr(module, name, value)


def _encodings_in_plain_torch() -> None:
    """Give the stand-in for tinycudann an `Encoding`: grids and spherical harmonics, with the same arithmetic."""
    import torch

    from latent_prior.host.embedded.misc import get_device
    from latent_prior.host.embedded.networks import TcnnEncoding

    networks = sys.modules["threestudio.models.networks"]

    def encoding(n_input_dims: int, config: Any, **kwargs) -> TcnnEncoding:
        with options_under("pos_encoding_config or dir_encoding_config: "):
            return TcnnEncoding(n_input_dims, dict(config))

    networks.tcnn.Encoding = encoding
    networks.get_rank = lambda: str(get_device())  # used as the device of the encodings and their masks
    if get_device().type == "cpu":
        no_change = _Changed(torch.cuda, device=lambda device: contextlib.nullcontext())
        networks.torch = _Changed(torch, cuda=no_change)


class _Changed(ModuleType):
    """A module as another module should see it: with some names replaced."""

    def __init__(self, module: ModuleType, **names: Any):
        super().__init__(module.__name__)
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def refusal(error: BaseException) -> OptionError | None:
    """An error of threestudio about user input, as an OptionError: an unknown config key, which is a TypeError of the
    dataclass it would belong to, the use of a package that is not installed, or the lack of one of its own files."""
    if isinstance(error, stand_ins.MissingPackage):
        return OptionError.because(str(error))
    if isinstance(error, ModuleNotFoundError) and error.name in stand_ins.PACKAGES:  # imported where it is used
        return OptionError.because(stand_ins.message(error.name))
    if isinstance(error, FileNotFoundError) and str(error.filename).startswith("load/"):
        return OptionError.because(
            f"there is no {error.filename} in {os.getcwd()}: threestudio reads its own files from the working directory, "
            "which should be its checkout (load/tets/generate_tets.py there makes grids of further resolutions)"
        )
    found = re.search(r"(?:(\w+)\.)?\w+\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if not isinstance(error, TypeError) or found is None:
        return None
    return OptionError.because(
        f"unknown config key {found[2]!r} for {found[1] or 'the experiment'}; see its Config in threestudio"
    )
