"""Multiresolution grid encoding in plain torch, with tiny-cuda-nn's arithmetic.

Source: Müller et al. 2022, "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding", section 3 and
appendix A; where the paper leaves a choice open, we follow tiny-cuda-nn's grid encoding.

Conventions. Positions lie in [0, 1]^D; positions outside wrap around as unsigned 32-bit integers do. Level l has
    scale_l = base_resolution * per_level_scale^l - 1,     resolution_l = ceil(scale_l) + 1  vertices per axis,
and a position x maps to x * scale_l + 0.5; the offset of a half staggers the levels. Vertex (i, j, k) is entry
i + j * R + k * R^2 if the level's vertices fit into its table, otherwise entry i*1 xor j*2654435761 xor k*805459861,
both modulo the table size, which is a multiple of eight. `params` is flat, ordered by level, entry and feature, so that
tiny-cuda-nn checkpoints load. The arithmetic is float32 without fused multiply-add, so an encoding differs from
tiny-cuda-nn's by rounding only.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.memory import require_memory

MOST_LEVELS, MOST_LOG2, FINEST = 64, 32, 2**30  # beyond these, vertices cannot be counted in 32 bits
PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)
UINT32 = 0xFFFFFFFF


@dataclass(frozen=True)
class GridLevel:
    """One level: `scale` multiplies positions, `size` entries start at entry `offset`, hashed or strided."""

    scale: float
    resolution: int
    offset: int
    size: int
    hashed: bool


def grid_levels(
    n_dims: int, n_levels: int, base_resolution: int, per_level_scale: float, log2_hashmap_size: int
) -> list[GridLevel]:
    """The layout of the levels, as in tiny-cuda-nn."""
    log2_scale = np.log2(np.float32(per_level_scale))
    levels, offset = [], 0
    for index in range(n_levels):
        scale = np.exp2(np.float32(index) * log2_scale) * np.float32(base_resolution) - np.float32(1)
        resolution = math.ceil(scale) + 1
        vertices = resolution**n_dims
        size = min((vertices + 7) // 8 * 8, 1 << log2_hashmap_size)
        levels.append(GridLevel(float(scale), resolution, offset, size, hashed=size < vertices))
        offset += size
    return levels


def grid_options(n_dims: int, config: Mapping[str, Any]) -> tuple[list[GridLevel], int]:
    """The levels and the features per level of a config; OptionError for an invalid or too large one."""
    if str(config.get("interpolation", "Linear")).lower() != "linear":
        raise OptionError("interpolation", config["interpolation"], "Linear")
    features = whole_number(config, "n_features_per_level", 2)
    n_levels = whole_number(config, "n_levels", 16, most=MOST_LEVELS)
    base = whole_number(config, "base_resolution", 16, most=FINEST)
    log2_size = whole_number(config, "log2_hashmap_size", 19, most=MOST_LOG2)
    scale = config.get("per_level_scale", 2.0)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale <= FINEST:
        raise OptionError("per_level_scale", scale, "a number above 0, usually from 1 to 2")
    if math.log2(base) + (n_levels - 1) * math.log2(scale) > math.log2(FINEST):
        raise OptionError("per_level_scale", scale, f"less, with n_levels={n_levels} and base_resolution={base}")
    levels = grid_levels(n_dims, n_levels, base, scale, log2_size)
    numbers = (levels[-1].offset + levels[-1].size) * features
    given = {"n_levels": n_levels, "n_features_per_level": features, "log2_hashmap_size": log2_size}
    require_memory(numbers, given, trained=True)
    return levels, features


def whole_number(config: Mapping[str, Any], key: str, default: int | None = None, most: int | None = None) -> int:
    """config[key], of at least 1 and at most `most`; OptionError for anything else, KeyError without a default."""
    value = config[key] if default is None else config.get(key, default)
    if type(value) is not int or value < 1 or (most is not None and value > most):
        limits = "of at least 1" if most is None else f"from 1 to {most}"
        raise OptionError(key, value, f"a whole number {limits}")
    return value


class GridEncoding(nn.Module):
    """Features interpolated in grids of increasing resolution and concatenated.

    Config keys (tiny-cuda-nn's): `n_levels`, `n_features_per_level`, `log2_hashmap_size`, `base_resolution`,
    `per_level_scale`; missing keys have tiny-cuda-nn's defaults. Only Linear interpolation is implemented.
    """

    def __init__(self, n_input_dims: int, config: Mapping[str, Any]):
        super().__init__()
        if not 1 <= n_input_dims <= len(PRIMES):
            raise ValueError(f"n_input_dims is {n_input_dims}; expected 1 to {len(PRIMES)}")
        self.n_input_dims = n_input_dims
        self.levels, self.n_features = grid_options(n_input_dims, config)
        self.n_output_dims = len(self.levels) * self.n_features
        entries = self.levels[-1].offset + self.levels[-1].size
        self.params = nn.Parameter(torch.empty(entries * self.n_features).uniform_(-1e-4, 1e-4))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        table = self.params.view(-1, self.n_features)
        x = x.to(table).T.contiguous()  # long rows are quicker
        return torch.cat([self._encode_level(x, level, table) for level in self.levels], dim=-1)

    def _encode_level(
        self, x: Float[Tensor, "D N"], level: GridLevel, table: Float[Tensor, "T C"]
    ) -> Float[Tensor, "N C"]:
        position = x * level.scale + 0.5
        cell = position.detach().floor()
        entry = self._entry(cell.long(), level)
        values = table.index_select(0, entry.flatten() + level.offset).view(*entry.shape, -1)
        fraction = position - cell
        weight = _corners([torch.stack([1 - along, along]) for along in fraction], torch.mul)
        return (weight[..., None] * values).sum(dim=0)

    def _entry(self, cell: Int[Tensor, "D N"], level: GridLevel) -> Int[Tensor, "K N"]:
        terms = []
        for axis, along in enumerate(cell):
            factor = PRIMES[axis] if level.hashed else level.resolution**axis & UINT32
            terms.append((torch.stack([along, along + 1]) & UINT32) * factor & UINT32)
        entry = _corners(terms, torch.bitwise_xor if level.hashed else torch.add) & UINT32
        power_of_two = level.size & (level.size - 1) == 0
        return entry & (level.size - 1) if power_of_two else entry % level.size  # the division takes long


def _corners(ends: list[Shaped[Tensor, "2 N"]], combine: Callable[[Tensor, Tensor], Tensor]) -> Shaped[Tensor, "K N"]:
    """All combinations of an end of each axis; the last axis varies fastest."""
    return functools.reduce(lambda all_, end: combine(all_[:, None], end).flatten(0, 1), ends)
