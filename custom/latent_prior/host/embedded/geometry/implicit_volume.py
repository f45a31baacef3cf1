"""A field computed by small networks from an encoding of the point (by default a multiresolution hash grid)."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.activations import get_activation
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.geometry.base import DensityGeometry, check_values, gaussian_blob, linear_blob
from latent_prior.host.embedded.memory import require_memory
from latent_prior.host.embedded.networks import HASH_GRID, ONE_HIDDEN_LAYER, get_encoding, get_mlp
from latent_prior.host.embedded.registry import register

BLOBS = {"blob_dreamfusion": gaussian_blob, "blob_magic3d": linear_blob}


@register("implicit-volume")
class ImplicitVolume(DensityGeometry):
    """density = activation(network(encoding) + bias), features = another network of the same encoding."""

    @dataclass
    class Config(DensityGeometry.Config):
        # Feature channels besides the density; 0: none.
        n_feature_dims: int = 3
        # Added before the activation: blob_dreamfusion (Gaussian), blob_magic3d (cone), or a number.
        density_bias: Any = "blob_magic3d"
        # Height of the blob at the centre.
        density_blob_scale: float = 10.0
        # Width of the blob in world units: the Gaussian's standard deviation, or where the cone crosses zero.
        density_blob_std: float = 0.5
        # Encoding of points, see networks.get_encoding.
        pos_encoding_config: dict = field(default_factory=HASH_GRID.copy)
        # Networks for density and features, see networks.get_mlp.
        mlp_network_config: dict = field(default_factory=ONE_HIDDEN_LAYER.copy)
        # Finite difference step, in world units.
        finite_difference_normal_eps: float = 0.01
        # Density at the surface; "auto" lets the exporter choose.
        isosurface_threshold: Any = 25.0

    cfg: Config

    def configure(self) -> None:
        super().configure()
        check_values(self.cfg, BLOBS)
        if self.cfg.finite_difference_normal_eps <= 0:
            eps = self.cfg.finite_difference_normal_eps
            raise OptionError(full_key(self.cfg, "finite_difference_normal_eps"), eps, "a positive length")
        # the order of these decides which random numbers each gets
        self.encoding = get_encoding(3, self.cfg.pos_encoding_config)
        width = self.encoding.n_output_dims
        self.density_network = get_mlp(width, 1, self.cfg.mlp_network_config)
        if self.cfg.n_feature_dims > 0:
            count = self.cfg.n_feature_dims
            require_memory(count, {full_key(self.cfg, "n_feature_dims"): count}, trained=True)
            self.feature_network = get_mlp(width, count, self.cfg.mlp_network_config)

    def encode(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N F"]:
        """The encoding of world points."""
        flat = self.unit_cube(points).reshape(-1, 3)
        return self.encoding(flat).view(*points.shape[:-1], -1)

    def activate_density(self, points: Float[Tensor, "*N 3"], raw: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 1"]:
        """Density from the network's output: adds the bias and applies the activation."""
        if self.cfg.density_bias in BLOBS:
            bias = BLOBS[self.cfg.density_bias](points, self.cfg.density_blob_scale, self.cfg.density_blob_std)
        else:
            bias = float(self.cfg.density_bias)
        return get_activation(self.cfg.density_activation)(raw + bias)

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> dict[str, Float[Tensor, "..."]]:
        encoding = self.encode(points)
        out = {"density": self.activate_density(points, self.density_network(encoding))}
        if self.cfg.n_feature_dims > 0:
            out["features"] = self.feature_network(encoding)
        if output_normal:
            normal = self.normal(points, out["density"], self.cfg.finite_difference_normal_eps)
            out["normal"] = out["shading_normal"] = normal
        return out

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        return self.activate_density(points, self.density_network(self.encode(points)))

    def export(self, points: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        return {"features": self.feature_network(self.encode(points))} if self.cfg.n_feature_dims > 0 else {}
