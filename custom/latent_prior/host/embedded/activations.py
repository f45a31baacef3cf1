"""Activation functions by the names that configs use."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.registry import nearest


class _TruncExp(torch.autograd.Function):
    """exp(x) whose gradient stops growing at x = 15 (Mueller et al. 2022), in float32 also under autocast."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        ctx.save_for_backward(x)
        return torch.exp(x)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx, grad: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        (x,) = ctx.saved_tensors
        return grad * torch.exp(x.clamp(max=15))


def trunc_exp(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """exp(x), with a gradient of at most g * exp(15)."""
    return _TruncExp.apply(x)


def lin2srgb(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Linear light to the sRGB curve (IEC 61966-2-1), clamped to [0, 1]."""
    curve = 1.055 * x.clamp(min=0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(x > 0.0031308, curve, 12.92 * x).clamp(0.0, 1.0)


_BY_NAME: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "lin2srgb": lin2srgb,
    "exp": torch.exp,
    "shifted_exp": lambda x: torch.exp(x - 1.0),
    "trunc_exp": trunc_exp,
    "shifted_trunc_exp": lambda x: trunc_exp(x - 1.0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "shifted_softplus": lambda x: F.softplus(x - 1.0),
    "scale_-11_01": lambda x: x * 0.5 + 0.5,
}


def get_activation(name: str | None, key: str = "") -> Callable[[Tensor], Tensor]:
    """The activation called `name` (case is ignored; None and 'none' are the identity).

    Any function of torch.nn.functional serves too, e.g. 'softplus'. Raises ValueError for an unknown name; `key` is the
    config key it came from, for the message.
    """
    if name is None:
        return _BY_NAME["none"]
    name = name.lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    function = getattr(F, name, None)
    if not callable(function):
        where, known = f"{key}: " if key else "", [*_BY_NAME, "relu", "softplus", "silu", "gelu"]
        raise OptionError.because(
            f"{where}unknown activation {name!r}{nearest(name, known)} (known: {', '.join(known)})"
        )
    return function
