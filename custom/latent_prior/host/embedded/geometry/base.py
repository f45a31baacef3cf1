"""What the fields share: the bounding box, isosurface settings, density activation, finite-difference normals.

Conventions. Points are world coordinates, z up; a field is meant for the box [-radius, radius]^3. Density is per unit
of world length. Normals point outwards, against the density's gradient, and are unit vectors.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.base import BaseModule


class BaseGeometry(BaseModule):
    """Anything that a renderer can ask for density and features."""

    @staticmethod
    def create_from(other: "BaseGeometry", cfg: dict | DictConfig | None = None, **kwargs) -> "BaseGeometry":
        """Override: a new geometry with `other`'s content under the config `cfg`."""
        raise OptionError.because(
            f"system.geometry_convert_from: this geometry cannot be made from a {type(other).__name__}"
        )

    def export(self, points: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        """What a material needs to colour the points: `features` where the field has any."""
        return {}


class BaseImplicitGeometry(BaseGeometry):
    """A field given by a function of the point.

    The isosurface keys are threestudio's; here the exporter reads them (generators/mesh_exporter.py).
    """

    @dataclass
    class Config(BaseGeometry.Config):
        # Half the edge of the cube that holds the object, in world units.
        radius: float = 1.0
        # Whether a surface may be taken from the field at export.
        isosurface: bool = True
        # threestudio's method, "mt" or "mc-cpu"; the exporter here does marching cubes for either.
        isosurface_method: str = "mt"
        # Samples along each axis of the grid the surface is taken from.
        isosurface_resolution: int = 128
        # Density at the surface; "auto" lets the exporter choose.
        isosurface_threshold: Any = 0.0
        # Points evaluated at a time; 0: all at once.
        isosurface_chunk: int = 0
        # Take a first, coarse surface to find the object's box, then the final one inside that box.
        isosurface_coarse_to_fine: bool = True
        # threestudio's trainable tetrahedra; not available here, must be false.
        isosurface_deformable_grid: bool = False
        # Drop small separate pieces of the surface.
        isosurface_remove_outliers: bool = True
        # threestudio's exporter drops pieces with fewer faces than this number, or this fraction of all faces; ours
        # goes by volume (exporter.min_component_fraction).
        isosurface_outlier_n_faces_threshold: Any = 0.01

    cfg: Config

    def configure(self) -> None:
        if self.cfg.radius <= 0:
            raise OptionError.because(f"geometry.radius is {self.cfg.radius}, expected a positive length")
        if self.cfg.isosurface_method not in ("mt", "mc-cpu"):
            raise OptionError.because(
                f"geometry.isosurface_method is {self.cfg.isosurface_method!r}, expected mt or mc-cpu"
            )
        if self.cfg.isosurface_deformable_grid:
            raise OptionError.because("geometry.isosurface_deformable_grid is true, but this host has fixed grids only")
        if self.cfg.isosurface_outlier_n_faces_threshold < 0:
            raise OptionError.because(
                f"geometry.isosurface_outlier_n_faces_threshold is {self.cfg.isosurface_outlier_n_faces_threshold}, "
                "expected a number >= 0"
            )
        radius = float(self.cfg.radius)
        self.register_buffer("bbox", torch.tensor([[-radius] * 3, [radius] * 3]))

    def unit_cube(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """Points of the bounding box to [0, 1]^3."""
        return (points - self.bbox[0]) / (self.bbox[1] - self.bbox[0])

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> dict[str, Float[Tensor, "..."]]:
        """`density` (*N 1), `features` (*N Nf); with `output_normal` also `normal` and `shading_normal` (*N 3)."""
        raise NotImplementedError

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Density alone, cheaper than `forward`."""
        raise NotImplementedError

    def forward_field(self, points: Float[Tensor, "*N 3"]) -> tuple[Float[Tensor, "*N 1"], None]:
        """The implicit field, here the density; the second item stands for a deformation, which we have none of."""
        return self.forward_density(points), None

    def forward_level(self, field: Float[Tensor, "*N 1"], threshold: float) -> Float[Tensor, "*N 1"]:
        """Negative inside the surface at `threshold`, zero on it."""
        return threshold - field

    def finite_difference_normal(
        self, points: Float[Tensor, "*N 3"], density: Float[Tensor, "*N 1"], eps: float, central: bool
    ) -> Float[Tensor, "*N 3"]:
        """The normal by differences of the density over `eps`: forward ones, or central ones over 2 eps."""
        steps = eps * torch.eye(3, dtype=points.dtype, device=points.device)

        def density_at(offsets: Float[Tensor, "3 3"]) -> Float[Tensor, "*N 3"]:
            moved = (points[..., None, :] + offsets).clamp(-self.cfg.radius, self.cfg.radius)
            return self.forward_density(moved)[..., 0]

        if central:
            gradient = (density_at(steps) - density_at(-steps)) / (2 * eps)
        else:
            gradient = (density_at(steps) - density) / eps
        return F.normalize(-gradient, dim=-1)


def linear_blob(points: Float[Tensor, "*N 3"], scale: float, std: float) -> Float[Tensor, "*N 1"]:
    """scale (1 - |x| / std): a cone of density before activation (Magic3D, Lin et al. 2023)."""
    return scale * (1 - points.square().sum(dim=-1, keepdim=True).sqrt() / std)


def gaussian_blob(points: Float[Tensor, "*N 3"], scale: float, std: float) -> Float[Tensor, "*N 1"]:
    """scale exp(-|x|^2 / (2 std^2)): a blob of density before activation (DreamFusion, Poole et al. 2022)."""
    return scale * torch.exp(-0.5 * points.square().sum(dim=-1, keepdim=True) / std**2)
