"""Pixel-wise clipping of the gradient that comes back through an encoder (Pan et al. 2023, arXiv 2310.12474).

The encoder's backward pass makes large gradients at few pixels, which show as specks. Each pixel's gradient is scaled
down to a bound, with its direction kept. Their bound is a number; ours is a multiple of the picture's mean, so that it
does not depend on the weights of the losses.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class PixelClip(torch.autograd.Function):
    """Pictures B C H W as they are; their gradient with norms over C of at most `bound` times the picture's mean norm."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, bound: float) -> Tensor:
        ctx.bound = bound
        return pictures.view_as(pictures)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        norm = gradient.norm(dim=1, keepdim=True)
        most = ctx.bound * norm.mean(dim=(2, 3), keepdim=True)
        return gradient * (most / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp(max=1), None
