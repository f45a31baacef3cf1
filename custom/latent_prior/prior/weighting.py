"""w(t), the weight of the noise residual at a timestep, under threestudio's names.

Each entry of WEIGHTINGS maps alpha_bar to w, of the same shape.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.prior._checks import require_one_of
from latent_prior.prior.schedule import NoiseSchedule

WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    # sigma_t^2: Poole et al. 2022, "DreamFusion"
    "sds": lambda alpha_bar: 1.0 - alpha_bar,
    "uniform": torch.ones_like,
    # alpha_t sigma_t^2: Latent-NeRF's released code (Metzer et al. 2022), then Fantasia3D (Chen et al. 2023)
    "fantasia3d": lambda alpha_bar: alpha_bar.sqrt() * (1.0 - alpha_bar),
    # sigma_t / alpha_t, the residual's step in clean latents: w delta = v - x0_hat (LucidDreamer, Liang et al. 2023;
    # the target of threestudio's SDI guidance)
    "sigma_over_alpha": lambda alpha_bar: (1.0 / alpha_bar - 1.0).sqrt(),
    # 1 + sigma_t / alpha_t, which makes it the residual of the straight path's velocity at this noise level: w delta =
    # u_hat - (eps - v) (RFDS: Yang et al. 2025, "Text-to-Image Rectified Flow as Plug-and-Play Priors", arXiv 2406.03293)
    "velocity": lambda alpha_bar: 1.0 + (1.0 / alpha_bar - 1.0).sqrt(),
}


def weighting(name: str, schedule: NoiseSchedule, t: Int[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
    """w(t) of the weighting `name`, one of WEIGHTINGS. Raises OptionError for any other name."""
    require_one_of(name, WEIGHTINGS, "weighting_strategy")
    return WEIGHTINGS[name](schedule.alpha_bar(t))
