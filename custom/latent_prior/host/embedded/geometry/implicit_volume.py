"""A field computed by small networks from an encoding of the point (by default a multiresolution hash grid)."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.geometry.base import BaseGeometry, BaseImplicitGeometry, gaussian_blob, linear_blob
from latent_prior.host.embedded.misc import get_activation
from latent_prior.host.embedded.networks import get_encoding, get_mlp
from latent_prior.host.embedded.registry import register

NORMAL_TYPES = (None, "pred", "finite_difference", "finite_difference_laplacian", "analytic")
BLOBS = {"blob_dreamfusion": gaussian_blob, "blob_magic3d": linear_blob}


@register("implicit-volume")
class ImplicitVolume(BaseImplicitGeometry):
    """density = activation(network(encoding) + bias), features = another network of the same encoding."""

    @dataclass
    class Config(BaseImplicitGeometry.Config):
        # Coordinates of a point.
        n_input_dims: int = 3
        # Features beside the density; 0: none.
        n_feature_dims: int = 3
        # Activation of the density.
        density_activation: str | None = "softplus"
        # Added before the activation: blob_dreamfusion (Gaussian), blob_magic3d (cone), or a number.
        density_bias: Any = "blob_magic3d"
        # Height of the blob at the centre.
        density_blob_scale: float = 10.0
        # Width of the blob in world units: the Gaussian's standard deviation, or where the cone crosses zero.
        density_blob_std: float = 0.5
        # Encoding of points, see networks.get_encoding.
        pos_encoding_config: dict = field(
            default_factory=lambda: {
                "otype": "HashGrid",
                "n_levels": 16,
                "n_features_per_level": 2,
                "log2_hashmap_size": 19,
                "base_resolution": 16,
                "per_level_scale": 1.447269237440378,
            }
        )
        # The density's and the features' networks, see networks.get_mlp.
        mlp_network_config: dict = field(
            default_factory=lambda: {
                "otype": "VanillaMLP",
                "activation": "ReLU",
                "output_activation": "none",
                "n_neurons": 64,
                "n_hidden_layers": 1,
            }
        )
        # How normals are found: finite_difference, finite_difference_laplacian (central), analytic (the gradient),
        # pred (a network of their own), or None where nothing asks for them.
        normal_type: str | None = "finite_difference"
        # Step of the finite differences, in world units.
        finite_difference_normal_eps: float = 0.01
        # Density at the surface; "auto" lets the exporter choose.
        isosurface_threshold: Any = 25.0

    cfg: Config

    def configure(self) -> None:
        super().configure()
        if self.cfg.density_bias not in BLOBS and not isinstance(self.cfg.density_bias, int | float):
            raise OptionError.because(
                f"geometry.density_bias is {self.cfg.density_bias!r}, expected one of {tuple(BLOBS)} or a number"
            )
        if self.cfg.normal_type not in NORMAL_TYPES:
            raise OptionError.because(
                f"geometry.normal_type is {self.cfg.normal_type!r}, expected one of {NORMAL_TYPES}"
            )
        get_activation(self.cfg.density_activation, "geometry.density_activation")
        # the order of these decides which random numbers each gets
        self.encoding = get_encoding(self.cfg.n_input_dims, self.cfg.pos_encoding_config)
        width = self.encoding.n_output_dims
        self.density_network = get_mlp(width, 1, self.cfg.mlp_network_config)
        if self.cfg.n_feature_dims > 0:
            self.feature_network = get_mlp(width, self.cfg.n_feature_dims, self.cfg.mlp_network_config)
        if self.cfg.normal_type == "pred":
            self.normal_network = get_mlp(width, 3, self.cfg.mlp_network_config)

    def encode(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N F"]:
        """The encoding of world points."""
        flat = self.unit_cube(points).reshape(-1, self.cfg.n_input_dims)
        return self.encoding(flat).view(*points.shape[:-1], -1)

    def activate_density(self, points: Float[Tensor, "*N 3"], raw: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 1"]:
        """Density from the network's output: bias, activation."""
        if self.cfg.density_bias in BLOBS:
            bias = BLOBS[self.cfg.density_bias](points, self.cfg.density_blob_scale, self.cfg.density_blob_std)
        else:
            bias = float(self.cfg.density_bias)
        return get_activation(self.cfg.density_activation)(raw + bias)

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> dict[str, Float[Tensor, "..."]]:
        if output_normal and self.cfg.normal_type == "analytic":
            return self._forward_analytic(points)
        out = self._field(points)
        if output_normal:
            out["normal"] = out["shading_normal"] = self.normal(points, out)
        return {key: value for key, value in out.items() if key != "encoding"}

    def _field(self, points: Float[Tensor, "*N 3"]) -> dict[str, Float[Tensor, "..."]]:
        encoding = self.encode(points)
        out = {"encoding": encoding, "density": self.activate_density(points, self.density_network(encoding))}
        if self.cfg.n_feature_dims > 0:
            out["features"] = self.feature_network(encoding)
        return out

    def _forward_analytic(self, points: Float[Tensor, "*N 3"]) -> dict[str, Float[Tensor, "..."]]:
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points if points.requires_grad else points.detach().requires_grad_(True)
            out = self._field(points)
            (gradient,) = torch.autograd.grad(out["density"].sum(), points, create_graph=training, retain_graph=True)
            out["normal"] = out["shading_normal"] = F.normalize(-gradient, dim=-1)
        return {key: value if training else value.detach() for key, value in out.items() if key != "encoding"}

    def normal(self, points: Float[Tensor, "*N 3"], out: dict[str, Tensor]) -> Float[Tensor, "*N 3"]:
        """The unit normal at the points, as `normal_type` says; `out` holds their density and encoding."""
        if self.cfg.normal_type is None:
            raise OptionError.because("geometry.normal_type is None, but the material or renderer asks for normals")
        if self.cfg.normal_type == "pred":
            return F.normalize(self.normal_network(out["encoding"]), dim=-1)
        central = self.cfg.normal_type == "finite_difference_laplacian"
        return self.finite_difference_normal(
            points, out["density"], eps=self.cfg.finite_difference_normal_eps, central=central
        )

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        return self.activate_density(points, self.density_network(self.encode(points)))

    def export(self, points: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        return {"features": self.feature_network(self.encode(points))} if self.cfg.n_feature_dims > 0 else {}

    @staticmethod
    @torch.no_grad()
    def create_from(
        other: BaseGeometry, cfg: dict | DictConfig | None = None, copy_net: bool = True, **kwargs
    ) -> "ImplicitVolume":
        """A copy of another implicit volume under a config with the same encoding and networks.

        copy_net: take over the features' and normals' networks too, where their widths agree.
        """
        if not isinstance(other, ImplicitVolume):
            raise OptionError.because(
                f"system.geometry_convert_from: an implicit-volume cannot be made from a {type(other).__name__}"
            )
        new = ImplicitVolume(cfg, **kwargs)
        new.encoding.load_state_dict(other.encoding.state_dict())
        new.density_network.load_state_dict(other.density_network.state_dict())
        if copy_net and 0 < new.cfg.n_feature_dims == other.cfg.n_feature_dims:
            new.feature_network.load_state_dict(other.feature_network.state_dict())
        if copy_net and new.cfg.normal_type == "pred" == other.cfg.normal_type:
            new.normal_network.load_state_dict(other.normal_network.state_dict())
        return new
