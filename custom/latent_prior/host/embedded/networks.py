"""Encodings and small networks of the fields, under threestudio's config keys.

`get_encoding(n_input_dims, config)` and `get_mlp(n_input_dims, n_output_dims, config)` read `config["otype"]`:
    HashGrid, or Grid with `type: Hash`   a multiresolution grid, see hash_grid.py
    SphericalHarmonics (with `degree`)    directions given as (d + 1) / 2
    VanillaMLP                            linear layers without bias, ReLU between
Inputs lie in [0, 1]. Parameter names are threestudio's, so that a state dict loads on either host. The first two groups
use tiny-cuda-nn if it is installed and a GPU is present, otherwise plain torch on any device.
"""

import functools
import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from latent_prior import OptionError, options_under
from latent_prior.host.embedded.activations import get_activation
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.hash_grid import GridEncoding, grid_options, whole_number
from latent_prior.host.embedded.memory import require_memory

LAYER = 1000  # numbers that fit in the memory that the layer itself takes, as an object

# What an implicit field has unless its config says otherwise: threestudio's defaults.
HASH_GRID = {
    "otype": "HashGrid",
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 19,
    "base_resolution": 16,
    "per_level_scale": 1.447269237440378,
}
ONE_HIDDEN_LAYER = {
    "otype": "VanillaMLP",
    "activation": "ReLU",
    "output_activation": "none",
    "n_neurons": 64,
    "n_hidden_layers": 1,
}


@functools.cache
def use_tinycudann() -> bool:
    """Whether tiny-cuda-nn's kernels can run here."""
    return torch.cuda.is_available() and importlib.util.find_spec("tinycudann") is not None


class SphericalHarmonics(nn.Module):
    """Real spherical harmonics up to `degree` bands (1 to 4), of directions given as (d + 1) / 2.

    Ordered by band, then by order -l..l, with the Condon-Shortley sign, as tiny-cuda-nn orders them.
    """

    def __init__(self, n_input_dims: int, config: Mapping[str, Any]):
        super().__init__()
        self.degree = whole_number(config, "degree", 4, most=4)
        if n_input_dims != 3:
            raise OptionError(
                "otype", config["otype"], f"another encoding: this one needs 3 inputs, here {n_input_dims}"
            )
        self.n_input_dims, self.n_output_dims = 3, self.degree**2
        # tiny-cuda-nn has an empty tensor of this name; with it, checkpoints are compatible in both directions
        self.register_buffer("params", torch.zeros(0))

    def forward(self, x: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N F"]:
        x, y, z = (2 * x - 1).unbind(-1)
        c0, c1 = 0.5 / math.sqrt(math.pi), math.sqrt(3 / (4 * math.pi))
        values = [torch.full_like(x, c0), -c1 * y, c1 * z, -c1 * x]
        if self.degree > 2:
            c2 = math.sqrt(15 / math.pi)
            values += [c2 / 2 * x * y, -c2 / 2 * y * z, math.sqrt(5 / math.pi) / 4 * (3 * z * z - 1)]
            values += [-c2 / 2 * x * z, c2 / 4 * (x * x - y * y)]
        if self.degree > 3:
            a, b, c = (math.sqrt(k / math.pi) for k in (35 / 32, 105 / 4, 21 / 32))
            values += [a * y * (y * y - 3 * x * x), b * x * y * z, c * y * (1 - 5 * z * z)]
            values += [math.sqrt(7 / math.pi) / 4 * z * (5 * z * z - 3), c * x * (1 - 5 * z * z)]
            values += [b / 2 * z * (x * x - y * y), a * x * (3 * y * y - x * x)]
        return torch.stack(values[: self.degree**2], dim=-1)


class TcnnEncoding(nn.Module):
    """An encoding that tiny-cuda-nn supports: its kernels on a GPU, else ours in plain torch."""

    def __init__(self, n_input_dims: int, config: Mapping[str, Any]):
        super().__init__()
        self.n_input_dims = n_input_dims
        otype = str(config["otype"]).lower()
        is_grid = otype == "hashgrid" or (otype == "grid" and str(config.get("type", "Hash")).lower() == "hash")
        if not is_grid and otype != "sphericalharmonics":
            raise OptionError("otype", config["otype"], "HashGrid, Grid with type Hash, or SphericalHarmonics")
        if is_grid:
            grid_options(n_input_dims, config)
        if use_tinycudann():
            import tinycudann

            self.encoding = tinycudann.Encoding(n_input_dims, dict(config), dtype=torch.float32)
        elif is_grid:
            self.encoding = GridEncoding(n_input_dims, config)
        else:
            self.encoding = SphericalHarmonics(n_input_dims, config)
        self.n_output_dims = self.encoding.n_output_dims

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        return self.encoding(x)


class CompositeEncoding(nn.Module):
    """An encoding, preceded by the coordinates mapped to [-1, 1] if `include_xyz` is set."""

    def __init__(self, encoding: nn.Module, include_xyz: bool = False):
        super().__init__()
        self.encoding = encoding
        self.include_xyz = include_xyz
        self.n_output_dims = encoding.n_output_dims + (encoding.n_input_dims if include_xyz else 0)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        encoded = self.encoding(x)
        return torch.cat([2 * x - 1, encoded], dim=-1) if self.include_xyz else encoded


class VanillaMLP(nn.Module):
    """Linear layers without bias, ReLU between them, `output_activation` last; in full precision even under autocast.

    Config keys: `n_neurons`, `n_hidden_layers`, `output_activation`; `activation` may be given, but only as ReLU.
    """

    def __init__(self, dim_in: int, dim_out: int, config: Mapping[str, Any]):
        super().__init__()
        if str(config.get("activation", "ReLU")).lower() != "relu":
            raise OptionError("activation", config["activation"], "ReLU, the only one of VanillaMLP")
        sizes = {key: whole_number(config, key) for key in ("n_neurons", "n_hidden_layers")}
        wide, deep = sizes.values()
        numbers = dim_in * wide + (deep - 1) * wide**2 + wide * dim_out + deep * LAYER
        require_memory(numbers, sizes | {"outputs": dim_out}, trained=True)
        widths = [dim_in] + [wide] * deep
        layers: list[nn.Module] = []
        for width_in, width_out in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(width_in, width_out, bias=False), nn.ReLU(inplace=True)]
        layers.append(nn.Linear(widths[-1], dim_out, bias=False))
        self.layers = nn.Sequential(*layers)
        self.output_activation = get_activation(config.get("output_activation"), "output_activation")

    def forward(self, x: Float[Tensor, "*N Di"]) -> Float[Tensor, "*N Do"]:
        with torch.autocast(x.device.type, enabled=False):
            return self.output_activation(self.layers(x.to(self.layers[0].weight.dtype)))


def _plain(config: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else dict(config)


def get_encoding(n_input_dims: int, config: Mapping[str, Any] | DictConfig) -> CompositeEncoding:
    """The encoding that `config["otype"]` names; `include_xyz: true` adds the coordinates themselves.

    Raises:
        OptionError: an unknown otype, a missing key, or an invalid value.
    """
    where = full_key(config) or "pos_encoding_config or dir_encoding_config"
    config = _plain(config)
    with _keys_of(where):
        encoding = TcnnEncoding(n_input_dims, config)
    return CompositeEncoding(encoding, include_xyz=bool(config.get("include_xyz", False)))


def get_mlp(n_input_dims: int, n_output_dims: int, config: Mapping[str, Any] | DictConfig) -> nn.Module:
    """The network that `config["otype"]` names: VanillaMLP.

    Raises:
        OptionError: as above, or an unknown otype; tiny-cuda-nn's fused networks exist only in threestudio itself.
    """
    where = full_key(config) or "mlp_network_config"
    config = _plain(config)
    with _keys_of(where):
        if config["otype"] != "VanillaMLP":
            raise OptionError("otype", config["otype"], "VanillaMLP")
        return VanillaMLP(n_input_dims, n_output_dims, config)


@contextmanager
def _keys_of(where: str) -> Iterator[None]:
    try:
        with options_under(f"{where}."):
            yield
    except KeyError as error:
        raise OptionError.because(
            f"{where} has no {error.args[0]}; it replaces the default as a whole, so all of its keys must be given"
        ) from error
