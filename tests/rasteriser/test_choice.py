"""nvdiffrast takes tensors on CUDA where it is installed, with every argument in its place; torch takes the rest."""

import inspect
import sys
from types import ModuleType

import pytest
import torch
from latent_prior import rasteriser
from reference.clip_meshes import octahedron, seen

# the arguments of nvdiffrast 0.4's operations, in order
ARGUMENTS = {
    "rasterize": ("glctx", "pos", "tri", "resolution", "ranges", "grad_db"),
    "interpolate": ("attr", "rast", "tri", "rast_db", "diff_attrs"),
    "antialias": ("color", "rast", "pos", "tri", "topology_hash", "pos_gradient_boost"),
    "antialias_construct_topology_hash": ("tri",),
    "texture": ("tex", "uv", "uv_da", "mip_level_bias", "mip", "filter_mode", "boundary_mode", "max_mip_level"),
    "texture_construct_mip": ("tex", "max_mip_level", "cube_mode"),
}


class OnCuda(torch.Tensor):
    is_cuda = property(lambda self: True)


def cuda(*shape):
    return torch.zeros(shape).as_subclass(OnCuda)


@pytest.fixture
def calls(monkeypatch):
    """(name, arguments) of every call of a module in nvdiffrast's place."""
    package, operations, calls = ModuleType("nvdiffrast"), ModuleType("nvdiffrast.torch"), []
    for name in ARGUMENTS:

        def call(*args, name=name):
            calls.append((name, args))
            return (args[1], args[1]) if name in ("rasterize", "interpolate") else args[0]

        setattr(operations, name, call)
    operations.RasterizeCudaContext = lambda device: ("context", device)
    package.torch = operations
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", operations)
    return calls


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_are_nvdiffrasts_and_arrive(name, calls):
    function = getattr(rasteriser, name)
    assert tuple(inspect.signature(function).parameters) == ARGUMENTS[name]
    special = {
        "glctx": rasteriser.RasterizeGLContext(device="cuda"),
        "resolution": (3, 4),
        "grad_db": False,
        "diff_attrs": [1, 0],
        "pos_gradient_boost": 2.0,
        "filter_mode": "nearest",
        "boundary_mode": "zero",
        "max_mip_level": 3,
        "cube_mode": True,
    }
    given = [special.get(argument, cuda(1)) for argument in ARGUMENTS[name]]
    function(*given)
    ((found, args),) = calls
    if name == "rasterize":
        given[0] = given[0].of_nvdiffrast
        assert given[0] == ("context", given[1].device)
    assert found == name and all(a is b for a, b in zip(args, given, strict=True))


def test_a_context_is_made_once(calls):
    context = rasteriser.RasterizeCudaContext()
    for _ in range(2):
        rasteriser.rasterize(context, cuda(1), cuda(1), (1, 1))
    assert calls[0][1][0] is calls[1][1][0]


def test_tensors_elsewhere_never_reach_nvdiffrast(calls):
    vertices, tri = octahedron()
    rast, _ = rasteriser.rasterize(rasteriser.RasterizeCudaContext("cpu"), seen(vertices, [0.3]), tri, (4, 4))
    assert rast.max() > 1 and not calls


def test_without_nvdiffrast_tensors_on_cuda_are_treated_too():
    vertices, tri = octahedron()
    pos = seen(vertices, [0.3])
    on_cuda = pos.as_subclass(OnCuda)
    rast, _ = rasteriser.rasterize(rasteriser.RasterizeCudaContext(), on_cuda, tri, (4, 4))
    torch.testing.assert_close(
        rast.as_subclass(torch.Tensor), rasteriser.rasterize(rasteriser.RasterizeCudaContext(), pos, tri, (4, 4))[0]
    )
