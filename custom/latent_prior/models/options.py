"""The options of the prior, checked when they are created, before anything is loaded.

The names are the config keys of `latent-prior-guidance`, the same as threestudio's if it has a key of that meaning.
"""

from dataclasses import dataclass
from typing import Any

from latent_prior import OptionError
from latent_prior.prior import (
    ANNEALINGS,
    FM_LOSSES,
    FM_NORMALISATIONS,
    FM_TARGETS,
    KL_FORMS,
    PIXELS,
    REWARD_STRATEGIES,
    TIMESTEP_SAMPLINGS,
    WEIGHTINGS,
    require_one_of,
)

SCORES = ("sds", "csd", "nfsd", "bridge", "sdi", "ism", "vsd")
SIGMA_OVER_ALPHA = "sigma_over_alpha"
MOST_NOISES = 64
MOST_PIXELS = 8192

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
    # Compute score distillation. Without it, and with feature matching of pixels, the encoder's backward pass is spared.
    use_sds: Switch = True
    # Noise residual: sds (guided prediction minus noise), csd (conditional minus unconditional), nfsd (noise-free),
    # which needs a negative prompt that names flaws, bridge (a target prompt minus a source prompt), sdi and ism (noise
    # by inversion, several calls of the denoiser a step), vsd (a LoRA trained along); see models/scores.py. The
    # guidance's config also accepts names and the steps at which they change: [sds, 125, csd].
    score: str = "sds"
    # sdi: scale of guidance on the way to the noise, in the standard form: threestudio's -7.5 is -6.5 here.
    inversion_guidance_scale: float = -6.5
    # sdi: steps that an inversion of the whole schedule would take.
    inversion_n_steps: int = 10
    # sdi: noise added on the way, as a share of the forward process's.
    inversion_eta: float = 0.3
    # ism: timesteps from one step of the inversion to the next.
    ism_step_s: int = 200
    # ism: timesteps between the two predictions that are compared.
    ism_step_t: int = 50
    # vsd: scale of guidance of the LoRA, in the standard form.
    guidance_scale_lora: float = 1.0
    # vsd: train the LoRA without the prompt too, a tenth of the time.
    lora_cfg_training: bool = True
    # w(t) of score distillation: sds (1 - alpha_bar), uniform, fantasia3d (sqrt(alpha_bar) (1 - alpha_bar)),
    # sigma_over_alpha (the residual's step in clean latents: ism's, and sdi's in threestudio), velocity (1 + sigma /
    # alpha: the residual of a flow's velocity, RFDS). alpha_bar is the signal's share of the power.
    weighting_strategy: str = "sds"
    # Bound on every entry of w(t) times the residual; None does not clip. Feature matching is not clipped.
    grad_clip: Scheduled = None
    # Bound on the norm of the gradient at each pixel, after the encoder's backward pass, as a multiple of the picture's
    # mean; None does not clip (Pan et al. 2023, "Enhancing High-Resolution 3D Generation through Pixel-wise Gradient
    # Clipping", arXiv 2310.12474).
    pixel_grad_clip: Scheduled = None
    # Compute the feature matching term. Only this term needs the decoder: without it a step costs just the denoiser.
    use_fm: Switch = True
    # The target of feature matching: residual, paper, denoised, pixels or pixel_step, see
    # latent_prior.prior.feature_matching.
    fm_target: str = "residual"
    # How far along the residual the improved latent lies, for residual, paper and pixel_step: a number, or
    # sigma_over_alpha (to the clean estimate).
    fm_step: float | str = 1.0
    # Timesteps up to this fraction of the schedule count for feature matching, others not; 1: all.
    fm_max_step_percent: float = 1.0
    # Guidance scale of the target of feature matching; None: that of the score.
    fm_guidance_scale: Scheduled = None
    # l1 (absolute differences) or mse (squares).
    fm_loss: str = "l1"
    # shared divides both features by the channels' norm of the target's at each place; none: as they are.
    fm_normalise: str = "none"
    # Weights of the decoder layers, in the order of fm_layers; None: all 1.
    fm_level_weights: list[float] | None = None
    # Decoder layers that it compares, of mid, up_0, up_1, ...; None uses the first three levels after the middle block.
    fm_layers: list[str] | None = None
    # Compute the KL regulariser.
    use_kl: Switch = True
    # standard or paper, see latent_prior.prior.kl.
    kl_form: str = "standard"
    # Timesteps are drawn between these fractions of the schedule's length, both ends included.
    min_step_percent: Scheduled = 0.02
    max_step_percent: Scheduled = 0.98
    # uniform, or logit_normal, which prefers the middle of that range.
    timestep_sampling: str = "uniform"
    # How that range narrows with progress: none, linear (its upper end falls), sqrt (HiFA), dreamtime.
    timestep_annealing: str = "none"
    # Final upper end under linear annealing, as a fraction of the schedule; None goes down to min_step_percent.
    anneal_end_percent: float | None = None
    # Noises drawn for each picture, each at a timestep of its own; the terms are means over them. More of them steady the
    # gradients, for one rendering and one pass through the encoder.
    n_noises: int = 1
    # How much each of several noises counts in score distillation: none (alike), best, weighted or min-max, by how well
    # CLIP finds the prompt in its clean estimate; see latent_prior.prior.rewards. They then share a timestep.
    reward_strategy: str = "none"
    # Draw latents from the encoder's Gaussian, as threestudio does, instead of taking its mode.
    sample_latents: bool = False
    # Resize input bilinearly, to input_size; otherwise pictures must have a size the encoder accepts.
    resize_input: bool = True
    # Side in pixels that pictures are resized to, and latents accordingly; None: the size the checkpoint was trained on,
    # which for Stable Diffusion XL, 3 and Flux is 1024.
    input_size: int | None = None

    def __post_init__(self):
        numbers = ("inversion_guidance_scale", "guidance_scale_lora", "inversion_eta", "fm_max_step_percent")
        for name in ("guidance_rescale", "min_step_percent", "max_step_percent", *numbers):
            self._require(getattr(self, name) is not None, name, "a number")
        require_one_of(self.score, SCORES, "score")
        require_one_of(self.weighting_strategy, WEIGHTINGS, "weighting_strategy")
        require_one_of(self.fm_target, (*FM_TARGETS, *PIXELS), "fm_target")
        require_one_of(self.fm_loss, FM_LOSSES, "fm_loss")
        require_one_of(self.fm_normalise, FM_NORMALISATIONS, "fm_normalise")
        require_one_of(self.reward_strategy, REWARD_STRATEGIES, "reward_strategy")
        require_one_of(self.kl_form, KL_FORMS, "kl_form")
        require_one_of(self.timestep_sampling, TIMESTEP_SAMPLINGS, "timestep_sampling")
        require_one_of(self.timestep_annealing, ANNEALINGS, "timestep_annealing")
        scale, clip, end = self.guidance_scale, self.grad_clip, self.anneal_end_percent
        low, high = self.min_step_percent, self.max_step_percent
        self._require(1 <= self.n_noises <= MOST_NOISES, "n_noises", f"a whole number from 1 to {MOST_NOISES}")
        self._require(scale is None or 0 <= scale < float("inf"), "guidance_scale", "a finite number >= 0, or None")
        self._require(0 <= self.guidance_rescale <= 1, "guidance_rescale", "a number in [0, 1]")
        self._require(clip is None or clip >= 0, "grad_clip", "a number >= 0, or None")
        within_pixels = self.pixel_grad_clip
        self._require(within_pixels is None or within_pixels > 0, "pixel_grad_clip", "a number above 0, or None")
        side = self.input_size
        self._require(side is None or 0 < side <= MOST_PIXELS, "input_size", f"pixels up to {MOST_PIXELS}, or None")
        self._check_scores()
        self._check_feature_matching()
        self._require(0 <= low <= 1, "min_step_percent", "a fraction in [0, 1]")
        self._require(low <= high <= 1, "max_step_percent", f"a fraction in [{low}, 1], from min_step_percent on")
        within = f"None or a fraction in [{low}, {high}], the range of timesteps"
        self._require(end is None or low <= end <= high, "anneal_end_percent", within)

    def _check_scores(self) -> None:
        for name in ("inversion_n_steps", "ism_step_s", "ism_step_t"):
            self._require(getattr(self, name) >= 1, name, "a whole number of at least 1")
        self._require(abs(self.inversion_guidance_scale) < float("inf"), "inversion_guidance_scale", "a finite number")
        self._require(0 <= self.inversion_eta <= 1, "inversion_eta", "a share in [0, 1]")
        self._require(0 <= self.guidance_scale_lora < float("inf"), "guidance_scale_lora", "a finite number >= 0")
        rewarded, least = self.reward_strategy != "none", 2
        self._require(not rewarded or self.n_noises >= least, "n_noises", f"at least {least} with a reward_strategy")

    def _check_feature_matching(self) -> None:
        step, scale, weights = self.fm_step, self.fm_guidance_scale, self.fm_level_weights
        number = isinstance(step, int | float) and not isinstance(step, bool) and 0 < step < float("inf")
        self._require(number or step == SIGMA_OVER_ALPHA, "fm_step", f"a number above 0, or {SIGMA_OVER_ALPHA}")
        self._require(0 < self.fm_max_step_percent <= 1, "fm_max_step_percent", "a fraction above 0, at most 1")
        finite = scale is None or 0 <= scale < float("inf")
        self._require(finite, "fm_guidance_scale", "a finite number >= 0, or None")
        fit = weights is None or (len(weights) > 0 and all(0 <= weight < float("inf") for weight in weights))
        self._require(fit, "fm_level_weights", "finite numbers >= 0, one a layer, or None")

    @property
    def needs_latent_gradient(self) -> bool:
        """Whether any term has a gradient on the latents, and so a way back through the encoder."""
        return bool(self.use_sds or self.use_kl or (self.use_fm and self.fm_target not in PIXELS))

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise OptionError(name, getattr(self, name), expected)
