"""Feature matching (FM): compares the latent with the model's target for it, in the decoder's feature space.

`features` maps a scaled latent B C h w to a list of decoder feature maps G^l, each B C_l h_l w_l. `delta` is the noise
residual eps_hat - eps. Source: Liao et al. 2023 (arXiv 2302.08510): its method figure prints the target v + delta.
Read literally, with the target detached, its gradient opposes that of score distillation (shown in
tests/prior/test_feature_matching.py). The gradients of the readings offered here all agree with it:
    residual   sg[G(v - delta)] against G(v)
    paper      sg[G(v)] against G(v + delta), the gradient taken through the displaced branch
    denoised   sg[G(x0_hat)] against G(v), x0_hat the model's clean estimate

`pixel_loss` compares at the decoder's very end, with the picture itself in place of G(v).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior.prior._checks import require_one_of

FM_TARGETS = ("residual", "paper", "denoised")
PIXELS = "pixels"  # the target of `pixel_loss`


def fm_loss(
    features: Callable[[Tensor], Sequence[Tensor]],
    v: Float[Tensor, "B C h w"],
    delta: Float[Tensor, "B C h w"],
    x0_hat: Float[Tensor, "B C h w"] | None = None,
    target: str = "residual",
) -> Float[Tensor, ""]:
    """sum over layers l of mean |G^l(moving) - sg[G^l(fixed)]|, the pair set by `target` (see the module docstring).

    Only 'denoised' uses `x0_hat`. Raises OptionError for an unknown target, ValueError if x0_hat or layers are missing.

    Reduction: per layer the mean over B and all entries of the map, then the sum over layers. The value does not depend
    on the sizes of the latent and the maps; doubling the number of layers about doubles it. The gradient on one entry
    of v falls as 1 / (B C h w), that of LSD only as 1 / B (see `lsd_loss`).
    """
    require_one_of(target, FM_TARGETS, "fm_target")
    delta = delta.detach()
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
    return torch.stack([(a - b).abs().mean() for a, b in zip(moving_maps, fixed_maps, strict=True)]).sum()


def pixel_loss(
    pictures: Float[Tensor, "N 3 H W"], target: Float[Tensor, "N 3 H W"], alpha_bar: Float[Tensor, "N 1 1 1"]
) -> Float[Tensor, ""]:
    """mean of alpha_bar_t |x - sg D(x0_hat)|: pictures in [0, 1] against the decoded clean estimate.

    Its gradient does not pass through the encoder, and so corrects what the encoder hardly sees, such as the hue of thin
    stripes. A noisy estimate counts less. Source: the image loss of Zhu et al. 2023, "HiFA" (arXiv 2305.18766), with the
    L1 norm and a weight that stays finite.
    """
    return (alpha_bar * (pictures - target.detach()).abs()).mean()
