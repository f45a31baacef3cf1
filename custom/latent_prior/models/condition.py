"""Prompt conditions of latents, and the guided noise prediction under them, in one batched call of the denoiser.

B latents, L tokens of width D. The denoiser's rows are ordered [conditional, unconditional, negatives, null].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.checkpoint import KEY
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.options import PriorOptions
from latent_prior.prior import classifier_free_guidance, perp_neg, rescale_guidance


@dataclass(frozen=True, eq=False)
class Condition:
    """Prompt embeddings of a batch of latents."""

    cond: Float[Tensor, "B L D"]  # the prompt
    uncond: Float[Tensor, "B L D"]  # the negative prompt, by default the empty one
    negatives: Float[Tensor, "B N L D"] | None = None  # perp-neg's negative prompts; None: plain guidance
    negative_weights: Float[Tensor, "B N"] | None = None  # their weights, <= 0
    null: Float[Tensor, "B L D"] | None = None  # the empty prompt, which noise-free distillation needs too

    def __getitem__(self, rows: slice) -> "Condition":
        """The condition of some of the latents."""
        given = {name: part for name, part in vars(self).items() if part is not None}
        return Condition(**{name: part[rows] for name, part in given.items()})

    def repeat(self, copies: int) -> "Condition":
        """The condition of the latents repeated so many times, one batch after another."""
        given = {name: part for name, part in vars(self).items() if part is not None}
        return Condition(**{name: part.repeat(copies, *[1] * (part.ndim - 1)) for name, part in given.items()})


def check_condition(condition: Condition, denoiser: Denoiser, options: PriorOptions) -> None:
    """Raise OptionError, naming the prompt processor's key, if prompts do not fit the checkpoint or the score."""
    width, expected = condition.cond.shape[-1], denoiser.condition_width
    if width != expected:
        raise OptionError.because(
            f"prompt embeddings are {width} wide, but the denoiser expects {expected}: use that of system.guidance", KEY
        )
    if condition.negatives is not None and options.score in ("csd", "nfsd", "bridge"):
        raise OptionError("use_perp_neg", True, f"false: the score {options.score!r} does not support perp-neg")
    if options.score == "nfsd" and (condition.null is None or torch.equal(condition.uncond, condition.null)):
        flaws = "'unrealistic, blurry, low quality'"
        raise OptionError(
            "negative_prompt",
            "",
            f"one that names flaws, such as {flaws}: without it the domain term of score 'nfsd' is zero at high noise",
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """The denoiser's estimates of noise and clean latents, a row for each latent and prompt."""

    eps: Float[Tensor, "N C h w"]
    x0: Float[Tensor, "N C h w"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for a batch of noised latents, without gradients."""

    eps_hat: Float[Tensor, "B C h w"]  # noise, guided
    x0_hat: Float[Tensor, "B C h w"]  # clean latent, guided: what eps_hat implies, defined at alpha = 0 too
    eps_cond: Float[Tensor, "B C h w"]
    eps_uncond: Float[Tensor, "B C h w"]
    eps_null: Float[Tensor, "B C h w"] | None
    rows: Rows  # what it was made from


@torch.no_grad()
def predict(
    denoiser: Denoiser,
    z_t: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    condition: Condition,
    options: PriorOptions,
) -> Prediction:
    """Guided prediction in one batched call: classifier-free guidance, or perp-neg if there are negatives."""
    batch, negatives, null = len(z_t), condition.negatives, condition.null
    rows = [condition.cond, condition.uncond]
    rows += [] if negatives is None else [negatives.flatten(0, 1)]
    rows += [] if null is None else [null]
    # negatives are ordered by sample, so their latents are repeated in that order
    each = 0 if negatives is None else negatives.shape[1]
    index = torch.arange(batch, device=z_t.device)
    index = torch.cat([index, index, index.repeat_interleave(each), index[: 0 if null is None else batch]])
    eps, x0 = denoiser(z_t[index], t[index], torch.cat([row.to(z_t.dtype) for row in rows]))
    return guided(Rows(eps, x0), denoiser, t, condition, options.guidance_scale, options.guidance_rescale)


def guided(
    rows: Rows, denoiser: Denoiser, t: Int[Tensor, "B"], condition: Condition, scale: float, rescale: float = 0.0
) -> Prediction:
    """The prediction that rows give at a guidance scale.

    Guidance is linear in differences of predictions, so the same formula guides the noise and the clean latent.
    """
    batch, negatives, null = len(t), condition.negatives, condition.null
    each = 0 if negatives is None else negatives.shape[1]

    def combined(rows: Tensor) -> Tensor:
        cond, uncond = rows[:batch], rows[batch : 2 * batch]
        if negatives is None or condition.negative_weights is None:
            return classifier_free_guidance(cond, uncond if null is None else rows[-batch:], scale)
        negs = rows[2 * batch : (2 + each) * batch].unflatten(0, (batch, each))
        return perp_neg(cond, uncond, negs, condition.negative_weights, scale)

    eps, x0 = rows.eps, rows.x0
    eps_hat, x0_hat = combined(eps), combined(x0)
    if rescale:
        rescaled = rescale_guidance(x0_hat, x0[:batch], rescale)
        # the same as eps_from_x0(rescaled), without subtracting two nearly equal numbers at low noise
        eps_hat = eps_hat + (x0_hat - rescaled) * denoiser.schedule.alpha(t) / denoiser.schedule.sigma(t)
        x0_hat = rescaled
    eps_null = None if null is None else eps[-batch:]
    return Prediction(eps_hat, x0_hat, eps[:batch], eps[batch : 2 * batch], eps_null, rows)
