"""Backgrounds: the colour (or latent) that a ray brings when nothing stops it, from its unit direction."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import ListConfig
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.base import BaseModule
from latent_prior.host.embedded.misc import get_activation
from latent_prior.host.embedded.networks import get_encoding, get_mlp
from latent_prior.host.embedded.registry import register


class BaseBackground(BaseModule):
    """A function of the ray's direction."""

    def forward(self, dirs: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W Nc"]:
        """Override: the colour in each direction."""
        raise NotImplementedError


def random_colors(color: Float[Tensor, "B H W Nc"], probability: float) -> Float[Tensor, "B H W Nc"]:
    """With `probability`, one uniform random colour a picture in place of `color`; both global generators are used."""
    if random.random() >= probability:
        return color
    drawn = torch.rand(color.shape[0], 1, 1, color.shape[-1]).to(color)
    return color * 0 + drawn  # times 0, not left out: every parameter must get a gradient under DDP


def _color(value: Any, key: str) -> Float[Tensor, "Nc"]:
    """A colour from a config."""
    numbers = list(value) if isinstance(value, ListConfig) else []
    if not numbers or not all(isinstance(number, int | float) for number in numbers):
        raise OptionError.because(f"{key}: expected a list of numbers, one a channel, got {value!r}")
    return torch.tensor(numbers, dtype=torch.float32)


@register("solid-color-background")
class SolidColorBackground(BaseBackground):
    """One colour, fixed or trained."""

    @dataclass
    class Config(BaseBackground.Config):
        # Channels of the colour: 3, or the latents' number.
        n_output_dims: int = 3
        # The colour, one number a channel.
        color: Any = field(default_factory=lambda: [1.0, 1.0, 1.0])
        # Whether the colour is trained.
        learned: bool = False
        # Use random colours now and then while training, so that the object cannot hide in the background.
        random_aug: bool = False
        # How often: the probability at each step.
        random_aug_prob: float = 0.5

    cfg: Config

    def configure(self) -> None:
        color = _color(self.cfg.color, "background.color")
        if len(color) not in (1, self.cfg.n_output_dims):
            raise OptionError.because(
                f"background.color has {len(color)} numbers, but background.n_output_dims is {self.cfg.n_output_dims}"
            )
        if self.cfg.learned:
            self.env_color = nn.Parameter(color)
        else:
            self.register_buffer("env_color", color)

    def forward(self, dirs: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W Nc"]:
        color = self.env_color.to(dirs).expand(*dirs.shape[:-1], self.cfg.n_output_dims)
        if self.training and self.cfg.random_aug:
            color = random_colors(color, self.cfg.random_aug_prob)
        return color


@register("textured-background")
class TexturedBackground(BaseBackground):
    """A trained picture around the scene: columns from the zenith to the nadir, rows around the z axis."""

    @dataclass
    class Config(BaseBackground.Config):
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
        get_activation(self.cfg.color_activation, "background.color_activation")
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
class NeuralEnvironmentMapBackground(BaseBackground):
    """A small network of the encoded direction."""

    @dataclass
    class Config(BaseBackground.Config):
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
        # Use random colours now and then while training, so that the object cannot hide in the background.
        random_aug: bool = False
        # How often: the probability at each step.
        random_aug_prob: float = 0.5
        # A fixed colour in evaluation, one number a channel; None: the network's.
        eval_color: Any = None

    cfg: Config

    def configure(self) -> None:
        get_activation(self.cfg.color_activation, "background.color_activation")
        self.encoding = get_encoding(3, self.cfg.dir_encoding_config)
        self.network = get_mlp(self.encoding.n_output_dims, self.cfg.n_output_dims, self.cfg.mlp_network_config)

    def forward(self, dirs: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W Nc"]:
        if not self.training and self.cfg.eval_color is not None:
            color = _color(self.cfg.eval_color, "background.eval_color").to(dirs)
            return color.expand(*dirs.shape[:-1], self.cfg.n_output_dims)
        encoded = self.encoding(((dirs + 1) / 2).reshape(-1, 3))
        color = self.network(encoded).view(*dirs.shape[:-1], self.cfg.n_output_dims)
        color = get_activation(self.cfg.color_activation)(color)
        if self.training and self.cfg.random_aug:
            color = random_colors(color, self.cfg.random_aug_prob)
        return color
