"""Materials: from a field's features to colours (or latents)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
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


@register("diffuse-with-point-light-material")
class DiffuseWithPointLightMaterial(BaseModule):
    """Albedo under a point light (Lambert), so that shading is the light's and not painted on (DreamFusion, sec. 3.1).

    In training each batch is drawn shaded, as a white body (textureless), or unlit.
    """

    @dataclass
    class Config(BaseModule.Config):
        # Light from everywhere.
        ambient_light_color: Any = (0.1, 0.1, 0.1)
        # Light from the point, which falls off with the angle only.
        diffuse_light_color: Any = (0.9, 0.9, 0.9)
        # Steps at the start that are unlit.
        ambient_only_steps: int = 1000
        # Probability that a batch is lit.
        diffuse_prob: float = 0.75
        # Probability that a lit batch is textureless.
        textureless_prob: float = 0.5
        # Activation of the albedo.
        albedo_activation: str = "sigmoid"
        # Draw the share of the ambient light for each lit batch.
        soft_shading: bool = False
        # Unlit pictures in evaluation.
        ambient_only_on_test: bool = False

    cfg: Config
    requires_normal = True

    def configure(self) -> None:
        get_activation(self.cfg.albedo_activation, "system.material.albedo_activation")
        for key in ("ambient_light_color", "diffuse_light_color"):
            colour = self.cfg[key]
            if (
                not isinstance(colour, Sequence)
                or len(colour) != 3
                or not all(isinstance(c, int | float) for c in colour)
            ):
                raise OptionError(f"system.material.{key}", colour, "three numbers")
            self.register_buffer(key, torch.tensor([float(c) for c in colour]))
        for key in ("diffuse_prob", "textureless_prob"):
            if not 0 <= self.cfg[key] <= 1:
                raise OptionError(f"system.material.{key}", self.cfg[key], "0 to 1")
        self.ambient_only = False

    def forward(
        self,
        features: Float[Tensor, "*N Nf"],
        positions: Float[Tensor, "*N 3"],
        shading_normal: Float[Tensor, "*N 3"],
        light_positions: Float[Tensor, "*N 3"],
        **kwargs,
    ) -> Float[Tensor, "*N 3"]:
        """The colour of each point. Draws from Python's global generator, in threestudio's order."""
        albedo = get_activation(self.cfg.albedo_activation)(features[..., :3])
        diffuse, ambient = self.diffuse_light_color, self.ambient_light_color
        if self.training and self.cfg.soft_shading:
            diffuse = torch.full_like(diffuse, random.random())
            ambient = 1 - diffuse
        towards_light = F.normalize(light_positions - positions, dim=-1)
        cosine = (shading_normal * towards_light).sum(-1, keepdim=True).clamp(min=0)
        light = cosine * diffuse + ambient
        if self._is_unlit():
            return albedo
        if self.training and random.random() < self.cfg.textureless_prob:
            return albedo * 0 + light
        return albedo.clamp(0, 1) * light

    def _is_unlit(self) -> bool:
        if self.training:
            return self.ambient_only or random.random() > self.cfg.diffuse_prob
        return self.ambient_only or self.cfg.ambient_only_on_test

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.ambient_only = global_step < self.cfg.ambient_only_steps

    def export(self, features: Float[Tensor, "*N Nf"], **kwargs) -> dict[str, Any]:
        """The colours for a mesh, without light: `albedo` (*N 3) in [0, 1]."""
        return {"albedo": get_activation(self.cfg.albedo_activation)(features[..., :3]).clamp(0, 1)}
