"""The two operations of StyleGAN2: resampling with a fixed filter, and convolution modulated per sample.

Karras et al. 2020, *Analyzing and Improving the Image Quality of StyleGAN*. Plain torch, no compiled operations.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def smoothing_filter() -> Float[Tensor, "4 4"]:
    """The outer product of [1 3 3 1] with itself, with sum 1: the filter for every change of resolution."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    square = line[:, None] * line[None]
    return square / square.sum()


def filtered(x: Float[Tensor, "B C H W"], kernel: Float[Tensor, "4 4"], padding: tuple[int, int]) -> Tensor:
    """Each channel zero-padded by (before, after) on both axes and filtered; the filter is symmetric."""
    channels = x.shape[1]
    padded = F.pad(x, (*padding, *padding))
    return F.conv2d(padded, kernel.to(x.dtype).expand(channels, 1, 4, 4), groups=channels)


def upsampled(x: Float[Tensor, "B C H W"], kernel: Float[Tensor, "4 4"]) -> Float[Tensor, "B C 2*H 2*W"]:
    """Twice the size: zeros between the pixels, then the filter with gain 4 (upfirdn, padding 2 before, 1 after)."""
    B, C, H, W = x.shape
    spread = x.new_zeros(B, C, H, 2, W, 2)
    spread[:, :, :, 0, :, 0] = x
    return filtered(spread.view(B, C, 2 * H, 2 * W), kernel * 4, (2, 1))


def modulated_conv2d(
    x: Float[Tensor, "B I H W"],
    weight: Float[Tensor, "O I k k"],
    style: Float[Tensor, "B I"],
    demodulate: bool,
    upsampling_kernel: Float[Tensor, "4 4"] | None = None,
) -> Float[Tensor, "B O h w"]:
    """Convolution by weights scaled per sample: w' = s w, and if `demodulate` w'' = w' / sqrt(sum w'^2 + 1e-8).

    Eq. 1 and 3 of the paper. Scaling the input by s and the output by the demodulation factor is equivalent and needs
    only one convolution for the whole batch. With `upsampling_kernel` the output is twice as large.
    """
    out = x * style[:, :, None, None]
    if upsampling_kernel is None:
        out = F.conv2d(out, weight, padding=weight.shape[-1] // 2)
    else:
        out = F.conv_transpose2d(out, weight.transpose(0, 1), stride=2)
        out = filtered(out, upsampling_kernel * 4, (1, 1))
    if demodulate:
        power = style.square() @ weight.square().sum((2, 3)).T
        out = out * torch.rsqrt(power + 1e-8)[:, :, None, None]
    return out
