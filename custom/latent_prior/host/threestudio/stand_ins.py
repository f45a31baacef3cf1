"""Stand-ins for packages that threestudio imports at module level and that a machine without CUDA lacks.

A stand-in can only be imported and its names bound: calling one, or making an instance or a subclass, raises
MissingPackage with the package, what threestudio needs it for, and the command that installs it. Stand-ins serve only
imports in threestudio's own files and envlight's, and only if no finder knows the package; so installed packages are
never replaced, and no other library mistakes a stand-in for the package.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any


class MissingPackage(ImportError):
    """A package that is not installed was used."""


@dataclass(frozen=True)
class Package:
    """A package that threestudio imports: its use, how to install it, calls that do nothing if it is missing, and what
    serves in its place then."""

    feature: str
    install: str
    without_effect: tuple[str, ...] = ()
    in_its_place: str = "stand-in"


PACKAGES = {
    "tinycudann": Package(
        "fused networks and faster hash grids",
        "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch  (needs CUDA's compiler)",
        without_effect=("free_temporary_memory",),
        in_its_place="stand-in, with our encodings in plain torch",
    ),
    "nvdiffrast": Package(
        "rasterised meshes at speed (magic3d's fine stage, fantasia3d, textured export by mesh-exporter)",
        "pip install git+https://github.com/NVlabs/nvdiffrast.git  (needs CUDA's compiler)",
        in_its_place="ours, in plain torch",
    ),
    "envlight": Package(
        "pbr-material's light with finer maps",
        "pip install envlight  (needs CUDA's compiler and nvdiffrast)",
        in_its_place="ours, in plain torch",
    ),
    "igl": Package("latentnerf-system's guide_shape", "pip install libigl"),
    "pysdf": Package("shape_init from a mesh", "pip install pysdf"),
    "controlnet_aux": Package("ControlNet guidance", "pip install controlnet_aux"),
    "cv2": Package("pictures and videos written by threestudio's saver", "pip install opencv-python-headless"),
    "torchvision": Package("perceptual losses and data sets of photographs", "pip install torchvision"),
    "mcubes": Package("the isosurface mc-cpu", "pip install PyMCubes"),
    "einops": Package("the GAN of control4d and zero123", "pip install einops"),
    "kornia": Package("zero123's picture encoder", "pip install kornia"),
    "taming": Package("zero123's autoencoder", "pip install taming-transformers-rom1504"),
    "clip": Package("zero123's picture encoder", "pip install git+https://github.com/openai/CLIP.git"),
    "IPython": Package("zero123's notebook", "pip install ipython"),
    "typeguard": Package("--typecheck", "pip install typeguard"),
    "tomesd": Package("token merging in threestudio's own guidances", "pip install tomesd"),
    "wandb": Package("logging to Weights & Biases", "pip install wandb"),
    "xatlas": Package("textured export by mesh-exporter", "pip install xatlas"),
    "bitsandbytes": Package("8-bit optimisers", "pip install bitsandbytes"),
}


class _StandIn:
    """Any name in a missing package."""

    def __init__(self, path: str):
        self.__dict__["_path"] = path

    def __getattr__(self, name: str) -> "_StandIn":
        if name.startswith("__"):  # looked up by Python itself: missing, as on any object
            raise AttributeError(name)
        return _StandIn(f"{self._path}.{name}")

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise MissingPackage(message(self._path))

    __call__ = __getitem__ = __enter__ = __mro_entries__ = __setattr__ = _refuse

    def __repr__(self) -> str:
        return f"<stand-in for {self._path}>"


class _StandInModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        package = PACKAGES[self.__name__.split(".")[0]]
        if name in package.without_effect:
            return lambda *args, **kwargs: None
        return _StandIn(f"{self.__name__}.{name}")


def message(path: str) -> str:
    """One line about a name in a missing package, such as `nvdiffrast.torch.RasterizeGLContext`."""
    package = path.split(".")[0]
    known = PACKAGES[package]
    return f"{path} was used, but {package} is not installed; threestudio needs it for {known.feature}. {known.install}"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in when no other finder has the module, for an import statement in one of these packages' files."""

    ASKERS = ("threestudio", "extern", "envlight")  # extern: threestudio's copies of other projects

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] in PACKAGES and _asking_package() in self.ASKERS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _asking_package() -> str:
    """The package whose file holds the current import statement: the caller of importlib's frames."""
    frame, inside = sys._getframe(1), False
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if inside and not name.startswith("importlib"):
            return name.split(".")[0]
        inside = inside or name.startswith("importlib")
        frame = frame.f_back
    return ""


@contextmanager
def installed() -> Iterator[list[str]]:
    """Provide stand-ins for missing packages while importing threestudio; yields the list of packages that got one.

    Afterwards they are removed from `sys.modules`, where other libraries would find them, and a later import of a
    missing package fails as usual.
    """
    finder, names = _Finder(), []
    sys.meta_path.append(finder)
    try:
        yield names
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandInModule):
                del sys.modules[name]
                if "." not in name:
                    names.append(name)
