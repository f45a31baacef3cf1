"""What all fields share: the bounding box, isosurface settings, finite-difference normals.

Conventions. Points are world coordinates, z up; a field covers the box [-radius, radius]^3. It says where matter is in
one of two ways: by a density per unit of world length, or by a distance from the surface in world units, negative
inside. Normals are unit vectors that point outwards: against the density's gradient, along the distance's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.activations import get_activation
from latent_prior.host.embedded.base import BaseModule
from latent_prior.host.embedded.config import full_key

NORMAL_TYPES = (None, "finite_difference")


class BaseImplicitGeometry(BaseModule):
    """A field given as a function of the point.

    The isosurface keys are threestudio's; the exporter reads them (meshes/exporter.py).
    """

    @dataclass
    class Config(BaseModule.Config):
        # Half the edge of the cube that holds the object, in world units.
        radius: float = 1.0
        # Whether a surface may be extracted from the field at export.
        isosurface: bool = True
        # Samples along each axis of the grid from which the surface is extracted.
        isosurface_resolution: int = 128
        # The field's value at the surface: a distance, or a density, where "auto" lets the exporter choose.
        isosurface_threshold: Any = 0.0
        # Points evaluated at once; 0: all of them.
        isosurface_chunk: int = 0
        # Extract a coarse surface first to find the object's box, then the final one inside that box.
        isosurface_coarse_to_fine: bool = True
        # Drop small separate pieces of the surface.
        isosurface_remove_outliers: bool = True

    cfg: Config

    def configure(self) -> None:
        if self.cfg.radius <= 0:
            raise OptionError(full_key(self.cfg, "radius"), self.cfg.radius, "a positive length")
        if self.cfg.isosurface_chunk < 0:
            raise OptionError(full_key(self.cfg, "isosurface_chunk"), self.cfg.isosurface_chunk, "0 or more")
        radius = float(self.cfg.radius)
        self.register_buffer("bbox", torch.tensor([[-radius] * 3, [radius] * 3]))

    def unit_cube(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """Map points of the bounding box to [0, 1]^3."""
        return (points - self.bbox[0]) / (self.bbox[1] - self.bbox[0])

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> dict[str, Float[Tensor, "..."]]:
        """`density` or `sdf` (*N 1), `features` (*N Nf); with `output_normal` also `normal` and `shading_normal` (*N 3)."""
        raise NotImplementedError

    def export(self, points: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        """What a material needs to colour the points: `features`, if the field has any."""
        raise NotImplementedError

    def check_normal_type(self) -> None:
        """OptionError for a `normal_type` that is not known."""
        if self.cfg.normal_type not in NORMAL_TYPES:
            raise OptionError(full_key(self.cfg, "normal_type"), self.cfg.normal_type, f"one of {NORMAL_TYPES}")

    def slope(
        self,
        field: Callable[[Float[Tensor, "*N 3"]], Float[Tensor, "*N 1"]],
        points: Float[Tensor, "*N 3"],
        values: Float[Tensor, "*N 1"],
        eps: float,
    ) -> Float[Tensor, "*N 3"]:
        """The gradient of `field`, whose values at the points are given, by forward differences with step `eps`."""
        if self.cfg.normal_type is None:
            raise OptionError(
                full_key(self.cfg, "normal_type"), None, "a type, since the material or renderer needs normals"
            )
        steps = eps * torch.eye(3, dtype=points.dtype, device=points.device)
        moved = (points[..., None, :] + steps).clamp(-self.cfg.radius, self.cfg.radius)
        return (field(moved)[..., 0] - values) / eps


class DensityGeometry(BaseImplicitGeometry):
    """A field of densities."""

    @dataclass
    class Config(BaseImplicitGeometry.Config):
        # Activation of the density.
        density_activation: str = "softplus"
        # How normals are computed: finite_difference, or None where nothing needs them.
        normal_type: str | None = "finite_difference"

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self.check_normal_type()
        get_activation(self.cfg.density_activation, full_key(self.cfg, "density_activation"))

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Density alone, cheaper than `forward`."""
        raise NotImplementedError

    def normal(
        self, points: Float[Tensor, "*N 3"], density: Float[Tensor, "*N 1"], eps: float
    ) -> Float[Tensor, "*N 3"]:
        """Unit normals at the points, by forward differences of the density with step `eps`."""
        return F.normalize(-self.slope(self.forward_density, points, density, eps), dim=-1)


def check_values(cfg: Any, blobs: Iterable[str]) -> None:
    """OptionError for a number of features below 0, or a bias that is neither the name of a blob nor a number."""
    if cfg.n_feature_dims < 0:
        raise OptionError(full_key(cfg, "n_feature_dims"), cfg.n_feature_dims, "0 or more")
    if cfg.density_blob_std <= 0:
        raise OptionError(full_key(cfg, "density_blob_std"), cfg.density_blob_std, "a positive length")
    bias = cfg.density_bias
    named = isinstance(bias, str) and bias in blobs
    if not named and (not isinstance(bias, int | float) or isinstance(bias, bool)):
        raise OptionError(full_key(cfg, "density_bias"), bias, f"one of {', '.join(blobs)} or a number")


def linear_blob(points: Float[Tensor, "*N 3"], scale: float, std: float) -> Float[Tensor, "*N 1"]:
    """scale (1 - |x| / std): a cone of density before activation (Magic3D, Lin et al. 2023)."""
    return scale * (1 - points.square().sum(dim=-1, keepdim=True).sqrt() / std)


def gaussian_blob(points: Float[Tensor, "*N 3"], scale: float, std: float) -> Float[Tensor, "*N 1"]:
    """scale exp(-|x|^2 / (2 std^2)): a blob of density before activation (DreamFusion, Poole et al. 2022)."""
    return scale * torch.exp(-0.5 * points.square().sum(dim=-1, keepdim=True) / std**2)
