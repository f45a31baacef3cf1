"""Gradients through a half-precision network, kept within the range of half precision.

A float16 is zero below 2^-24 and infinite above 65504, and the gradient on one latent falls as one over their number.
So the gradient is scaled to a fixed size where it enters the network and scaled back where it leaves, by a power of
two, which causes no rounding. The trainer needs no gradient scaler, but may have one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PEAK = 2.0**4  # about the largest entry of the entering gradient: leaves room for 12 doublings and 28 halvings


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dtype, scale):
        ctx.dtype, ctx.scale = x.dtype, scale
        return x.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient.to(ctx.dtype) / ctx.scale[0], None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, *ys):
        ctx.dtype, ctx.scale = ys[0].dtype, scale
        return tuple(y.float() for y in ys)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        peak = torch.stack([gradient.abs().amax() for gradient in gradients]).amax()
        scale = torch.exp2(torch.log2(PEAK / peak).round())
        ctx.scale[:] = [torch.where(scale.isfinite(), scale, 1.0)]
        return None, *((gradient * ctx.scale[0]).to(ctx.dtype) for gradient in gradients)


def in_precision(network: Callable[[Tensor], Sequence[Tensor]], x: Tensor, dtype: torch.dtype) -> Sequence[Tensor]:
    """Outputs of network(x) in float32, computed in `dtype`; differentiable in x, in a lower precision only once."""
    if dtype == torch.float32:
        return network(x.to(dtype))
    scale: list[Tensor] = []  # set when the gradients enter the network, read when they leave it
    return _Leave.apply(scale, *network(_Enter.apply(x, dtype, scale)))
