"""The knobs of the prior, checked where they are made, before anything is loaded.

The names are the config keys of `latent-prior-guidance`, and where threestudio has a key of that meaning, threestudio's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from latent_prior import OptionError
from latent_prior.prior import ANNEALINGS, FM_TARGETS, KL_FORMS, WEIGHTINGS
from latent_prior.prior._checks import require_one_of

SCORES = ("sds", "csd", "nfsd")


@dataclass(frozen=True)
class PriorOptions:
    """How latents are scored. Raises ValueError, naming the config key, for a value that means nothing."""

    # Scale of classifier-free guidance in its standard form: 0 unconditional, 1 conditional. 100 is what score
    # distillation of Stable Diffusion is used with; 2 to 4 suits the pocket prior.
    guidance_scale: float = 100.0
    # phi in [0, 1]: how far the guided clean estimate is drawn back to the conditional's spread; 0 leaves it alone.
    guidance_rescale: float = 0.0
    # Noise residual: sds (guided prediction less the noise), csd (conditional less unconditional), nfsd (noise-free).
    score: str = "sds"
    # w(t) of score distillation: sds (1 - alpha_bar), uniform, fantasia3d (sqrt(alpha_bar) (1 - alpha_bar)).
    weighting_strategy: str = "sds"
    # Bound on every entry of w(t) times the residual; None does not clip. Feature matching is not clipped.
    grad_clip: float | None = None
    # Compute the feature matching term. It alone needs the decoder: without it a step costs the denoiser only.
    use_fm: bool = True
    # What feature matching compares with: residual, paper or denoised, see latent_prior.prior.feature_matching.
    fm_target: str = "residual"
    # Decoder layers it compares in, of mid, up_0, up_1, ...; None takes the first three levels after the middle block.
    fm_layers: Sequence[str] | None = None
    # Compute the KL regulariser.
    use_kl: bool = True
    # standard or paper, see latent_prior.prior.kl.
    kl_form: str = "standard"
    # Timesteps are drawn between these fractions of the schedule's length, both ends included.
    min_step_percent: float = 0.02
    max_step_percent: float = 0.98
    # How that range narrows with progress: none, linear (its upper end falls), sqrt (HiFA), dreamtime.
    timestep_annealing: str = "none"
    # Where the upper end arrives under linear annealing, as a fraction of the schedule; None goes down to the minimum.
    anneal_end_percent: float | None = None
    # Draw latents from the encoder's Gaussian, as threestudio does, instead of taking its mode.
    sample_latents: bool = False
    # Resize input to the checkpoint's own size, bilinearly; without it pictures must be a size the encoder can take.
    resize_input: bool = True

    def __post_init__(self):
        require_one_of(self.score, SCORES, "system.guidance.score")
        require_one_of(self.weighting_strategy, WEIGHTINGS, "system.guidance.weighting_strategy")
        require_one_of(self.fm_target, FM_TARGETS, "system.guidance.fm_target")
        require_one_of(self.kl_form, KL_FORMS, "system.guidance.kl_form")
        require_one_of(self.timestep_annealing, ANNEALINGS, "system.guidance.timestep_annealing")
        self._require(0 <= self.guidance_scale < float("inf"), "guidance_scale", "a finite number >= 0")
        self._require(0 <= self.guidance_rescale <= 1, "guidance_rescale", "a number in [0, 1]")
        self._require(self.grad_clip is None or self.grad_clip >= 0, "grad_clip", "a number >= 0, or null")
        self._require(0 <= self.min_step_percent <= 1, "min_step_percent", "a fraction in [0, 1]")
        self._require(
            self.min_step_percent <= self.max_step_percent <= 1,
            "max_step_percent",
            f"a fraction in [{self.min_step_percent}, 1], from min_step_percent on",
        )
        end = self.anneal_end_percent
        self._require(
            end is None or self.min_step_percent <= end <= self.max_step_percent,
            "anneal_end_percent",
            f"null or a fraction in [{self.min_step_percent}, {self.max_step_percent}], the range of timesteps",
        )

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise OptionError.because(f"system.guidance.{name} is {getattr(self, name)}; expected {expected}")
