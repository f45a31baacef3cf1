"""Pickles with the byte stream of NVIDIA's: the same globals, and source code that must never run."""

import pickle
import sys
from collections import OrderedDict
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch

SOURCE = "raise SystemExit('the source code in the pickle has been run')"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("only named, never called")


class EasyDict(dict):
    pass


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
EasyDict.__module__ = "dnnlib.util"


@contextmanager
def nvidia_modules():
    """The two modules that NVIDIA's pickles name, for as long as one is written."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    modules = {name: ModuleType(name) for name in names}
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    modules["dnnlib.util"].EasyDict = EasyDict
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class Network:
    """Pickled as NVIDIA's persistent classes are."""

    def __init__(self, parameters=(), buffers=(), networks=(), version=6):
        state = {"training": False, "_parameters": OrderedDict(parameters), "_buffers": OrderedDict(buffers)}
        state |= {"_non_persistent_buffers_set": set(), "_backward_hooks": OrderedDict()}
        state |= {"_modules": OrderedDict(networks), "weight_gain": np.float64(0.25), "_init_args": ()}
        state |= {"_init_kwargs": EasyDict(z_dim=16, mapping_kwargs=EasyDict(num_layers=2))}
        self.meta = {"type": "class", "version": version, "module_src": SOURCE, "class_name": "G", "state": state}

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def network(state, learned):
    """The nested networks of a flat state dict; `learned` names the parameters among it."""

    def level(prefix):
        names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
        here = [name for name in names if "." not in name]
        parameters = {n: torch.nn.Parameter(state[prefix + n]) for n in here if prefix + n in learned}
        buffers = {n: state[prefix + n] for n in here if prefix + n not in learned}
        inner = dict.fromkeys(name.split(".")[0] for name in names if "." in name)
        return Network(parameters, buffers, {name: level(f"{prefix}{name}.") for name in inner})

    return level("")


def dumped(content, protocol=4):
    with nvidia_modules():
        return pickle.dumps(content, protocol=protocol)


def snapshot(generator, protocol=4):
    """The bytes of a `network-snapshot-*.pkl`, whose G and D are other networks than G_ema."""
    other = Network({"weight": torch.nn.Parameter(torch.ones(2, 2))})
    learned = {name for name, _ in generator.named_parameters()}
    content = {"G": other, "D": other, "G_ema": network(generator.state_dict(), learned)}
    return dumped(content | {"augment_pipe": None, "training_set_kwargs": EasyDict(resolution=32)}, protocol)
