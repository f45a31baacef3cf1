"""A loss whose gradient is computed at once, on the spot, and handed on when the caller runs backward.

The decoder's graph is freed before the renderer's backward begins, and the decoder is walked back once however many
gradients are asked of the result.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, value, gradient):
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def linearised(loss: Callable[[Tensor], Tensor], v: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """loss(v), a scalar, with its gradient on `v` known already; differentiable once.

    Where no gradient on `v` can be wanted, none is computed.
    """
    if not (torch.is_grad_enabled() and v.requires_grad):
        with torch.no_grad():
            return loss(v)
    leaf = v.detach().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return _KnownGradient.apply(v, value.detach(), gradient)
