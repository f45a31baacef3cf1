"""The scores: which noise a latent is given, and which noise residual `delta` it gets for it.

    sds     eps drawn;                      delta = eps_hat - eps
    csd     eps drawn;                      delta = eps_cond - eps_uncond
    nfsd    eps drawn;                      delta = s (eps_cond - eps_uncond) + delta_D
    bridge  eps drawn;                      delta = s (eps_target - eps_source)
    sdi     eps found by DDIM inversion;    delta = eps_hat - eps
    ism     z_s, z_t by DDIM inversion;     delta = eps_hat(z_t) - eps_uncond(z_s), s < t
    vsd     eps drawn;                      delta = eps_hat - eps_lora, a LoRA trained along on the pictures so far

The residuals' formulas are in prior/distillation.py, except that the last three are sds_residual with another eps.
sdi: Lukoianov et al. 2024, "Score Distillation via Reparametrized DDIM" (arXiv 2405.15891), as in threestudio's
stable-diffusion-sdi-guidance, but that every latent is inverted to exactly its own t. ism: Liang et al. 2023,
"LucidDreamer: Interval Score Matching" (arXiv 2311.11284), eq. 17. vsd: see variational.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.models.condition import Condition, Prediction, guided, predict
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.options import PriorOptions
from latent_prior.models.sampling import ddim_inversion
from latent_prior.models.variational import Variational
from latent_prior.prior import (
    NoiseSchedule,
    bridge_residual,
    csd_residual,
    eps_from_x0,
    nfsd_residual,
    sds_residual,
)

Draw = Callable[[Tensor], Tensor]  # noise like what it is called with


@dataclass(frozen=True, eq=False)
class Score:
    """A score of latents: their noise, the noised latents, what the denoiser says of them, and the residual."""

    eps: Float[Tensor, "B C h w"]
    z_t: Float[Tensor, "B C h w"]
    prediction: Prediction
    delta: Float[Tensor, "B C h w"]


@torch.no_grad()
def score(
    denoiser: Denoiser,
    v: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    condition: Condition,
    options: PriorOptions,
    draw: Draw,
    noise: Float[Tensor, "B C h w"] | None = None,
    variational: Variational | None = None,
) -> Score:
    """The score that `options.score` names.

    noise: given instead of being drawn; the scores that find theirs then do
    not look for it. variational: for vsd.
    """
    schedule, target = denoiser.schedule, None
    if noise is None and options.score in ("sdi", "ism"):
        z_t, target = (_inverted if options.score == "sdi" else _interval)(denoiser, v, t, condition, options, draw)
        eps = eps_from_x0(z_t, v, schedule.alpha(t), schedule.sigma(t))
    else:
        eps = draw(v) if noise is None else noise
        z_t = schedule.add_noise(v, eps, t)
    prediction = predict(denoiser, z_t, t, condition, options)
    if options.score == "vsd" and variational is not None:
        target = variational.eps(z_t, t, condition, options)
    return Score(eps, z_t, prediction, residual(prediction, eps if target is None else target, t, schedule, options))


def residual(prediction: Prediction, eps: Tensor, t: Tensor, schedule: NoiseSchedule, options: PriorOptions) -> Tensor:
    """The noise residual of a prediction for latents of noise `eps`, drawn or otherwise."""
    if options.score == "csd":
        return csd_residual(prediction.eps_cond, prediction.eps_uncond)
    if options.score == "bridge":
        return bridge_residual(prediction.eps_cond, prediction.eps_uncond, options.guidance_scale)
    if options.score == "nfsd" and prediction.eps_null is not None:
        return nfsd_residual(
            prediction.eps_cond,
            prediction.eps_null,
            prediction.eps_uncond,
            t,
            options.guidance_scale,
            t_small=schedule.num_timesteps // 5,  # 200 of 1000 in the paper
        )
    return sds_residual(prediction.eps_hat, eps)


def _inverted(
    denoiser: Denoiser, v: Tensor, t: Tensor, condition: Condition, options: PriorOptions, draw: Draw
) -> tuple[Tensor, None]:
    """z_t by inversion under the prompt, at a scale of its own."""

    def denoise(z: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        rows = predict(denoiser, z, now, condition, options).rows
        prediction = guided(rows, denoiser, now, condition, options.inversion_guidance_scale)
        return prediction.eps_hat, prediction.x0_hat

    stride = max(1, denoiser.schedule.num_timesteps // options.inversion_n_steps)
    return ddim_inversion(denoise, denoiser.schedule, v, t, stride, options.inversion_eta, draw), None


def _interval(
    denoiser: Denoiser, v: Tensor, t: Tensor, condition: Condition, options: PriorOptions, draw: Draw
) -> tuple[Tensor, Tensor]:
    """z_t by inversion without the prompt, and the noise that was predicted for z_s on the way."""
    schedule = denoiser.schedule

    def denoise(z: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        return denoiser(z, now, condition.uncond.to(z.dtype))

    s = (t - options.ism_step_t).clamp(min=0)
    z_s = ddim_inversion(denoise, schedule, v, s, options.ism_step_s)
    eps_s, x0_s = denoise(z_s, s)
    x0_s = torch.where((s == 0).view(-1, 1, 1, 1), v, x0_s)
    return schedule.add_noise(x0_s, eps_s, t), eps_s
