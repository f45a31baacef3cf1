"""One tensor per prompt: Stable Diffusion XL's pooled embedding as additional rows below the hidden states.

A host's prompt processor passes on one tensor per prompt. So the pooled embedding (P numbers) is stored in ceil(P / D)
rows of the hidden states' width D, padded with zeros, and extracted again before the denoiser.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def packed(hidden: Float[Tensor, "B L D"], pooled: Float[Tensor, "B P"]) -> Float[Tensor, "B R D"]:
    """Hidden states with the pooled embedding below them."""
    width = hidden.shape[-1]
    rows = F.pad(pooled, (0, -pooled.shape[-1] % width)).unflatten(-1, (-1, width))
    return torch.cat([hidden, rows], dim=1)


def unpacked(
    condition: Float[Tensor, "B R D"], pooled_width: int
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B P"]]:
    """(hidden states, pooled embedding) of `packed`."""
    rows = -(-pooled_width // condition.shape[-1])
    return condition[:, :-rows], condition[:, -rows:].flatten(1)[:, :pooled_width]
