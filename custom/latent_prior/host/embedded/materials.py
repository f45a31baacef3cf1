"""Materials: from a field's features to colours (or latents)."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.activations import get_activation
from latent_prior.host.embedded.base import BaseModule
from latent_prior.host.embedded.memory import check_sizes
from latent_prior.host.embedded.registry import register


@register("no-material")
class NoMaterial(BaseModule):
    """The activated features are the colour, independent of light and view."""

    @dataclass
    class Config(BaseModule.Config):
        # Channels of the colour: 3, or the latents' number.
        n_output_dims: int = 3
        # Activation of the colour: sigmoid for RGB, none for latents.
        color_activation: str = "sigmoid"

    cfg: Config
    requires_normal = False  # the renderer computes normals only if this is set

    def configure(self) -> None:
        get_activation(self.cfg.color_activation, "system.material.color_activation")
        check_sizes({"system.material.n_output_dims": self.cfg.n_output_dims})

    def forward(self, features: Float[Tensor, "*N Nf"], **kwargs) -> Float[Tensor, "*N Nc"]:
        """The colour of each point; further keywords from the renderer are ignored."""
        if features.shape[-1] != self.cfg.n_output_dims:
            raise OptionError(
                "system.material.n_output_dims",
                self.cfg.n_output_dims,
                f"the {features.shape[-1]} features that the geometry returns (system.geometry.n_feature_dims)",
            )
        return get_activation(self.cfg.color_activation)(features)

    def export(self, features: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        """The colours for a mesh: `albedo` (*N 3) in [0, 1]."""
        return {"albedo": self(features).clamp(0, 1)}
