"""A loss whose gradient is computed at once and passed on when the caller runs the backward pass.

The decoder's graph is freed before the renderer's backward pass begins, and the decoder is backpropagated once, however
many gradients of the result are computed.
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
    """loss(v), a scalar, with its gradient on `v` already computed; differentiable once.

    No gradient is computed if `v` does not require one.
    """
    if not (torch.is_grad_enabled() and v.requires_grad):
        with torch.no_grad():
            return loss(v)
    leaf = v.detach().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return _KnownGradient.apply(v, value.detach(), gradient)
