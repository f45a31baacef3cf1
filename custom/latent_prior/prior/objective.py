"""The prior's three terms for one batch, with the tensors they came from, and their weighted total.

total = lambda_sds LSD + lambda_fm FM + lambda_kl KL (Liao et al. 2023, arXiv 2302.08510). LSD is a sum over
C h w, FM and KL are means, so their balance depends on the latent's size; `lsd_loss` explains how to transfer weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.prior._checks import require_finite, require_one_of

# Name of the weight (system.loss.lambda_<name>) -> field of PriorLosses. threestudio calls our LSD "sds".
TERMS = {"sds": "lsd", "fm": "fm", "kl": "kl"}


@dataclass(frozen=True, eq=False)
class PriorLosses:
    """The prior's losses for latents `v` at noise levels `t`. A term that was not requested is None.

    N rows are the B latents, or with several noises for each the B latents with the first noise, with the second, ...
    The terms and `v` carry the graph; all other tensors are detached.
    """

    lsd: Float[Tensor, ""] | None  # latent score distillation, see lsd_loss
    fm: Float[Tensor, ""] | None  # feature matching, see fm_loss
    kl: Float[Tensor, ""] | None  # KL regulariser, see kl_loss
    t: Int[Tensor, " N"]  # drawn timesteps
    v: Float[Tensor, "B C h w"]  # scored latents, scaled
    eps: Float[Tensor, "N C h w"]  # drawn noise
    z_t: Float[Tensor, "N C h w"]  # noised latents
    eps_hat: Float[Tensor, "N C h w"]  # guided noise prediction
    delta: Float[Tensor, "N C h w"]  # noise residual, in the chosen variant
    x0_hat: Float[Tensor, "N C h w"]  # clean estimate that eps_hat implies

    def terms(self) -> dict[str, Float[Tensor, ""]]:
        """The terms that were computed, by the name of their weight: 'sds', 'fm', 'kl'."""
        values = {name: getattr(self, field) for name, field in TERMS.items()}
        return {name: value for name, value in values.items() if value is not None}

    def total(self, weights: Mapping[str, float]) -> Float[Tensor, ""]:
        """Weighted sum of the terms; a weight that is left out counts as 0.

        Raises OptionError, naming the term, for an unknown name, a weight that is negative or not finite, a positive
        weight on a term that was not computed, and a term that is not finite.
        """
        terms = self.terms()
        total = self.v.new_zeros(())
        for name, weight in weights.items():
            require_one_of(name, TERMS, "a weight's name")
            if not 0.0 <= weight < float("inf"):
                raise OptionError(f"the weight of {name!r}", weight, "a finite number >= 0")
            if weight == 0:
                continue
            if name not in terms:
                raise OptionError(f"the weight of {name!r}", weight, "0: the prior did not compute that term")
            require_finite({name: terms[name]})
            total = total + weight * terms[name]
        return total

    def gradient_norms(self) -> dict[str, Float[Tensor, ""]]:
        """Euclidean norm of each computed term's gradient on `v`, unweighted, with the keys of `terms`.

        The graph is kept. Costs one backward pass through the decoder for FM. A term that does not depend on `v`, as FM
        of pixels, is left out; all are if `v` requires no gradient.
        """
        if not self.v.requires_grad:
            return {}
        gradients = {
            name: torch.autograd.grad(term, self.v, retain_graph=True, allow_unused=True)[0]
            for name, term in self.terms().items()
        }
        return {name: gradient.norm() for name, gradient in gradients.items() if gradient is not None}
