"""A field of signed distances given by networks over an encoding of the point, usually a hash grid."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.geometry.base import BaseImplicitGeometry
from latent_prior.host.embedded.memory import require_memory
from latent_prior.host.embedded.networks import HASH_GRID, ONE_HIDDEN_LAYER, get_encoding, get_mlp
from latent_prior.host.embedded.registry import register

BIASES = ("sphere", "ellipsoid")


@register("implicit-sdf")
class ImplicitSDF(BaseImplicitGeometry):
    """distance = network(encoding) + bias, features = another network of the same encoding."""

    @dataclass
    class Config(BaseImplicitGeometry.Config):
        # Feature channels besides the distance; 0: none.
        n_feature_dims: int = 3
        # Encoding of points, see networks.get_encoding.
        pos_encoding_config: dict = field(default_factory=HASH_GRID.copy)
        # Networks for distance and features, see networks.get_mlp.
        mlp_network_config: dict = field(default_factory=ONE_HIDDEN_LAYER.copy)
        # How normals are computed: finite_difference, or None where nothing needs them.
        normal_type: str | None = "finite_difference"
        # Finite difference step, in world units.
        finite_difference_normal_eps: float = 0.01
        # Added to the distance: a number, sphere or ellipsoid, so that training starts from that shape.
        sdf_bias: Any = 0.0
        # The sphere's radius, or the ellipsoid's three half axes, in world units.
        sdf_bias_params: Any = None

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self._check()
        # the order of these decides which random numbers each gets
        self.encoding = get_encoding(3, self.cfg.pos_encoding_config)
        width = self.encoding.n_output_dims
        self.sdf_network = get_mlp(width, 1, self.cfg.mlp_network_config)
        if self.cfg.n_feature_dims > 0:
            count = self.cfg.n_feature_dims
            require_memory(count, {full_key(self.cfg, "n_feature_dims"): count}, trained=True)
            self.feature_network = get_mlp(width, count, self.cfg.mlp_network_config)

    def _check(self) -> None:
        self.check_normal_type()
        if self.cfg.n_feature_dims < 0:
            raise OptionError(full_key(self.cfg, "n_feature_dims"), self.cfg.n_feature_dims, "0 or more")
        if self.cfg.finite_difference_normal_eps <= 0:
            eps = self.cfg.finite_difference_normal_eps
            raise OptionError(full_key(self.cfg, "finite_difference_normal_eps"), eps, "a positive length")
        bias, sizes = self.cfg.sdf_bias, self.cfg.sdf_bias_params
        if not _is_number(bias) and bias not in BIASES:
            raise OptionError(full_key(self.cfg, "sdf_bias"), bias, f"one of {', '.join(BIASES)} or a number")
        if bias == "sphere" and not (_is_number(sizes) and sizes > 0):
            raise OptionError(full_key(self.cfg, "sdf_bias_params"), sizes, "a positive radius for a sphere")
        if bias == "ellipsoid" and not (
            isinstance(sizes, Sequence) and len(sizes) == 3 and all(_is_number(size) and size > 0 for size in sizes)
        ):
            raise OptionError(full_key(self.cfg, "sdf_bias_params"), sizes, "three positive half axes for an ellipsoid")

    def encode(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N F"]:
        """The encoding of world points."""
        flat = self.unit_cube(points).reshape(-1, 3)
        return self.encoding(flat).view(*points.shape[:-1], -1)

    def _distance(self, points: Float[Tensor, "*N 3"], encoding: Float[Tensor, "*N F"]) -> Float[Tensor, "*N 1"]:
        distance, bias = self.sdf_network(encoding), self.cfg.sdf_bias
        if bias == "sphere":
            return distance + points.norm(dim=-1, keepdim=True) - self.cfg.sdf_bias_params
        if bias == "ellipsoid":
            return (
                distance + (points / points.new_tensor(list(self.cfg.sdf_bias_params))).norm(dim=-1, keepdim=True) - 1
            )
        return distance + float(bias)

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> dict[str, Float[Tensor, "..."]]:
        """`sdf` (*N 1), `features`; with `output_normal` also `normal`, `shading_normal` and `sdf_grad` (*N 3)."""
        encoding = self.encode(points)
        out = {"sdf": self._distance(points, encoding)}
        if self.cfg.n_feature_dims > 0:
            out["features"] = self.feature_network(encoding)
        if output_normal:
            gradient = self.slope(self.forward_sdf, points, out["sdf"], self.cfg.finite_difference_normal_eps)
            out["sdf_grad"] = gradient
            out["normal"] = out["shading_normal"] = F.normalize(gradient, dim=-1)
        return out

    def forward_sdf(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """The distance alone, cheaper than `forward`."""
        return self._distance(points, self.encode(points))

    def export(self, points: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        return {"features": self.feature_network(self.encode(points))} if self.cfg.n_feature_dims > 0 else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
