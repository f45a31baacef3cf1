"""The maths of a latent diffusion prior, on tensors only; it needs torch, jaxtyping and the standard library.

Symbols: `v` a latent scaled by the autoencoder's scaling factor, B C h w; `t` integer timesteps, B;
z_t = alpha_t v + sigma_t eps; `eps` the drawn noise; `eps_hat` the guided noise prediction; delta = eps_hat - eps the
noise residual; `x0_hat` the clean estimate; `sg` stop-gradient. Random numbers come from a torch.Generator argument
(None: torch's global one). Importing this package registers nothing and imports neither diffusers nor a host.
"""

from latent_prior.prior._checks import require_finite, require_one_of
from latent_prior.prior.cfg import classifier_free_guidance, perp_neg, perpendicular_component, rescale_guidance
from latent_prior.prior.clip_losses import directional_loss, spherical_distance, structure_loss
from latent_prior.prior.directional import directional_distillation_loss
from latent_prior.prior.distillation import bridge_residual, csd_residual, lsd_loss, nfsd_residual, sds_residual
from latent_prior.prior.feature_matching import (
    FM_LOSSES,
    FM_NORMALISATIONS,
    FM_TARGETS,
    PIXELS,
    fm_loss,
    pixel_loss,
    pixel_step_loss,
)
from latent_prior.prior.kl import KL_FORMS, kl_loss
from latent_prior.prior.objective import TERMS, PriorLosses
from latent_prior.prior.parameterization import (
    DIFFUSION_TYPES,
    FLOW_TYPE,
    PREDICTION_TYPES,
    eps_from_model,
    eps_from_x0,
    x0_from_eps,
    x0_from_model,
)
from latent_prior.prior.rewards import REWARD_STRATEGIES, reward_weights
from latent_prior.prior.schedule import DiffusionSchedule, FlowSchedule, NoiseSchedule, draw_noise
from latent_prior.prior.surface_noise import SurfaceNoise
from latent_prior.prior.timesteps import (
    ANNEALINGS,
    TIMESTEP_SAMPLINGS,
    annealed_bounds,
    dreamtime_timestep,
    dreamtime_weight,
    sample_timesteps,
    timestep_range,
)
from latent_prior.prior.weighting import WEIGHTINGS, weighting

__all__ = [
    "ANNEALINGS",
    "DIFFUSION_TYPES",
    "FLOW_TYPE",
    "FM_LOSSES",
    "FM_NORMALISATIONS",
    "FM_TARGETS",
    "KL_FORMS",
    "PIXELS",
    "PREDICTION_TYPES",
    "REWARD_STRATEGIES",
    "TERMS",
    "TIMESTEP_SAMPLINGS",
    "WEIGHTINGS",
    "DiffusionSchedule",
    "FlowSchedule",
    "NoiseSchedule",
    "PriorLosses",
    "SurfaceNoise",
    "annealed_bounds",
    "bridge_residual",
    "classifier_free_guidance",
    "csd_residual",
    "directional_distillation_loss",
    "directional_loss",
    "draw_noise",
    "dreamtime_timestep",
    "dreamtime_weight",
    "eps_from_model",
    "eps_from_x0",
    "fm_loss",
    "kl_loss",
    "lsd_loss",
    "nfsd_residual",
    "perp_neg",
    "perpendicular_component",
    "pixel_loss",
    "pixel_step_loss",
    "require_finite",
    "require_one_of",
    "rescale_guidance",
    "reward_weights",
    "sample_timesteps",
    "sds_residual",
    "spherical_distance",
    "structure_loss",
    "timestep_range",
    "weighting",
    "x0_from_eps",
    "x0_from_model",
]
