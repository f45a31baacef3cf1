"""StyleGAN2 (Karras et al. 2020, *Analyzing and Improving the Image Quality of StyleGAN*) in plain torch.

Parameters and buffers have NVIDIA's names (stylegan3's `networks_stylegan2`), so that a checkpoint's tensors load as
they are; the arithmetic is that of NVIDIA's and rosinality's implementations, without their compiled operations.
Pictures are B 3 R R, nominally in [-1, 1]. `w+` is one style vector per layer, B num_ws D; each toRGB shares its style
with the next resolution's first convolution. Files are read and written by `files.py`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latent_prior import OptionError
from latent_prior.stylegan2.ops import modulated_conv2d, smoothing_filter, upsampled

NOISE_MODES = ("const", "random", "none")
MAPPING_LR_MULTIPLIER = 0.01
GAIN = math.sqrt(2)  # of the activation, so that it preserves the variance of its input


@dataclass(frozen=True)
class StyleGAN2Config:
    """The sizes of a generator. channels: feature maps at resolutions 4, 8, ..., R, in this order."""

    z_dim: int
    w_dim: int
    mapping_layers: int
    channels: tuple[int, ...]

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ..., R."""
        return tuple(4 * 2**i for i in range(len(self.channels)))

    @property
    def resolution(self) -> int:
        """Side of the pictures in pixels."""
        return self.resolutions[-1]

    @property
    def num_ws(self) -> int:
        """Styles per picture: one per convolution, and one for the last toRGB."""
        return 2 * len(self.channels)

    @staticmethod
    def of_size(
        resolution: int, z_dim: int = 512, w_dim: int = 512, mapping_layers: int = 8, base: int = 32768, most: int = 512
    ) -> "StyleGAN2Config":
        """NVIDIA's rule: min(base / R, most) channels at resolution R (base 16384: their `cbase`, half the width)."""
        if resolution < 8 or resolution & (resolution - 1):
            raise OptionError.because(f"resolution is {resolution}; expected a power of two, at least 8")
        sides = [2**i for i in range(2, resolution.bit_length())]
        return StyleGAN2Config(z_dim, w_dim, mapping_layers, tuple(min(base // side, most) for side in sides))

    @staticmethod
    def of_state(state: dict[str, Tensor]) -> "StyleGAN2Config":
        """The configuration of a state dict with our (NVIDIA's) names. OptionError, naming what is missing."""
        layers = 0
        while f"mapping.fc{layers}.weight" in state:
            layers += 1
        sides = sorted(int(name.split(".")[1][1:]) for name in state if name.endswith(".conv1.weight"))
        if not layers or not sides or sides != [4 * 2**i for i in range(len(sides))]:
            raise OptionError.because(
                "this is not a StyleGAN2 generator: expected mapping.fc0.weight, ... and synthesis.b4.conv1.weight, "
                f"b8.conv1.weight, ...; found {layers} mapping layers and resolutions {sides or 'none'}"
            )
        last, first = state[f"mapping.fc{layers - 1}.weight"], state["mapping.fc0.weight"]
        channels = tuple(state[f"synthesis.b{side}.conv1.weight"].shape[0] for side in sides)
        return StyleGAN2Config(first.shape[1], last.shape[0], layers, channels)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate; activation None or leaky ReLU ("lrelu")."""

    def __init__(self, fan_in: int, out: int, activation: str | None = None, lr_multiplier=1.0, bias_init=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, fan_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out,), bias_init / lr_multiplier))
        self.activation, self.lr_multiplier = activation, lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(fan_in)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        out = F.linear(x, self.weight * self.weight_gain, self.bias * self.lr_multiplier)
        return F.leaky_relu(out, 0.2) * GAIN if self.activation == "lrelu" else out


class Mapping(nn.Module):
    """z to w: z is normalised to unit mean square, then passed through fully connected layers with leaky ReLU."""

    def __init__(self, cfg: StyleGAN2Config):
        super().__init__()
        widths = [cfg.z_dim] + [cfg.w_dim] * cfg.mapping_layers
        for i in range(cfg.mapping_layers):
            setattr(self, f"fc{i}", FullyConnected(widths[i], widths[i + 1], "lrelu", MAPPING_LR_MULTIPLIER))
        self.layers = cfg.mapping_layers
        self.register_buffer("w_avg", torch.zeros(cfg.w_dim))

    def forward(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B D"]:
        w = normalised(z)
        for i in range(self.layers):
            w = getattr(self, f"fc{i}")(w)
        return w

    @torch.no_grad()
    def estimate_average(self, samples: int = 4096, seed: int = 0) -> None:
        """Set w_avg to the mean of w over `samples` z, for checkpoints without it."""
        z_dim, device = self.fc0.weight.shape[1], self.w_avg.device
        z = torch.randn(samples, z_dim, generator=torch.Generator().manual_seed(seed)).to(device)
        self.w_avg.copy_(self(z).mean(0))


def normalised(z: Float[Tensor, "B Z"]) -> Float[Tensor, "B Z"]:
    """z / sqrt(mean z^2 + 1e-8): a generator depends on z only through this."""
    return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; `up` doubles the size."""

    def __init__(self, fan_in: int, out: int, w_dim: int, resolution: int, up: bool = False):
        super().__init__()
        self.affine = FullyConnected(w_dim, fan_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out, fan_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", smoothing_filter())
        self.up = up

    def forward(
        self, x: Float[Tensor, "B I H W"], w: Float[Tensor, "B D"], noise_mode: str, generator=None
    ) -> Float[Tensor, "B O h w"]:
        kernel = self.resample_filter if self.up else None
        gain = 1 / math.sqrt(self.weight[0].numel())
        x = modulated_conv2d(x, self.weight * gain, self.affine(w), True, kernel)
        if noise_mode == "const":
            x = x + self.noise_const * self.noise_strength
        elif noise_mode == "random":
            shape = (len(x), 1, *x.shape[2:])
            drawn = torch.randn(shape, generator=generator, device=generator.device if generator else x.device)
            x = x + drawn.to(x) * self.noise_strength
        return F.leaky_relu(x + self.bias[:, None, None], 0.2) * GAIN


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to colours, without demodulation."""

    def __init__(self, fan_in: int, w_dim: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, fan_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, fan_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Float[Tensor, "B I H W"], w: Float[Tensor, "B D"]) -> Float[Tensor, "B 3 H W"]:
        style = self.affine(w) / math.sqrt(self.weight.shape[1])
        return modulated_conv2d(x, self.weight, style, demodulate=False) + self.bias[:, None, None]


class SynthesisBlock(nn.Module):
    """One resolution: conv0 (up), conv1, toRGB added to the upsampled picture. The first starts from a constant."""

    def __init__(self, fan_in: int, out: int, w_dim: int, resolution: int):
        super().__init__()
        self.register_buffer("resample_filter", smoothing_filter())
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(out, 4, 4))
        else:
            self.conv0 = SynthesisLayer(fan_in, out, w_dim, resolution, up=True)
        self.conv1 = SynthesisLayer(out, out, w_dim, resolution)
        self.torgb = ToRGB(out, w_dim)

    def forward(self, x, picture, ws: Float[Tensor, "B n D"], noise_mode: str, generator=None) -> tuple[Tensor, Tensor]:
        """ws: the styles of conv0 (not at 4x4), conv1 and toRGB."""
        styles = iter(ws.unbind(1))
        if hasattr(self, "const"):
            x = self.const.expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x, next(styles), noise_mode, generator)
        x = self.conv1(x, next(styles), noise_mode, generator)
        rgb = self.torgb(x, next(styles))
        return x, rgb if picture is None else upsampled(picture, self.resample_filter) + rgb


class Synthesis(nn.Module):
    """w+ to a picture."""

    def __init__(self, cfg: StyleGAN2Config):
        super().__init__()
        fan_in = 0
        for side, out in zip(cfg.resolutions, cfg.channels, strict=True):
            setattr(self, f"b{side}", SynthesisBlock(fan_in, out, cfg.w_dim, side))
            fan_in = out
        self.resolutions = cfg.resolutions

    def forward(
        self, ws: Float[Tensor, "B n D"], noise_mode: str = "const", generator: torch.Generator | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        if noise_mode not in NOISE_MODES:
            raise OptionError.because(f"noise_mode is {noise_mode!r}; expected one of {', '.join(NOISE_MODES)}")
        x = picture = None
        first = 0
        for side in self.resolutions:
            count = 2 if side == 4 else 3
            block = getattr(self, f"b{side}")
            x, picture = block(x, picture, ws[:, first : first + count], noise_mode, generator)
            first += count - 1  # the next block's first style is this block's last
        return picture


class StyleGAN2(nn.Module):
    """Mapping and synthesis: z to pictures."""

    def __init__(self, cfg: StyleGAN2Config):
        super().__init__()
        self.cfg = cfg
        self.mapping = Mapping(cfg)
        self.synthesis = Synthesis(cfg)

    def forward(
        self,
        z: Float[Tensor, "B Z"],
        truncation: float = 1.0,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B 3 R R"]:
        """Pictures of z (B z_dim, standard normal). truncation: see `styles`; noise_mode: const, random or none."""
        return self.synthesis(self.styles(z, truncation), noise_mode, generator)

    def styles(self, z: Float[Tensor, "B Z"], truncation: float = 1.0) -> Float[Tensor, "B n D"]:
        """w+ of z, with truncation psi towards the mean: w_avg + psi (w - w_avg)."""
        w = self.mapping(z)
        if truncation != 1:
            w = self.mapping.w_avg + truncation * (w - self.mapping.w_avg)
        return w[:, None].expand(-1, self.cfg.num_ws, -1)
