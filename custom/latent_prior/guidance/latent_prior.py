"""`latent-prior-guidance`: the prior with threestudio's guidance contract.

Config, scheduled state and one call; the computation is in `latent_prior.models.latent_prior`, its options in
`models.options` and `models.efficiency`. The system sets the weights of the terms (`system.loss.lambda_sds`,
`lambda_fm`, `lambda_kl`). To skip a term while its weight is 0, set for example `use_fm: ${system.loss.lambda_fm}`.

Note: guidance_scale is the standard scale, so threestudio's plain guidance_scale of 100 is 101 here.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host, options_under
from latent_prior.guidance.evaluation import guidance_pictures
from latent_prior.guidance.prompt_processor import bridge_of
from latent_prior.guidance.schedules import named, names_and_steps, scheduled, switched_on
from latent_prior.guidance.threestudio_keys import ThreestudioKeys, check_threestudio_keys
from latent_prior.host import ranks
from latent_prior.host.embedded.scalars import knots
from latent_prior.models.clip import KEY as CLIP_KEY
from latent_prior.models.clip import Clip
from latent_prior.models.condition import Condition, check_condition
from latent_prior.models.directional import directional_regulariser
from latent_prior.models.efficiency import Efficiency
from latent_prior.models.feature_matching import no_pixels
from latent_prior.models.latent_prior import LatentPrior, Reward
from latent_prior.models.options import PriorOptions, Switch
from latent_prior.prior import PIXELS, PriorLosses, SurfaceNoise, require_finite

# Options that may be schedules in a config.
SCHEDULED = (
    "guidance_scale",
    "guidance_rescale",
    "fm_guidance_scale",
    "grad_clip",
    "pixel_grad_clip",
    "min_step_percent",
    "max_step_percent",
)
SWITCHES = ("use_sds", "use_fm", "use_kl")


@host.register("latent-prior-guidance")
class LatentPriorGuidance(host.BaseObject):
    """Scores rendered pictures or latents with a pretrained latent diffusion model."""

    @dataclass
    class Config(PriorOptions, Efficiency, ThreestudioKeys, host.BaseObject.Config):
        # As PriorOptions.score, or names and the steps at which they change: [sds, 125, csd].
        score: Any = "sds"
        # The checkpoint: pocket, a diffusers folder, a .safetensors file or a hub id.
        pretrained_model_name_or_path: str = "pocket"
        # What a diffusion model predicts, if its config is missing or wrong: epsilon, v_prediction or sample; null: as
        # in its config. A flow predicts its velocity.
        prediction_type: str | None = None
        # Textual Inversion files or hub ids, `file` or `file=word`: words added to the text encoder. Use the same
        # in the prompt processor.
        textual_inversion: list[str] = field(default_factory=list)
        # LoRA files or hub ids, `file` or `file:scale`, merged into the weights. Use the same in the prompt processor.
        lora: list[str] = field(default_factory=list)
        # Guidance scale that a model into which guidance was distilled (Flux dev) is told, whatever guidance_scale is.
        embedded_guidance_scale: float = 3.5
        # Weights in float16 on CUDA, of transformers in bfloat16; on a CPU they are always float32.
        half_precision_weights: bool = True
        # Learning rate of the LoRA that the score vsd trains along.
        lora_lr: float = 1e-4
        # CLIP that judges clean estimates for reward_strategy: pocket, a folder in transformers' layout, or a hub id.
        reward_clip: str = "pocket"
        # Use the prompt for each camera's direction ("..., back view") instead of one prompt for all.
        view_dependent_prompting: bool = True
        # Maximum number of samples of a batch to show in guidance_eval; 0 shows none, negative all.
        max_items_eval: int = 4
        # Steps over which timestep_annealing runs, usually ${trainer.max_steps}.
        trainer_max_steps: int = 25000
        # Noise stays on the surface that is seen, in cells of this edge length (world units), so that all views pull
        # towards one pattern; see latent_prior.prior.surface_noise. null draws it anew for every picture.
        noise_cell: float | None = None
        # Seed of the noise in the cells, usually ${seed}.
        noise_seed: int = 0

        # Compute loss_directional, StyleGANFusion's regulariser, which needs source_rgb.
        use_directional: Switch = False

        def __post_init__(self):
            """Does nothing: a schedule is not a number yet. `configure` checks the options at every knot."""

    cfg: Config

    def configure(self) -> None:
        with options_under("system.guidance."):
            # options first, so that errors, also late in a schedule, are reported before a model is loaded
            if self.cfg.trainer_max_steps < 1:
                raise OptionError("trainer_max_steps", self.cfg.trainer_max_steps, "at least 1")
            if self.cfg.noise_cell is not None and not 0 < self.cfg.noise_cell < float("inf"):
                raise OptionError("noise_cell", self.cfg.noise_cell, "a length above 0, or null")
            if not 0 <= self.cfg.embedded_guidance_scale < float("inf"):
                given = self.cfg.embedded_guidance_scale
                raise OptionError("embedded_guidance_scale", given, "a finite number of at least 0")
            if not 0 < self.cfg.lora_lr < float("inf"):
                raise OptionError("lora_lr", self.cfg.lora_lr, "a learning rate above 0")
            check_threestudio_keys(self.cfg)
            options = self._options_at_every_knot()
            scores = {some.score for some in options}
            if self.cfg.noise_cell is not None and (finds := scores & {"sdi", "ism"}):
                expected = f"null: the score {min(finds)!r} finds its noise"
                raise OptionError("noise_cell", self.cfg.noise_cell, expected)
            self.prior = LatentPrior.from_pretrained(
                self.cfg.pretrained_model_name_or_path,
                device=self.device,
                half_precision_weights=self.cfg.half_precision_weights,
                textual_inversion=self.cfg.textual_inversion,
                lora=self.cfg.lora,
                prediction_type=self.cfg.prediction_type,
                efficiency=Efficiency(**self._values_of(Efficiency)),
                embedded_guidance_scale=self.cfg.embedded_guidance_scale,
            )
            self.prior.check_fit(options[0])
            self.prior.lora_learning_rate, self.prior.average = self.cfg.lora_lr, ranks.mean_over
            if "vsd" in scores:
                _ = self.prior.variational  # an error now, and not at the step where its turn comes
            for some in options:
                self.prior.timestep_bounds(some)
        self.matches_pixels = self.cfg.fm_target in PIXELS and any(some.use_fm for some in options)  # at any step
        self._clip = self._load_clip() if options[0].reward_strategy != "none" else None
        self._rewards: dict[str, Reward] = {}  # by prompt
        # None draws from torch's global generator; set one to draw the guidance's numbers independently of the run
        self.generator: torch.Generator | None = None
        channels, cell = self.prior.autoencoder.latent_channels, self.cfg.noise_cell
        self.surface_noise = None if cell is None else SurfaceNoise(cell, channels, self.cfg.noise_seed)
        self.update_step(0, 0)
        host.info(f"Loaded latent diffusion prior {self.cfg.pretrained_model_name_or_path}")

    @options_under("system.guidance.")
    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Set the scheduled options and the range of timesteps for this step of training."""
        self.options = self.prior.complete(self._options_at(epoch, global_step))
        self.use_directional = switched_on("use_directional", self.cfg.use_directional, epoch, global_step)
        progress = min(1.0, global_step / self.cfg.trainer_max_steps)
        self.min_step, self.max_step = self.prior.timestep_bounds(self.options, progress)

    def __call__(
        self,
        rgb: Float[Tensor, "B H W C"],
        prompt_utils: Any,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        rgb_as_latents: bool = False,
        guidance_eval: bool = False,
        source_rgb: Float[Tensor, "B H W C"] | None = None,
        points: Float[Tensor, "B Hs Ws 3"] | None = None,
        opacity: Float[Tensor, "B Hs Ws 1"] | None = None,
        **batch,
    ) -> dict[str, Any]:
        """Losses of rendered pictures in [0, 1], or of scaled latents if `rgb_as_latents`; angles in degrees.

        source_rgb: `rgb` before the optimisation, for the directional regulariser. points, opacity: the places that the
        pictures show, for `noise_cell`. Returns loss_sds, loss_fm, loss_kl
        and loss_directional (those in use); grad_norm, the norm of w(t) times the residual; grad_norm_sds and so on,
        the norm of each term's unweighted gradient on the latents, if a gradient is required; min_step, max_step; and
        `eval` with `guidance_eval`. Random numbers are drawn in the order of LatentPrior. Other keys of the framework's
        batch are accepted and ignored. Raises OptionError for a term that is not finite.
        """
        # the precision is chosen here, not by the trainer
        with torch.autocast(rgb.device.type, enabled=False):
            cameras = (elevation, azimuth, camera_distances)
            condition = self._condition(prompt_utils, cameras)
            v = self._to_latents(rgb, rgb_as_latents)
            if rgb_as_latents and self.matches_pixels:  # known from the first step on
                raise no_pixels(self.cfg.fm_target, "system.guidance.fm_target")
            pictures = None if rgb_as_latents else self.prior.resized(rgb.permute(0, 3, 1, 2), self.options)
            bounds = (self.min_step, self.max_step)
            with options_under("system.guidance."):
                noise = self._noise(v, points, opacity)
                reward = self._reward(prompt_utils)
                losses = self.prior.score(v, condition, bounds, self.options, self.generator, pictures, noise, reward)
            norms = losses.gradient_norms() if torch.is_grad_enabled() else {}
            norms = {f"grad_norm_{name}": norm for name, norm in norms.items()}
            terms = {f"loss_{name}": term for name, term in losses.terms().items()}
            require_finite({**terms, **norms})
            out: dict[str, Any] = dict(terms)
            if losses.lsd is not None:  # it is ||w delta||^2 / 2B, so the norm needs no second pass
                out["grad_norm"] = (2 * len(losses.t) * losses.lsd.detach()).sqrt()
            if self.use_directional:
                out["loss_directional"] = self._directional(source_rgb, rgb_as_latents, condition, losses)
            out |= {**norms, "min_step": self.min_step, "max_step": self.max_step}
            limit = self.cfg.max_items_eval
            if guidance_eval and limit:
                out["eval"] = guidance_pictures(self.prior, losses, condition, self.options, cameras, limit)
        return out

    def denoising_error(
        self,
        rgb: Float[Tensor, "B H W 3"],
        prompt_utils: Any,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        prompted: bool = True,
    ) -> Float[Tensor, "B"]:
        """How unlikely pictures in [0, 1] are, under the prompt or else under the negative one; angles in degrees.

        See LatentPrior.denoising_error.
        """
        with torch.autocast(rgb.device.type, enabled=False):
            condition = self._condition(prompt_utils, (elevation, azimuth, camera_distances))
            if not prompted:
                condition = replace(condition, cond=condition.uncond)
            return self.prior.denoising_error(self._to_latents(rgb, False), condition)

    def decode_latents(
        self,
        latents: Float[Tensor, "B C h w"],
        latent_height: int | None = None,
        latent_width: int | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """Pictures in [0, 1] from scaled latents, resized to the given size first; None: the checkpoint's own size."""
        height, width = self.prior.denoiser.sample_size
        size = (latent_height or height, latent_width or width)
        if latents.shape[-2:] != size:
            latents = F.interpolate(latents.float(), size, mode="bilinear", align_corners=False)
        with torch.autocast(latents.device.type, enabled=False):
            return self.prior.autoencoder.decode(latents.float())

    def state_dict(self) -> dict[str, Any]:
        """What the guidance itself has learned, for checkpoints: the LoRA of the score vsd, if there is one."""
        return {"variational": self.prior.variational.state_dict()} if self.prior.learns else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        if "variational" in state:
            self.prior.variational.load_state_dict(state["variational"])

    def _values_of(self, options: type) -> dict[str, Any]:
        config = host.config_to_primitive(self.cfg)
        return {option.name: config[option.name] for option in fields(options)}

    def _options_at_every_knot(self) -> list[PriorOptions]:
        """The options at the knots. Schedules are linear in between, so conditions that hold here hold throughout."""
        self._options_at(0, 0)  # raises an error that names a schedule that cannot be read
        switched_on("use_directional", self.cfg.use_directional, 0, 0)
        values = self._values_of(PriorOptions)
        schedules = [values[name] for name in (*SCHEDULED, *SWITCHES) if values[name] is not None]
        changes = [(0, step) for step in names_and_steps("score", values["score"])[1]]
        return [self._options_at(*moment) for moment in [*knots(schedules), *changes]]

    def _options_at(self, epoch: int, global_step: int) -> PriorOptions:
        values = self._values_of(PriorOptions)
        for name in SCHEDULED:
            if values[name] is not None:
                values[name] = scheduled(name, values[name], epoch, global_step)
        for name in SWITCHES:
            values[name] = switched_on(name, values[name], epoch, global_step)
        values["score"] = named("score", values["score"], global_step)
        return PriorOptions(**values)

    def _to_latents(self, rgb: Float[Tensor, "B H W C"], latents: bool) -> Float[Tensor, "B c h w"]:
        channels = self.prior.autoencoder.latent_channels if latents else 3
        if rgb.shape[-1] != channels:
            what = "latents (rgb_as_latents)" if latents else "pictures"
            raise OptionError.because(
                f"got {what} of shape {tuple(rgb.shape)}; expected B H W {channels}: "
                f"set system.geometry.n_feature_dims={channels}, or change system.space"
            )
        with options_under("system.guidance."):
            return self.prior.to_latents(
                rgb.permute(0, 3, 1, 2),
                latents=latents,
                options=self.options,
                generator=self.generator,
                differentiable=self.options.needs_latent_gradient or self.use_directional,
            )

    def _noise(self, v: Tensor, points: Tensor | None, opacity: Tensor | None) -> Float[Tensor, "B C h w"] | None:
        if self.surface_noise is None:
            return None
        if points is None or opacity is None:
            raise OptionError("noise_cell", self.cfg.noise_cell, "null: this system does not say which places it shows")
        return self.surface_noise(points.detach(), opacity.detach(), v.shape[-2:])

    def _directional(
        self, source_rgb: Tensor | None, as_latents: bool, condition: Condition, losses: PriorLosses
    ) -> Float[Tensor, ""]:
        if source_rgb is None:
            raise OptionError("system.guidance.use_directional", True, "false: this system gives no source")
        with torch.no_grad():
            v_source = self.prior.to_latents(source_rgb.permute(0, 3, 1, 2), latents=as_latents, options=self.options)
        return directional_regulariser(self.prior, losses.v, v_source, condition, losses, self.options)

    def _reward(self, prompt_utils: Any) -> Reward | None:
        """CLIP's, of the whole prompt, whichever side a camera sees."""
        if self._clip is None:
            return None
        prompt = prompt_utils.prompt
        if prompt not in self._rewards:
            self._rewards[prompt] = self._clip.reward([prompt])
        return self._rewards[prompt]

    def _load_clip(self) -> Clip:
        try:
            return Clip.from_pretrained(self.cfg.reward_clip, self.device)
        except OptionError as error:
            raise OptionError.because(str(error).replace(CLIP_KEY, "system.guidance.reward_clip")) from error

    def _condition(self, prompt_utils: Any, cameras: tuple[Tensor, Tensor, Tensor]) -> Condition:
        batch, view_dependent = len(cameras[0]), self.cfg.view_dependent_prompting
        null = None
        if self.options.score == "bridge":
            prompt_utils = bridge_of(prompt_utils)
        if self.options.score == "nfsd":
            null = self.prior.text_encoder([""]).expand(batch, -1, -1)
        if not prompt_utils.use_perp_neg:
            cond, uncond = prompt_utils.get_text_embeddings(*cameras, view_dependent).chunk(2)
            condition = Condition(cond, uncond, null=null)
        else:
            embeddings, weights = prompt_utils.get_text_embeddings_perp_neg(*cameras, view_dependent)
            # rows: positive B, unconditional B, then the negatives of the first sample, of the second, ...
            negatives = embeddings[2 * batch :].unflatten(0, (batch, weights.shape[1]))
            condition = Condition(embeddings[:batch], embeddings[batch : 2 * batch], negatives, weights, null)
        with options_under("system.prompt_processor."):
            check_condition(condition, self.prior.denoiser, self.options)
        return condition
