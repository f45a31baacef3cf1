"""Background reconstruction: a decoder fitted to one picture, so that unedited parts are reproduced faithfully.

An autoencoder loses fine detail everywhere, even where nothing was edited. Avrahami et al. 2023 (arXiv 2206.02779,
sec. 4.2) fine-tune the decoder's weights for a single latent: outside the mask towards the original, inside towards the
unmodified decoder's output.
"""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior.models.autoencoder import Autoencoder
from latent_prior.prior import require_finite

STEPS = 75
LEARNING_RATE = 1e-4
OUTSIDE_WEIGHT = 100.0


def reconstructed(
    autoencoder: Autoencoder,
    latents: Float[Tensor, "1 C h w"],
    original: Float[Tensor, "1 3 H W"],
    mask: Float[Tensor, "1 1 H W"],
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    on_step: Callable[[], None] = lambda: None,
) -> Float[Tensor, "1 3 H W"]:
    """Decode scaled latents to [0, 1] with a copy of the decoder fitted by Adam; the autoencoder is not modified.

    Loss, in the decoder's range [-1, 1]: MSE inside the mask (1) to the unmodified decoder's output, plus
    OUTSIDE_WEIGHT times the MSE outside to `original` (in [0, 1]), both as means over all pixels.
    Raises Diverged if the fit does not stay finite.
    """
    vae = copy.deepcopy(autoencoder.vae).float()
    device = next(vae.parameters()).device
    z = latents.to(device) / autoencoder.scaling_factor + autoencoder.shift_factor
    wanted, mask = original.to(device) * 2 - 1, mask.to(device)
    trained = [*vae.decoder.parameters()]
    if vae.post_quant_conv is not None:
        trained += vae.post_quant_conv.parameters()
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    with torch.no_grad():
        edit = vae.decode(z).sample
    with torch.enable_grad():
        for _ in range(steps):
            made = vae.decode(z).sample
            inside = ((made - edit) * mask).square().mean()
            outside = ((made - wanted) * (1 - mask)).square().mean()
            optimizer.zero_grad(set_to_none=True)
            (inside + OUTSIDE_WEIGHT * outside).backward()
            optimizer.step()
            on_step()
    with torch.no_grad():
        fitted = vae.decode(z).sample
        require_finite(
            {"the picture of the fitted decoder": fitted}, "change --reconstruction-steps; 0 does not fit it"
        )
        return (fitted * 0.5 + 0.5).clamp(0, 1)
