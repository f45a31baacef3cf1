"""The library's main class: a pretrained latent diffusion model that scores how well pictures fit a prompt.

    prior = LatentPrior.from_pretrained("pocket", guidance_scale=4.0)
    out = prior(images, prompt="a red mug", generator=torch.Generator().manual_seed(0))
    out.total({"sds": 1.0, "fm": 0.3, "kl": 0.1}).backward()

Pictures are B 3 H W in [0, 1]; with `latents=True` the input is B C h w, scaled by the checkpoint's scaling factor.
Random numbers are drawn in a fixed order: the encoder's noise (only with `sample_latents`), the timesteps, the noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models import scores
from latent_prior.models.autoencoder import Autoencoder
from latent_prior.models.checkpoint import KEY, Checkpoint, resolve
from latent_prior.models.condition import Condition, check_condition
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.efficiency import Efficiency, make_efficient
from latent_prior.models.families import XL
from latent_prior.models.feature_matching import feature_matching
from latent_prior.models.fit import check_fit
from latent_prior.models.options import PriorOptions
from latent_prior.models.pixel_clip import PixelClip
from latent_prior.models.text_encoder import TextEncoder
from latent_prior.models.variational import Variational
from latent_prior.prior import (
    PriorLosses,
    annealed_bounds,
    draw_noise,
    kl_loss,
    lsd_loss,
    reward_weights,
    sample_timesteps,
    timestep_range,
    weighting,
)

# For checkpoints that state none: usual for score distillation with Stable Diffusion (Poole et al. 2022).
GUIDANCE_SCALE = 100.0
# Noise levels, as the signal's share of the power, at which `denoising_error` looks: shapes, neither grain nor pure
# noise. In Stable Diffusion's schedule these are timesteps 400, 550 and 700 of 1000.
ERROR_AT = (0.4245, 0.2139, 0.0825)

Reward = Callable[[Tensor], Tensor]  # how good pictures B 3 H W are, B numbers


class LatentPrior:
    """Denoiser, autoencoder and text encoder of one checkpoint, and the objective over them.

    The text encoder loads its weights at the first prompt. Weights are frozen; only the score vsd trains something, a
    LoRA beside them.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        text_encoder: TextEncoder,
        options: PriorOptions | None = None,
        guidance_scale: float = GUIDANCE_SCALE,
    ):
        """guidance_scale: the checkpoint's own, used if the options set none."""
        self.guidance_scale = guidance_scale
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        self.text_encoder = text_encoder
        self.options = self.complete(options or PriorOptions())
        self.check_fit(self.options)
        # of the LoRA that the score vsd trains: its rate, and how its gradients are averaged over a run's processes
        self.lora_learning_rate = 1e-4
        self.average: Callable[[Tensor], Tensor] = lambda gradient: gradient
        self._variational: Variational | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str = "pocket",
        *,
        device: torch.device | str | None = None,
        half_precision_weights: bool = True,
        cache_dir: str | Path | None = None,
        textual_inversion: Sequence[str] = (),
        lora: Sequence[str] = (),
        prediction_type: str | None = None,
        efficiency: Efficiency | None = None,
        embedded_guidance_scale: float = 3.5,
        **options,
    ) -> "LatentPrior":
        """Load a prior by name: `pocket`, a diffusers folder, a `.safetensors` file or a hub id.

        device: None uses CUDA if available. half_precision_weights: float16 on CUDA, bfloat16 for transformers; on a
        CPU weights are always float32. cache_dir: folder for prompt embeddings, None keeps them in memory.
        textual_inversion, lora: files or hub ids to apply; a LoRA may end in `:scale`, an inversion in `=word`.
        prediction_type: what a diffusion model predicts (epsilon, v_prediction or sample); overrides the checkpoint.
        efficiency: ways to save memory or time. embedded_guidance_scale: what a model that guidance was distilled into
        (Flux dev) is told of it. options: fields of PriorOptions. The checkpoint's own guidance scale is read from
        `latent_prior.json` in its folder, `{"guidance_scale": 3.0}`; 100 if there is none.
        Raises OptionError, in one line, for a checkpoint that is missing, corrupt or does not fit together.
        """
        chosen = PriorOptions(**options)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        checkpoint = resolve(pretrained_model_name_or_path, textual_inversion, lora, prediction_type)
        check_fit(checkpoint)
        half = half_precision_weights and device.type == "cuda"
        dtype = checkpoint.family.half if half else torch.float32
        vae_dtype = torch.float32 if checkpoint.family is XL else dtype  # Stable Diffusion XL's overflows in float16
        denoiser = Denoiser.from_checkpoint(checkpoint, device, dtype, embedded_guidance_scale)
        autoencoder = Autoencoder.from_checkpoint(checkpoint, device, vae_dtype)
        make_efficient(denoiser, autoencoder, efficiency or Efficiency())
        text_encoder = TextEncoder(checkpoint, device, dtype, cache_dir)
        return cls(denoiser, autoencoder, text_encoder, chosen, _guidance_scale(checkpoint))

    def complete(self, options: PriorOptions) -> PriorOptions:
        """The options, with the checkpoint's own guidance scale if they set none."""
        return options if options.guidance_scale is not None else replace(options, guidance_scale=self.guidance_scale)

    def check_fit(self, options: PriorOptions) -> None:
        """Raise OptionError for what the checkpoint cannot do: decoder layers that there are not, a wrong number of
        weights for them, or a size that it does not take."""
        if options.input_size is not None:
            multiple = self.autoencoder.downscale * self.denoiser.network.patch
            if options.input_size % multiple:
                raise OptionError("input_size", options.input_size, f"a multiple of {multiple}")
        layers, weights = self.autoencoder.check_layers(options.fm_layers), options.fm_level_weights
        if weights is not None and len(weights) != len(layers):
            expected = f"{len(layers)} weights, for {', '.join(layers)}"
            raise OptionError("fm_level_weights", list(weights), expected)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the pictures that the checkpoint was made for."""
        height, width = self.denoiser.sample_size
        return height * self.autoencoder.downscale, width * self.autoencoder.downscale

    def input_size(self, options: PriorOptions, latents: bool) -> tuple[int, int]:
        """Height and width that pictures, or latents, are resized to."""
        side, downscale = options.input_size, self.autoencoder.downscale
        if side is None:
            return self.denoiser.sample_size if latents else self.image_size
        return (side // downscale,) * 2 if latents else (side, side)

    def __call__(
        self,
        images: Float[Tensor, "B C H W"],
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] = "",
        *,
        latents: bool = False,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
        reward: Reward | None = None,
        **changes,
    ) -> PriorLosses:
        """Score pictures under a prompt; differentiable in them.

        images: B 3 H W in [0, 1], or scaled latents B C h w if `latents`. prompt, negative_prompt: one for all, or one
        per picture; with the score bridge, the target prompt and the source prompt. progress: completed fraction of the
        optimisation, for timestep annealing. reward: for a reward_strategy, such as `Clip.reward`. changes: fields of
        PriorOptions to change for this call, such as `use_fm=False`.
        """
        options = self.complete(replace(self.options, **changes))
        condition = self.condition(prompt, negative_prompt, len(images), options)
        back = options.needs_latent_gradient
        v = self.to_latents(images, latents=latents, options=options, generator=generator, differentiable=back)
        pictures = None if latents else self.resized(images, options)
        bounds = self.timestep_bounds(options, progress)
        return self.score(v, condition, bounds, options, generator, pictures, reward=reward)

    def condition(
        self, prompt: str | Sequence[str], negative_prompt: str | Sequence[str], batch: int, options: PriorOptions
    ) -> Condition:
        """Embed prompts for `batch` pictures.

        Raises OptionError for an empty prompt, a wrong number of prompts, and noise-free distillation without a
        negative prompt.
        """
        given = {"prompt": prompt, "negative_prompt": negative_prompt}
        lists = {name: [text] * batch if isinstance(text, str) else list(text) for name, text in given.items()}
        for name, texts in lists.items():
            if len(texts) != batch:
                raise OptionError.because(
                    f"got {len(texts)} for {batch} pictures; expected one, or one per picture", name
                )
        if not all(text.strip() for text in lists["prompt"]):
            raise OptionError.because("prompt is empty; say what the pictures should show")
        null = self.text_encoder([""] * batch) if options.score == "nfsd" else None
        condition = Condition(
            self.text_encoder(lists["prompt"]), self.text_encoder(lists["negative_prompt"]), null=null
        )
        check_condition(condition, self.denoiser, options)
        return condition

    def to_latents(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        latents: bool,
        options: PriorOptions,
        generator: torch.Generator | None = None,
        differentiable: bool = True,
    ) -> Float[Tensor, "B c h w"]:
        """Scaled latents from pictures or latents, resized to `input_size` if `resize_input` is set.

        differentiable: whether gradients pass back through the encoder.
        """
        channels = self.autoencoder.latent_channels if latents else 3
        if images.ndim != 4 or images.shape[1] != channels:
            what = "latents" if latents else "pictures"
            raise OptionError.because(f"got {what} of shape {tuple(images.shape)}; expected B {channels} H W")
        images = self.resized(images, options, latents)
        if latents:
            return images
        if options.pixel_grad_clip is not None:
            images = PixelClip.apply(images, options.pixel_grad_clip)
        with torch.set_grad_enabled(torch.is_grad_enabled() and differentiable):
            return self.autoencoder.encode(images, sample=options.sample_latents, generator=generator)

    def resized(
        self, images: Float[Tensor, "B C H W"], options: PriorOptions, latents: bool = False
    ) -> Float[Tensor, "B C h w"]:
        """Pictures or latents of `input_size` if `resize_input` is set, in float32."""
        size = self.input_size(options, latents)
        if options.resize_input and images.shape[-2:] != size:
            return F.interpolate(images.float(), size, mode="bilinear", align_corners=False)
        return images.float()

    def timestep_bounds(self, options: PriorOptions, progress: float = 0.0) -> tuple[int, int]:
        """Lowest and highest timestep to draw when a fraction `progress` of an optimisation is done.

        Raises OptionError if they include timesteps without signal at which the checkpoint's output is of no use.
        """
        schedule, end = self.denoiser.schedule, options.anneal_end_percent
        t_min, t_max = timestep_range(schedule.num_timesteps, options.min_step_percent, options.max_step_percent)
        last = self.denoiser.last_timestep
        if t_max > last:
            raise OptionError(
                "max_step_percent",
                options.max_step_percent,
                f"less than {(last + 1) / schedule.num_timesteps:g}: the checkpoint predicts the noise, which says nothing "
                f"about the picture from timestep {last + 1} on, where its schedule leaves no signal",
            )
        t_end = None if end is None else timestep_range(schedule.num_timesteps, options.min_step_percent, end)[1]
        return annealed_bounds(options.timestep_annealing, progress, t_min, t_max, t_end=t_end, schedule=schedule)

    def score(
        self,
        v: Float[Tensor, "B C h w"],
        condition: Condition,
        bounds: tuple[int, int],
        options: PriorOptions | None = None,
        generator: torch.Generator | None = None,
        pictures: Float[Tensor, "B 3 H W"] | None = None,
        noise: Float[Tensor, "B C h w"] | None = None,
        reward: Reward | None = None,
    ) -> PriorLosses:
        """The objective on scaled latents, with timesteps drawn from `bounds`.

        pictures: what the latents were encoded from, for feature matching of pixels.
        noise: standard normal, instead of drawing it; then several noises for a picture are the same one at as many
        timesteps. reward: how good pictures B 3 H W in [0, 1] are, B numbers, for a reward_strategy.

        With several noises the latents are repeated, one batch after another, and so are the rows of the results.
        One call of the denoiser without gradients, but for the scores sdi, ism and vsd. Only feature matching and
        rewards run the decoder, the former up to its deepest layer.
        """
        options = self.complete(options or self.options)
        schedule, given, copies = self.denoiser.schedule, v, options.n_noises
        rewarded = options.reward_strategy != "none"
        drawn, how = len(v) if rewarded else len(v) * copies, options.timestep_sampling
        t = sample_timesteps(drawn, *bounds, generator=generator, device=v.device, sampling=how)
        if copies > 1:
            v, condition = v.repeat(copies, 1, 1, 1), condition.repeat(copies)
            noise = None if noise is None else noise.repeat(copies, 1, 1, 1)
            t = t.repeat(copies) if rewarded else t
        draw = partial(draw_noise, generator=generator)
        scored = scores.score(
            self.denoiser,
            v.detach(),
            t,
            condition,
            options,
            draw,
            None if noise is None else noise.to(v),
            self.variational if options.score == "vsd" else None,
        )
        lsd, x0_hat = None, scored.prediction.x0_hat
        if options.use_sds:
            w = weighting(options.weighting_strategy, schedule, t)
            if rewarded:
                w = w * copies * self._reward_weights(x0_hat, copies, reward, options)
            lsd = lsd_loss(v, scored.delta, w, options.grad_clip)
        fm = None
        if options.use_fm:
            fm = feature_matching(self.autoencoder, self.denoiser, v, pictures, t, condition, scored, options)
        kl = kl_loss(v, options.kl_form) if options.use_kl else None
        if options.score == "vsd":
            self.variational.learn(given, condition[: len(given)], options, generator)
        return PriorLosses(
            lsd=lsd,
            fm=fm,
            kl=kl,
            t=t,
            v=given,
            eps=scored.eps,
            z_t=scored.z_t,
            eps_hat=scored.prediction.eps_hat,
            delta=scored.delta,
            x0_hat=x0_hat,
        )

    @property
    def variational(self) -> Variational:
        """The LoRA of variational score distillation; made at its first use."""
        if self._variational is None:
            self._variational = Variational(self.denoiser, self.lora_learning_rate, self.average)
        return self._variational

    @property
    def learns(self) -> bool:
        """Whether there is such a LoRA."""
        return self._variational is not None

    def _reward_weights(
        self, x0_hat: Float[Tensor, "N C h w"], copies: int, reward: Reward | None, options: PriorOptions
    ) -> Float[Tensor, "N 1 1 1"]:
        if reward is None:
            given = f"{options.reward_strategy!r} needs a reward: pass one, such as reward=clip.reward([prompt])"
            raise OptionError.because(given, "reward_strategy")
        with torch.no_grad():
            rewards = torch.stack([reward(self.autoencoder.decode(rows)) for rows in x0_hat.chunk(copies)])
        return reward_weights(rewards, options.reward_strategy).view(-1, 1, 1, 1)

    @torch.no_grad()
    def denoising_error(self, v: Float[Tensor, "B C h w"], condition: Condition, seed: int = 0) -> Float[Tensor, "B"]:
        """How unlikely latents are under their prompts: the squared error of the clean estimates, mean over ERROR_AT.

        Up to a weighting and a constant it bounds minus the log likelihood (Ho et al. 2020, eq. 12), so with the same
        noise for all, which is drawn from `seed`, it tells which of several pictures a prompt means more likely (Li et
        al. 2023, "Your Diffusion Model is Secretly a Zero-Shot Classifier", eq. 6).
        """
        draw, levels, schedule = torch.Generator().manual_seed(seed), len(ERROR_AT), self.denoiser.schedule
        noise = torch.randn(levels, *v.shape, generator=draw).to(v).flatten(0, 1)
        steps = [schedule.nearest(share) for share in ERROR_AT]
        t = torch.tensor(steps, device=v.device).repeat_interleave(len(v))
        v = v.repeat(levels, 1, 1, 1)
        x0_hat = self.denoiser(schedule.add_noise(v, noise, t), t, condition.cond.repeat(levels, 1, 1))[1]
        return (x0_hat - v).square().mean(dim=(1, 2, 3)).view(levels, -1).mean(dim=0)


def _guidance_scale(checkpoint: Checkpoint) -> float:
    scale = checkpoint.beside_parts("latent_prior.json").get("guidance_scale", GUIDANCE_SCALE)
    if not isinstance(scale, int | float) or not 0 <= scale < float("inf"):
        raise OptionError.because(
            f"guidance_scale in the latent_prior.json of {checkpoint.source!r} is {scale!r}; expected a number >= 0",
            KEY,
        )
    return scale
