"""`latent-prior paint`: one picture under the prior, to see in seconds what a score or a term does.

What is optimised is the latent `v`, or the picture itself, which is then encoded in every step. Timesteps fall from
the highest to the lowest (Zhu et al. 2023, "HiFA"): the outline comes first, the details last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from latent_prior import LatentPrior, OptionError
from latent_prior.models.options import PriorOptions
from latent_prior.prior import PIXELS, PriorLosses, require_finite

LATENT, PICTURE = "latent", "picture"
RATES = {LATENT: 0.1, PICTURE: 0.02}  # of Adam
BETAS = (0.9, 0.99)
FRAMES = 40  # of the film at most
PULLS = 4  # times at which the terms' gradients are shown
PULL = 0.2  # root mean square of the step of the latent, or picture, that shows what a gradient pulls at
# the terms' weights: the score alone, and those of the README's example
SCORE_ALONE = {"sds": 1.0, "fm": 0.0, "kl": 0.0}
WITH_FM = {"sds": 1.0, "fm": 30.0, "kl": 0.0}


@dataclass(frozen=True)
class Variant:
    """What a picture is made with: options of the prior, and the terms' weights."""

    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=lambda: SCORE_ALONE)

    @property
    def of_pixels(self) -> bool:
        """Whether it compares pictures, which there are none of where latents are optimised."""
        return self.weights["fm"] > 0 and self.options.get("fm_target") in PIXELS


@dataclass(frozen=True)
class Pull:
    """What each term would change in the picture at a step: the picture, and differences around grey, by term."""

    step: int
    picture: Float[Tensor, "3 H W"]
    terms: Mapping[str, Float[Tensor, "3 H W"]]


@dataclass(frozen=True)
class Painting:
    """The picture in [0, 1], how it came about, and what pulled at it."""

    variant: Variant
    picture: Float[Tensor, "3 H W"]
    frames: Sequence[UInt8[np.ndarray, "H W 3"]]
    pulls: Sequence[Pull]


def paint(
    prior: LatentPrior,
    variant: Variant,
    prompt: str,
    negative_prompt: str = "",
    *,
    steps: int,
    seed: int = 0,
    space: str = LATENT,
    learning_rate: float | None = None,
    gradients: bool = False,
    on_step: Callable[[], Any] = lambda: None,
) -> Painting:
    """Optimise a picture, or its latent, with Adam.

    space: latent or picture. gradients: record `pulls`. on_step is called after each step. Raises OptionError for
    options that do not fit, and Diverged for a picture that is no longer finite.
    """
    options = options_of(variant.options)
    generator = torch.Generator().manual_seed(seed)
    condition = prior.condition(prompt, negative_prompt, 1, prior.complete(options))
    device = condition.cond.device
    if space == LATENT:
        shape = (1, prior.autoencoder.latent_channels, *prior.denoiser.sample_size)
    else:
        shape = (1, 3, *prior.image_size)
    noise = torch.randn(shape, generator=generator).to(device)
    x = (noise if space == LATENT else 0.5 + 0.1 * noise).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=learning_rate or RATES[space], betas=BETAS)

    @torch.no_grad()
    def seen(x: Tensor) -> Float[Tensor, "3 H W"]:
        return (prior.autoencoder.decode(x) if space == LATENT else x).clamp(0, 1)[0].cpu()

    def scored(step: int, **which: bool) -> PriorLosses:
        chosen = prior.complete(replace(options, **which))
        v = prior.to_latents(
            x,
            latents=space == LATENT,
            options=chosen,
            generator=generator,
            differentiable=chosen.needs_latent_gradient,
        )
        bounds = prior.timestep_bounds(chosen, step / steps)
        pictures = None if space == LATENT else prior.resized(x, chosen)
        return prior.score(v, condition, bounds, chosen, generator, pictures)

    wanted = {f"use_{name}": weight > 0 for name, weight in variant.weights.items()}
    film_at = set(np.linspace(0, steps - 1, min(FRAMES, steps)).round().astype(int).tolist())
    pull_at = set(np.linspace(0, steps - 1, PULLS).round().astype(int).tolist()) if gradients else set()
    frames, pulls = [], []
    for step in range(steps):
        losses = scored(step, **wanted)
        if step in pull_at:
            losses = scored(step, use_sds=True, use_kl=True, use_fm=True)
            pulls.append(Pull(step, seen(x), {name: _pull(term, x, seen) for name, term in losses.terms().items()}))
        optimizer.zero_grad()
        losses.total(variant.weights).backward()
        optimizer.step()
        require_finite({"the picture": x}, "lower --learning-rate")
        if step in film_at:
            frames.append(_bytes(seen(x)))
        on_step()
    return Painting(variant, seen(x), frames, pulls)


def options_of(given: Mapping[str, Any]) -> PriorOptions:
    """The options, with falling timesteps unless they say otherwise. OptionError for bad values."""
    return PriorOptions(**{"timestep_annealing": "sqrt", **given})


def _pull(term: Tensor, x: Tensor, seen: Callable[[Tensor], Tensor]) -> Float[Tensor, "3 H W"]:
    """The change of the picture by a short step against the term's gradient, around grey, as large as can be shown."""
    (gradient,) = torch.autograd.grad(term, x, retain_graph=True)
    moved = x.detach() - PULL * gradient / gradient.square().mean().sqrt().clamp_min(1e-20)
    change = seen(moved) - seen(x.detach())
    return 0.5 + 0.5 * change / change.abs().max().clamp_min(1e-6)


def _bytes(picture: Float[Tensor, "3 H W"]) -> UInt8[np.ndarray, "H W 3"]:
    return (picture * 255).round().byte().permute(1, 2, 0).numpy()


def check(variants: Sequence[Variant], space: str) -> None:
    """OptionError for options that cannot be used for that space."""
    for variant in variants:
        if variant.of_pixels and space == LATENT:
            raise OptionError("--space", space, f"picture, since fm_target is {variant.options['fm_target']}")
