"""The discriminator of the pocket StyleGAN: a small version of StyleGAN2's (Karras et al. 2020) on fine detail.

Its input is the detail of a picture above a quarter of its resolution. On whole pictures it cannot even distinguish a
blurred mug from a sharp one; on the detail alone it can within a hundred steps.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latent_prior.stylegan2.generator import FullyConnected
from latent_prior.stylegan2.ops import filtered, smoothing_filter

GROUP = 4  # pictures per group for the standard deviation


class Convolution(nn.Module):
    """Convolution with equalised learning rate; `down` filters and halves the size, `activate` adds bias and leaky ReLU."""

    def __init__(self, fan_in: int, out: int, kernel: int, down: bool = False, activate: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out)) if activate else None
        self.gain = 1 / math.sqrt(fan_in * kernel**2)
        self.down = down
        self.register_buffer("resample_filter", smoothing_filter())

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        side = self.weight.shape[-1]
        if self.down:
            x = filtered(x, self.resample_filter, ((side + 2) // 2, (side + 1) // 2))
            x = F.conv2d(x, self.weight * self.gain, stride=2)
        else:
            x = F.conv2d(x, self.weight * self.gain, padding=side // 2)
        return x if self.bias is None else F.leaky_relu(x + self.bias[:, None, None], 0.2) * math.sqrt(2)


class Halving(nn.Module):
    """Residual block: two convolutions, the second halving the size, and a linear skip connection."""

    def __init__(self, fan_in: int, out: int):
        super().__init__()
        self.conv0 = Convolution(fan_in, fan_in, 3)
        self.conv1 = Convolution(fan_in, out, 3, down=True)
        self.skip = Convolution(fan_in, out, 1, down=True, activate=False)

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        return (self.conv1(self.conv0(x)) + self.skip(x)) / math.sqrt(2)


def group_spread(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    """The standard deviation over groups of pictures, averaged, as an extra feature map (Karras et al. 2018)."""
    group = math.gcd(len(x), GROUP)
    spread = x.view(group, -1, *x.shape[1:]).var(0, unbiased=False).add(1e-8).sqrt().mean((1, 2, 3))
    return spread.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])


def detail(pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The detail of a picture above a quarter of its resolution, with twice the contrast."""
    coarse = F.interpolate(pictures, scale_factor=0.25, mode="area")
    return 2 * (pictures - F.interpolate(coarse, pictures.shape[-2:], mode="bilinear", align_corners=False))


class Discriminator(nn.Module):
    """One logit per picture in [-1, 1]: above 0 means real."""

    def __init__(self, resolution: int, channels: tuple[int, ...] = (32, 48, 64, 96)):
        super().__init__()
        self.from_rgb = Convolution(3, channels[0], 1)
        self.blocks = nn.Sequential(*(Halving(a, b) for a, b in zip(channels, channels[1:], strict=False)))
        side = resolution >> (len(channels) - 1)
        self.last = Convolution(channels[-1] + 1, channels[-1], 3)
        self.hidden = FullyConnected(channels[-1] * side * side, channels[-1], "lrelu")
        self.logit = FullyConnected(channels[-1], 1)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
        x = self.blocks(self.from_rgb(detail(pictures)))
        x = self.last(torch.cat([x, group_spread(x)], 1))
        return self.logit(self.hidden(x.flatten(1)))[:, 0]
