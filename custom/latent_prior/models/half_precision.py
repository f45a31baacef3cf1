"""Gradients through a half-precision network, kept in half precision's range.

Below 2^-24 a float16 is zero, and the gradient on one latent falls as one over their number; above 65504 it is infinite.
So the gradient is brought to one size where it enters the network, and back where it leaves it, by a power of two, which
rounds nothing. A gradient scaler of the trainer is neither needed nor in the way.
"""

from collections.abc import Callable, Sequence

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
    """Outputs of network(x) in float32, computed in `dtype`; differentiable in x, once in a lower precision."""
    if dtype == torch.float32:
        return network(x.to(dtype))
    scale: list[Tensor] = []  # set when the gradients enter, read when theirs leaves
    return _Leave.apply(scale, *network(_Enter.apply(x, dtype, scale)))
