"""Backgrounds: the colour (or latent) of a ray that hits nothing, as a function of its unit direction."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import ListConfig
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.activations import get_activation
from latent_prior.host.embedded.base import BaseModule
from latent_prior.host.embedded.memory import check_sizes, require_memory
from latent_prior.host.embedded.networks import get_encoding, get_mlp
from latent_prior.host.embedded.registry import register


@register("solid-color-background")
class SolidColorBackground(BaseModule):
    """A single colour."""

    @dataclass
    class Config(BaseModule.Config):
        # Channels of the colour: 3, or the latents' number.
        n_output_dims: int = 3
        # The colour, one number per channel.
        color: Any = field(default_factory=lambda: [1.0, 1.0, 1.0])

    cfg: Config

    def configure(self) -> None:
        color, channels = self.cfg.color, self.cfg.n_output_dims
        check_sizes({"system.background.n_output_dims": channels})
        numbers = list(color) if isinstance(color, ListConfig) else []
        if len(numbers) not in (1, channels) or not all(type(number) in (int, float) for number in numbers):
            raise OptionError("system.background.color", color, f"{channels} numbers, as many as n_output_dims, or one")
        self.register_buffer("env_color", torch.tensor(numbers, dtype=torch.float32))

    def forward(self, dirs: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W Nc"]:
        return self.env_color.to(dirs).expand(*dirs.shape[:-1], self.cfg.n_output_dims)


@register("textured-background")
class TexturedBackground(BaseModule):
    """A trained image around the scene: columns from the zenith to the nadir, rows around the z axis."""

    @dataclass
    class Config(BaseModule.Config):
        # Channels of the colour: 3, or the latents' number.
        n_output_dims: int = 3
        # Rows, along the azimuth.
        height: int = 64
        # Columns, along the polar angle.
        width: int = 64
        # Activation of the colour: sigmoid for RGB, none for latents.
        color_activation: str = "sigmoid"

    cfg: Config

    def configure(self) -> None:
        get_activation(self.cfg.color_activation, "system.background.color_activation")
        sizes = {f"system.background.{key}": self.cfg[key] for key in ("height", "width", "n_output_dims")}
        check_sizes(sizes)
        require_memory(math.prod(sizes.values()), sizes, trained=True)
        self.texture = nn.Parameter(torch.randn(1, self.cfg.n_output_dims, self.cfg.height, self.cfg.width))

    def forward(self, dirs: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B Nc"]:
        x, y, z = dirs.reshape(-1, 3).unbind(-1)
        u = torch.atan2((x * x + y * y).sqrt(), z) / math.pi
        v = torch.atan2(y, x) / (2 * math.pi) + 0.5
        uv = 2 * torch.stack([u, v], dim=-1) - 1
        sampled = F.grid_sample(self.texture, uv[None, :, None], padding_mode="reflection", align_corners=False)
        color = sampled[0, :, :, 0].T.reshape(*dirs.shape[:-1], self.cfg.n_output_dims)
        return get_activation(self.cfg.color_activation)(color)


@register("neural-environment-map-background")
class NeuralEnvironmentMapBackground(BaseModule):
    """A small network of the encoded direction."""

    @dataclass
    class Config(BaseModule.Config):
        # Channels of the colour: 3, or the latents' number.
        n_output_dims: int = 3
        # Activation of the colour: sigmoid for RGB, none for latents.
        color_activation: str = "sigmoid"
        # Encoding of directions, see networks.get_encoding.
        dir_encoding_config: dict = field(default_factory=lambda: {"otype": "SphericalHarmonics", "degree": 3})
        # The network, see networks.get_mlp.
        mlp_network_config: dict = field(
            default_factory=lambda: {
                "otype": "VanillaMLP",
                "activation": "ReLU",
                "n_neurons": 16,
                "n_hidden_layers": 2,
            }
        )

    cfg: Config

    def configure(self) -> None:
        get_activation(self.cfg.color_activation, "system.background.color_activation")
        channels = {"system.background.n_output_dims": self.cfg.n_output_dims}
        check_sizes(channels)
        require_memory(self.cfg.n_output_dims, channels, trained=True)
        self.encoding = get_encoding(3, self.cfg.dir_encoding_config)
        self.network = get_mlp(self.encoding.n_output_dims, self.cfg.n_output_dims, self.cfg.mlp_network_config)

    def forward(self, dirs: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W Nc"]:
        encoded = self.encoding(((dirs + 1) / 2).reshape(-1, 3))
        color = self.network(encoded).view(*dirs.shape[:-1], self.cfg.n_output_dims)
        return get_activation(self.cfg.color_activation)(color)
