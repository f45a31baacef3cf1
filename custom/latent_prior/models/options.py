"""The options of the prior, checked when they are created, before anything is loaded.

The names are the config keys of `latent-prior-guidance`, the same as threestudio's if it has a key of that meaning.
"""

from dataclasses import dataclass
from typing import Any

from latent_prior import OptionError
from latent_prior.prior import ANNEALINGS, FM_TARGETS, KL_FORMS, PIXELS, WEIGHTINGS, require_one_of

SCORES = ("sds", "csd", "nfsd")
MOST_NOISES = 64

# A number; the guidance's config also accepts a schedule [v0, v1, end], ...
Scheduled = Any
# True or false; the guidance's config also accepts a number or a schedule, such as the term's weight
# ${system.loss.lambda_fm}; the switch is then on while it is above 0.
Switch = Any


@dataclass
class PriorOptions:
    """How latents are scored. Raises OptionError, naming the option, for an invalid value."""

    # Scale of classifier-free guidance in its standard form: 0 unconditional, 1 conditional. None uses the
    # checkpoint's, see `LatentPrior.guidance_scale`.
    guidance_scale: Scheduled = None
    # phi in [0, 1]: how far the guided clean estimate is rescaled to the spread of the conditional one; 0: not at all.
    guidance_rescale: Scheduled = 0.0
    # Noise residual: sds (guided prediction minus noise), csd (conditional minus unconditional), or nfsd (noise-free),
    # which needs a negative prompt that names flaws.
    score: str = "sds"
    # w(t) of score distillation: sds (1 - alpha_bar), uniform, fantasia3d (sqrt(alpha_bar) (1 - alpha_bar)).
    weighting_strategy: str = "sds"
    # Bound on every entry of w(t) times the residual; None does not clip. Feature matching is not clipped.
    grad_clip: Scheduled = None
    # Compute the feature matching term. Only this term needs the decoder: without it a step costs just the denoiser.
    use_fm: Switch = True
    # The target of feature matching: residual, paper, denoised or pixels, see latent_prior.prior.feature_matching.
    fm_target: str = "residual"
    # Decoder layers that it compares, of mid, up_0, up_1, ...; None uses the first three levels after the middle block.
    fm_layers: list[str] | None = None
    # Compute the KL regulariser.
    use_kl: Switch = True
    # standard or paper, see latent_prior.prior.kl.
    kl_form: str = "standard"
    # Timesteps are drawn between these fractions of the schedule's length, both ends included.
    min_step_percent: Scheduled = 0.02
    max_step_percent: Scheduled = 0.98
    # How that range narrows with progress: none, linear (its upper end falls), sqrt (HiFA), dreamtime.
    timestep_annealing: str = "none"
    # Final upper end under linear annealing, as a fraction of the schedule; None goes down to min_step_percent.
    anneal_end_percent: float | None = None
    # Noises drawn for each picture, each at a timestep of its own; the terms are means over them. More of them steady the
    # gradients, for one rendering and one pass through the encoder.
    n_noises: int = 1
    # Draw latents from the encoder's Gaussian, as threestudio does, instead of taking its mode.
    sample_latents: bool = False
    # Resize input to the checkpoint's own size, bilinearly; otherwise pictures must have a size the encoder accepts.
    resize_input: bool = True

    def __post_init__(self):
        for name in ("guidance_rescale", "min_step_percent", "max_step_percent"):
            self._require(getattr(self, name) is not None, name, "a number")
        require_one_of(self.score, SCORES, "score")
        require_one_of(self.weighting_strategy, WEIGHTINGS, "weighting_strategy")
        require_one_of(self.fm_target, (*FM_TARGETS, PIXELS), "fm_target")
        require_one_of(self.kl_form, KL_FORMS, "kl_form")
        require_one_of(self.timestep_annealing, ANNEALINGS, "timestep_annealing")
        scale, clip, end = self.guidance_scale, self.grad_clip, self.anneal_end_percent
        low, high = self.min_step_percent, self.max_step_percent
        self._require(1 <= self.n_noises <= MOST_NOISES, "n_noises", f"a whole number from 1 to {MOST_NOISES}")
        self._require(scale is None or 0 <= scale < float("inf"), "guidance_scale", "a finite number >= 0, or None")
        self._require(0 <= self.guidance_rescale <= 1, "guidance_rescale", "a number in [0, 1]")
        self._require(clip is None or clip >= 0, "grad_clip", "a number >= 0, or None")
        self._require(0 <= low <= 1, "min_step_percent", "a fraction in [0, 1]")
        self._require(low <= high <= 1, "max_step_percent", f"a fraction in [{low}, 1], from min_step_percent on")
        within = f"None or a fraction in [{low}, {high}], the range of timesteps"
        self._require(end is None or low <= end <= high, "anneal_end_percent", within)

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise OptionError(name, getattr(self, name), expected)
