"""Pictures that show what the guidance sees: threestudio's `guidance_eval` output.

For the first samples of a batch: the noised latent, one sampling step from it, the clean estimate, and the end of a
full sampling run, each decoded to B H W 3 in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latent_prior.models.condition import Condition, predict
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from latent_prior.models.sampling import ddim
from latent_prior.prior import PriorLosses

STEPS_OF_A_FULL_RUN = 50  # sampling from timestep t takes the fraction t / T of these, as in threestudio


@torch.no_grad()
def guidance_pictures(
    prior: LatentPrior,
    losses: PriorLosses,
    condition: Condition,
    options: PriorOptions,
    cameras: Sequence[Tensor],
    max_items: int,
) -> dict[str, Any]:
    """The `eval` entry of the guidance's output, under threestudio's names.

    cameras: elevation, azimuth (degrees) and distance, B each. max_items: how many samples to show, not 0; all if
    negative. Sampling is deterministic, so it does not change the run's random numbers.
    """
    count = len(losses.v) if max_items < 0 else min(max_items, len(losses.v))
    some = slice(0, count)
    t, z_t, condition = losses.t[some], losses.z_t[some], condition[some]
    eps_hat, x0_hat = losses.eps_hat[some], losses.x0_hat[some]
    schedule = prior.denoiser.schedule

    def denoise(z: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        prediction = predict(prior.denoiser, z, now, condition, options)
        return prediction.eps_hat, prediction.x0_hat

    def picture(v: Tensor) -> Tensor:
        return prior.autoencoder.decode(v).permute(0, 2, 3, 1)

    steps = max(1, round(STEPS_OF_A_FULL_RUN * t.max().item() / schedule.num_timesteps))
    lower = t * (steps - 1) // steps
    levels = (t / schedule.num_timesteps).tolist()
    elevation, azimuth, distance = (camera[some].tolist() for camera in cameras)
    return {
        "bs": count,
        "noise_levels": levels,
        "imgs_noisy": picture(z_t),
        "imgs_1step": picture(schedule.add_noise(x0_hat, eps_hat, lower)),
        "imgs_1orig": picture(x0_hat),
        "imgs_final": picture(ddim(denoise, schedule, z_t, t, steps)),
        "texts": [
            f"n{level:.02f}\ne{e:.01f}\na{a:.01f}\nc{c:.02f}"
            for level, e, a, c in zip(levels, elevation, azimuth, distance, strict=True)
        ],
    }
