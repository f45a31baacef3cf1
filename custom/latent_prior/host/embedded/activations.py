"""Activation functions by the names that configs use."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.registry import nearest


class _TruncExp(torch.autograd.Function):
    """exp(x) whose gradient stops growing at x = 15 (Mueller et al. 2022), in float32 even under autocast."""

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


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "trunc_exp": trunc_exp,
}


def get_activation(name: str | None, key: str = "activation") -> Callable[[Tensor], Tensor]:
    """The activation called `name` (case is ignored; None and 'none' are the identity).

    Raises OptionError for an unknown name; `key` is the config key it came from, for the message.
    """
    found = ACTIVATIONS.get(str(name).lower())
    if found is None:
        raise OptionError(key, name, f"one of {', '.join(ACTIVATIONS)}{nearest(name, ACTIVATIONS)}")
    return found
