"""Feature matching (FM): compares the latent with the model's target for it, in the decoder's feature space.

`features` maps a scaled latent B C h w to a list of decoder feature maps G^l, each B C_l h_l w_l. `delta` is the noise
residual eps_hat - eps. Source: Liao et al. 2023 (arXiv 2302.08510): its method figure prints the target v + delta.
Read literally, with the target detached, its gradient opposes that of score distillation (shown in
tests/prior/test_feature_matching.py). The gradients of the readings offered here all agree with it:
    residual   sg[G(v - step delta)] against G(v)
    paper      sg[G(v)] against G(v + step delta), the gradient taken through the displaced branch
    denoised   sg[G(x0_hat)] against G(v), x0_hat the model's clean estimate: a step of sigma/alpha

The losses of pixels compare at the decoder's very end, with the picture itself in place of G(v), so their gradients do
not pass through the encoder, and correct what the encoder hardly sees, such as the hue of thin stripes.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.prior._checks import require_one_of

FM_TARGETS = ("residual", "paper", "denoised")
PIXELS = ("pixels", "pixel_step")  # the targets of `pixel_loss` and `pixel_step_loss`
FM_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.abs, "mse": torch.square}
FM_NORMALISATIONS = ("none", "shared")
TINY = 1e-6  # added to a norm that is divided by, as in the released code of LPL


def fm_loss(
    features: Callable[[Tensor], Sequence[Tensor]],
    v: Float[Tensor, "B C h w"],
    delta: Float[Tensor, "B C h w"],
    x0_hat: Float[Tensor, "B C h w"] | None = None,
    target: str = "residual",
    *,
    step: Float[Tensor, "B 1 1 1"] | float = 1.0,
    loss: str = "l1",
    normalise: str = "none",
    level_weights: Sequence[float] | None = None,
) -> Float[Tensor, ""]:
    """sum over layers l of c_l mean d(G^l(moving) - sg[G^l(fixed)]), the pair set by `target` (see the module docstring).

    step: how far along delta the improved latent lies, for 'residual' and 'paper'; 'denoised' alone uses `x0_hat`.
    loss: d, l1 (absolute values) or mse (squares). normalise: 'shared' divides both maps, at each place, by the norm
    over the channels of the one that is fixed. level_weights: c_l, one a layer; None: all 1. Berrada et al. 2025,
    "Boosting Latent Diffusion with Perceptual Objectives" (LPL, arXiv 2411.04873), has mse, shared, and
    c_l = 2^-min(l, 3) from the middle block on.
    Raises OptionError for an unknown name or a wrong number of weights, ValueError if x0_hat or layers are missing.

    Reduction: per layer the mean over B and all entries of the map, then the sum over layers. The value does not depend
    on the sizes of the latent and the maps; doubling the number of layers about doubles it. The gradient on one entry
    of v falls as 1 / (B C h w), that of LSD only as 1 / B (see `lsd_loss`).
    """
    require_one_of(target, FM_TARGETS, "fm_target")
    require_one_of(loss, FM_LOSSES, "fm_loss")
    require_one_of(normalise, FM_NORMALISATIONS, "fm_normalise")
    delta = (step * delta).detach()
    if target == "residual":
        moving, fixed = v, v - delta
    elif target == "paper":
        moving, fixed = v + delta, v
    else:
        if x0_hat is None:
            raise ValueError("fm_target 'denoised' needs the clean estimate x0_hat; none was given")
        moving, fixed = v, x0_hat
    with torch.no_grad():
        fixed_maps = features(fixed.detach())
    moving_maps = features(moving)
    if len(moving_maps) == 0:
        raise ValueError("`features` returned no maps; expected those of at least one decoder layer")
    weights = [1.0] * len(moving_maps) if level_weights is None else list(level_weights)
    if len(weights) != len(moving_maps):
        raise OptionError("fm_level_weights", weights, f"{len(moving_maps)} weights, one a layer, or None")
    total = []
    for weight, moved, kept in zip(weights, moving_maps, fixed_maps, strict=True):
        difference = moved - kept
        if normalise == "shared":
            difference = difference / (torch.linalg.vector_norm(kept, dim=1, keepdim=True) + TINY)
        total.append(weight * FM_LOSSES[loss](difference).mean())
    return torch.stack(total).sum()


def pixel_loss(
    pictures: Float[Tensor, "N 3 H W"],
    target: Float[Tensor, "N 3 H W"],
    alpha_bar: Float[Tensor, "N 1 1 1"],
    loss: str = "l1",
) -> Float[Tensor, ""]:
    """mean of alpha_bar_t d(x - sg D(x0_hat)): pictures in [0, 1] against the decoded clean estimate.

    A noisy estimate counts less. Source: the image loss of Zhu et al. 2023, "HiFA" (arXiv 2305.18766), with d the L1
    norm or squares, and a weight that stays finite.
    """
    require_one_of(loss, FM_LOSSES, "fm_loss")
    return (alpha_bar * FM_LOSSES[loss](pictures - target.detach())).mean()


def pixel_step_loss(
    pictures: Float[Tensor, "N 3 H W"],
    decoded: Float[Tensor, "N 3 H W"],
    improved: Float[Tensor, "N 3 H W"],
    loss: str = "l1",
) -> Float[Tensor, ""]:
    """mean of d(x - sg[x + D(v - step delta) - D(v)]): the decoded step of the latent, as a step of the picture.

    decoded, improved: D(v) and D(v - step delta); what the autoencoder itself loses is in both, and cancels. The value
    is the size of the step, since the target moves along. Source: PixSDS (arXiv 2608.12997), whose lookahead this is.
    """
    require_one_of(loss, FM_LOSSES, "fm_loss")
    target = (pictures + improved - decoded).detach()
    return FM_LOSSES[loss](pictures - target).mean()
