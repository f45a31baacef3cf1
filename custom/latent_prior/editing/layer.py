"""The layer generator: from a picture to an RGBA layer over it (Text2LIVE, Bar-Tal et al. 2022, arXiv 2204.02491).

An hourglass with as many scales as the picture allows. At every scale a thin skip branch preserves location and a deep
branch continues at half the size; both are joined on the way up. Pictures are B 3 H W in [0, 1], C is the width.
Normalisation uses the statistics of the current batch in evaluation too, so that the output is the same as in training;
of several processes, those of the batch of all.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latent_prior import OptionError, host
from latent_prior.host import ranks

LARGEST_SCALES = 16
MOST_SCALES = 7  # Text2LIVE's, for pictures of 512 pixels
CODES = ("bottleneck", "input", "none")
CODE_SIDE = 8  # of the code's map; the next normalisation would cancel a single vector for all pixels
SLOPE = 0.2
# Colours are predicted in coordinates that are uncorrelated in natural pictures: rows are red, green, blue.
DECORRELATED = ((0.563, 0.312, 0.069), (0.584, 0.0, -0.173), (0.584, -0.312, 0.104))


@dataclass
class LayerGeneratorConfig:
    """Sizes of the hourglass; the generator itself needs `scales` to be set."""

    scales: int | None = None  # halvings of the picture; None: `scales_for` its size
    channels: int = 128  # of the deep branches
    skip_channels: int = 4  # of the skip branches
    code: str = "bottleneck"  # where the trainable code is added: bottleneck, input or none
    code_channels: int = 16  # of the code, which is a map


@dataclass(frozen=True)
class Layer:
    """The colour of the layer and its opacity; both in [0, 1]."""

    rgb: Float[Tensor, "B 3 H W"]
    alpha: Float[Tensor, "B 1 H W"]

    def over(self, background: Float[Tensor, "#B 3 #H #W"]) -> Float[Tensor, "B 3 H W"]:
        """alpha rgb + (1 - alpha) background."""
        return self.alpha * self.rgb + (1 - self.alpha) * background


def scales_for(short_side: int) -> int:
    """The most scales, up to MOST_SCALES, that leave two pixels at the bottom. OptionError for sides below 8."""
    if short_side < 8:
        raise OptionError("short_side", short_side, "at least 8 pixels for the layer generator")
    return min(MOST_SCALES, short_side.bit_length() - 2)


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, padding_mode="reflect")


class BatchNorm(nn.BatchNorm2d):
    """Normalisation by the mean and variance of the batch, of all processes (torch's SyncBatchNorm needs GPUs)."""

    def __init__(self, channels: int):
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        if ranks.world() == 1:
            return super().forward(x)
        mean = ranks.mean_over(x.mean((0, 2, 3), keepdim=True))
        variance = ranks.mean_over((x - mean).square().mean((0, 2, 3), keepdim=True))
        normal = (x - mean) * (variance + self.eps).rsqrt()
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


def _block(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [_convolution(inputs, outputs, size, stride), BatchNorm(outputs), nn.LeakyReLU(SLOPE)]


class Scale(nn.Module):
    """One scale: the skip branch, the deep branch with everything below it, and their joining."""

    def __init__(self, inputs: int, cfg: LayerGeneratorConfig, below: nn.Module, outermost: bool):
        super().__init__()
        wide = cfg.channels
        self.skip = nn.Sequential(*_block(inputs, cfg.skip_channels, 1))
        self.deep = nn.Sequential(*_block(inputs, wide, 3, stride=2), *_block(wide, wide, 3))
        self.below = below
        last = [_convolution(wide, wide, 1), *([] if outermost else [BatchNorm(wide)]), nn.LeakyReLU(SLOPE)]
        self.join = nn.Sequential(
            BatchNorm(wide + cfg.skip_channels), *_block(wide + cfg.skip_channels, wide, 3), *last
        )

    def forward(self, x: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B C H W"]:
        skip = self.skip(x)
        deep = F.interpolate(self.below(self.deep(x)), scale_factor=2, mode="bilinear", align_corners=False)
        return self.join(torch.cat([_centre(deep, *skip.shape[-2:]), skip], 1))


class Bottom(nn.Module):
    """Below the last scale: where the code is added, if it is added here."""

    def __init__(self, cfg: LayerGeneratorConfig):
        super().__init__()
        self.code = _code(cfg) if cfg.code == "bottleneck" else None
        if self.code is not None:
            self.mix = nn.Sequential(*_block(cfg.channels + cfg.code_channels, cfg.channels, 1))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return x if self.code is None else self.mix(_with_code(x, self.code))


class LayerGenerator(nn.Module):
    """Picture to layer. About 3 M parameters at seven scales."""

    def __init__(self, cfg: LayerGeneratorConfig):
        super().__init__()
        if cfg.code not in CODES:
            raise OptionError("code", cfg.code, f"one of {', '.join(CODES)}")
        for name in ("scales", "channels", "skip_channels", "code_channels"):
            if getattr(cfg, name) < 1:
                raise OptionError(name, getattr(cfg, name), "at least 1")
        if cfg.scales > LARGEST_SCALES:
            raise OptionError("scales", cfg.scales, f"at most {LARGEST_SCALES}: each halves the picture")
        wide, thin, code = cfg.channels, cfg.skip_channels, cfg.code_channels
        weights = cfg.scales * (27 * wide**2 + 10 * wide * thin) + code * (wide + CODE_SIDE**2)
        host.require_memory(weights, {"channels": wide, "skip_channels": thin, "code_channels": code}, trained=True)
        self.cfg = cfg
        self.code = _code(cfg) if cfg.code == "input" else None
        inputs = 3 + (cfg.code_channels if cfg.code == "input" else 0)
        net: nn.Module = Bottom(cfg)
        for scale in reversed(range(cfg.scales)):
            net = Scale(inputs if scale == 0 else cfg.channels, cfg, net, outermost=scale == 0)
        self.hourglass = net
        self.head = nn.Conv2d(cfg.channels, 4, 1)
        self.register_buffer("colours", torch.tensor(DECORRELATED), persistent=False)

    def forward(self, picture: Float[Tensor, "B 3 H W"]) -> Layer:
        """The layer over a picture in [0, 1]. Raises OptionError if it is too small for the scales."""
        least = 2 ** (self.cfg.scales + 1)
        if min(picture.shape[-2:]) < least:
            height, width = picture.shape[-2:]
            raise OptionError.because(
                f"a picture of {width}x{height} is too small for {self.cfg.scales} scales, which need sides of {least}: "
                "raise data.short_side, or lower system.generator.scales"
            )
        x = picture * 2 - 1
        logits = self.head(self.hourglass(x if self.code is None else _with_code(x, self.code)))
        painted = torch.einsum("ij,bjhw->bihw", self.colours, logits[:, :3])
        return Layer(torch.sigmoid(painted), torch.sigmoid(logits[:, 3:]))


def _code(cfg: LayerGeneratorConfig) -> nn.Parameter:
    return nn.Parameter(torch.randn(1, cfg.code_channels, CODE_SIDE, CODE_SIDE))


def _with_code(x: Float[Tensor, "B C H W"], code: Float[Tensor, "1 K S S"]) -> Float[Tensor, "B D H W"]:
    code = F.interpolate(code, x.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([x, code.expand(len(x), -1, -1, -1)], 1)


def _centre(x: Float[Tensor, "B C H W"], height: int, width: int) -> Float[Tensor, "B C h w"]:
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]
