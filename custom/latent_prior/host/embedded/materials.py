"""Materials: from a field's features to colours (or latents)."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.base import BaseModule
from latent_prior.host.embedded.misc import get_activation, warn
from latent_prior.host.embedded.networks import get_mlp
from latent_prior.host.embedded.registry import register


class BaseMaterial(BaseModule):
    """Colours points. `requires_normal` and `requires_tangent` tell the renderer what else to bring."""

    requires_normal: bool = False
    requires_tangent: bool = False

    def forward(self, *args, **kwargs) -> Float[Tensor, "*N Nc"]:
        """Override: the colour of each point."""
        raise NotImplementedError

    def export(self, *args, **kwargs) -> dict[str, Any]:
        """Override: what can be baked, e.g. `albedo` (*N 3) in [0, 1]."""
        return {}


@register("no-material")
class NoMaterial(BaseMaterial):
    """The activated features are the colour, whatever the light and the view."""

    @dataclass
    class Config(BaseMaterial.Config):
        # Channels of the colour: 3, or the latents' number.
        n_output_dims: int = 3
        # Activation of the colour: sigmoid for RGB, none for latents.
        color_activation: str = "sigmoid"
        # Width of the features, only for a network between features and colour.
        input_feature_dims: int | None = None
        # That network, see networks.get_mlp; None: no network.
        mlp_network_config: dict | None = None
        # Ask the geometry for normals, e.g. to show them.
        requires_normal: bool = False

    cfg: Config

    def configure(self) -> None:
        self.use_network = self.cfg.input_feature_dims is not None and self.cfg.mlp_network_config is not None
        if self.use_network:
            self.network = get_mlp(self.cfg.input_feature_dims, self.cfg.n_output_dims, self.cfg.mlp_network_config)
        get_activation(self.cfg.color_activation, "material.color_activation")
        self.requires_normal = self.cfg.requires_normal

    def forward(self, features: Float[Tensor, "*N Nf"], **kwargs) -> Float[Tensor, "*N Nc"]:
        if self.use_network:
            features = self.network(features)
        if features.shape[-1] != self.cfg.n_output_dims:
            raise OptionError.because(
                f"material.n_output_dims is {self.cfg.n_output_dims}, but the geometry gives {features.shape[-1]} "
                "features (geometry.n_feature_dims)"
            )
        return get_activation(self.cfg.color_activation)(features)

    def export(self, features: Float[Tensor, "*N Nf"], **kwargs) -> dict[str, Any]:
        color = self(features, **kwargs).clamp(0, 1)
        if color.shape[-1] < 3:
            raise OptionError.because(f"material.n_output_dims is {color.shape[-1]}, an export needs at least 3")
        if color.shape[-1] > 3:
            warn("the colour has more than three channels, the first three are taken as RGB")
        return {"albedo": color[..., :3]}
