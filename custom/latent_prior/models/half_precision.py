"""Gradients through a half-precision network, kept in half precision's range.

Below 2^-24 a float16 is zero, and the gradient on one latent falls as one over their number; above 65504 it is infinite.
So the gradient is brought to one size where it enters the network, and back where it leaves it, by a power of two, which
rounds nothing. A gradient scaler of the trainer is neither needed nor in the way.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PEAK = 2.0**4  # about the largest entry of the gradient that enters: room for 12 doublings on the way, 28 halvings


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
    def forward(ctx, y, scale):
        ctx.dtype, ctx.scale = y.dtype, scale
        return y.float()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        scale = torch.exp2(torch.log2(PEAK / gradient.abs().amax()).round())
        ctx.scale[:] = [torch.where(scale.isfinite(), scale, 1.0)]
        return (gradient * ctx.scale[0]).to(ctx.dtype), None


def in_precision(network: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """network(x) in float32, computed in `dtype`; differentiable in x, once if `dtype` is a lower precision."""
    if dtype == torch.float32:
        return network(x.to(dtype))
    scale: list[Tensor] = []  # set when the gradient enters, read when it leaves
    return _Leave.apply(network(_Enter.apply(x, dtype, scale)), scale)
