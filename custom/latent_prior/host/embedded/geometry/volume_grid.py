"""A field stored in a voxel grid and read by trilinear interpolation.

Conventions. `grid` is 1 x (1 + n_feature_dims) x G1 x G2 x G3, with voxels.py's axes, and zero outside of the box.
Channel 0 is the density before bias and activation.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from jaxtyping import Float
from omegaconf import ListConfig
from torch import Tensor

from latent_prior import OptionError, options_under
from latent_prior.host.embedded.activations import get_activation
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.geometry.base import DensityGeometry, check_values, linear_blob
from latent_prior.host.embedded.memory import require_memory
from latent_prior.host.embedded.registry import register
from latent_prior.host.embedded.voxels import read_voxels

NORMAL_STEP = 1e-3  # finite difference step in world units; not configurable, as in threestudio


@register("volume-grid")
class VolumeGrid(DensityGeometry):
    """density = activation(grid[0] * exp(density_scale) + bias), features = grid[1:]."""

    @dataclass
    class Config(DensityGeometry.Config):
        # Voxels along z, y and x; three integers.
        grid_size: Any = field(default_factory=lambda: [100, 100, 100])
        # Feature channels besides the density: 3 for colours, 4 for Stable Diffusion's latents.
        n_feature_dims: int = 3
        # Added before the activation: "blob" for density_blob_scale (1 - |x| / density_blob_std), or a number. With a
        # number, the density also has a trained scale.
        density_bias: Any = "blob"
        # Height of the blob at the centre.
        density_blob_scale: float = 5.0
        # Distance from the centre at which the blob crosses zero, in world units.
        density_blob_std: float = 0.5
        # Density at the surface; "auto" lets the exporter choose.
        isosurface_threshold: Any = "auto"

    cfg: Config

    def configure(self) -> None:
        super().configure()
        check_values(self.cfg, ["blob"])
        size = tuple(self.cfg.grid_size) if isinstance(self.cfg.grid_size, ListConfig) else ()
        if len(size) != 3 or not all(type(count) is int and count > 0 for count in size):
            raise OptionError(full_key(self.cfg, "grid_size"), self.cfg.grid_size, "three positive whole numbers")
        sizes = {"grid_size": size, "n_feature_dims": self.cfg.n_feature_dims}
        with options_under(f"{where}." if (where := full_key(self.cfg)) else ""):
            require_memory(math.prod(size) * (1 + self.cfg.n_feature_dims), sizes, trained=True)
        self.grid = nn.Parameter(torch.zeros(1, 1 + self.cfg.n_feature_dims, *size))
        if self.cfg.density_bias == "blob":
            self.register_buffer("density_scale", torch.tensor(0.0))
        else:
            self.density_scale = nn.Parameter(torch.tensor(0.0))

    def interpolate(self, points: Float[Tensor, "*N 3"], grid: Float[Tensor, "1 C G1 G2 G3"]) -> Float[Tensor, "*N C"]:
        """Read `grid` at world points."""
        return read_voxels(grid, points, self.bbox, "zeros")

    def activate_density(self, points: Float[Tensor, "*N 3"], raw: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 1"]:
        """Density from the grid's value: applies scale, bias and activation."""
        if self.cfg.density_bias == "blob":
            bias = linear_blob(points.detach(), self.cfg.density_blob_scale, self.cfg.density_blob_std)
        else:
            bias = float(self.cfg.density_bias)
        return get_activation(self.cfg.density_activation)(raw * torch.exp(self.density_scale) + bias)

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> dict[str, Float[Tensor, "..."]]:
        raw, features = self.interpolate(points, self.grid).split([1, self.cfg.n_feature_dims], dim=-1)
        density = self.activate_density(points, raw)
        out = {"density": density, "features": features}
        if output_normal:
            out["normal"] = out["shading_normal"] = self.normal(points, density, NORMAL_STEP)
        return out

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        return self.activate_density(points, self.interpolate(points, self.grid[:, :1]))

    def export(self, points: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        if self.cfg.n_feature_dims == 0:
            return {}
        return {"features": self.interpolate(points, self.grid[:, 1:])}
