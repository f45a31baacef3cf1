"""`latent-prior-guidance`: the prior under threestudio's guidance contract.

Config, scheduled state and one call; what is computed lies in `latent_prior.models.latent_prior`. The weights of the
terms are the system's (`system.loss.lambda_sds`, `lambda_fm`, `lambda_kl`); a term whose weight is 0 is best not
computed: `use_fm: ${system.loss.lambda_fm}` computes it while its weight is above 0.

Beware: guidance_scale is the standard scale, so threestudio's plain guidance_scale of 100 is 101 here.
"""

import sys
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.guidance.evaluation import guidance_pictures
from latent_prior.guidance.schedules import scheduled, switched_on
from latent_prior.models.condition import Condition
from latent_prior.models.directional import directional_regulariser
from latent_prior.models.efficiency import Efficiency
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from latent_prior.prior import PriorLosses

# Options that may change over training, so that a config may hold a schedule for them.
SCHEDULED = ("guidance_scale", "guidance_rescale", "grad_clip", "min_step_percent", "max_step_percent")
SWITCHES = ("use_fm", "use_kl")


@host.register("latent-prior-guidance")
class LatentPriorGuidance(host.BaseObject):
    """Scores rendered pictures or latents with a pretrained latent diffusion model."""

    @dataclass
    class Config(host.BaseObject.Config):
        # The checkpoint: pocket, a diffusers folder, a .safetensors file or a hub id.
        pretrained_model_name_or_path: str = "pocket"
        # What it predicts, where it does not say so or says it wrong: epsilon, v_prediction or sample; null believes it.
        prediction_type: str | None = None
        # Textual Inversion files or hub ids, `file` or `file=word`: words added to the text encoder. Give the prompt
        # processor the same.
        textual_inversion: list[str] = field(default_factory=list)
        # LoRA files or hub ids, `file` or `file:scale`, merged into the weights. Give the prompt processor the same.
        lora: list[str] = field(default_factory=list)
        # Weights in float16 on CUDA; on a CPU they are float32 always.
        half_precision_weights: bool = True
        # Ask for the prompt of each camera's direction ("..., back view") instead of one prompt for all.
        view_dependent_prompting: bool = True
        # Most samples of a batch to show in guidance_eval; negative shows all.
        max_items_eval: int = 4
        # Steps over which timestep_annealing runs, usually ${trainer.max_steps}.
        trainer_max_steps: int = 25000

        # The next six are the fields of Efficiency: convolution weights in the order N H W C,
        enable_channels_last_format: bool = False
        # attention in slices,
        enable_attention_slicing: bool = False
        # the autoencoder's activations recomputed on the way back,
        enable_gradient_checkpointing: bool = False
        # similar tokens merged (needs tomesd), with the keywords of tomesd.apply_patch,
        token_merging: bool = False
        token_merging_params: dict = field(default_factory=dict)
        # the denoiser compiled.
        enable_compile: bool = False

        # Compute loss_directional, StyleGANFusion's regulariser, which needs source_rgb: as use_fm.
        use_directional: Any = False

        # The rest are the fields of PriorOptions. "Scheduled" ones take a number or a schedule [v0, v1, end], ...

        # Scheduled. Scale of classifier-free guidance in its standard form: 0 unconditional, 1 conditional.
        guidance_scale: Any = 100.0
        # Scheduled. phi in [0, 1]: draws the clean estimate back to the conditional's spread; 0 leaves it alone.
        guidance_rescale: Any = 0.0
        # Noise residual: sds, csd (conditional less unconditional) or nfsd (noise-free; name flaws in negative_prompt).
        score: str = "sds"
        # w(t) of score distillation: sds (1 - alpha_bar), uniform, fantasia3d (sqrt(alpha_bar) (1 - alpha_bar)).
        weighting_strategy: str = "sds"
        # Scheduled. Bound on every entry of w(t) times the residual; null does not clip.
        grad_clip: Any = None
        # Compute loss_fm, the feature matching term, which alone needs the decoder: true, false, or a number or schedule,
        # such as the term's weight, ${system.loss.lambda_fm}, and the term is computed while that is above 0.
        use_fm: Any = True
        # What features are compared with: residual, paper or denoised.
        fm_target: str = "residual"
        # Decoder layers to compare in, of mid, up_0, up_1, ...; null takes the first three levels after mid.
        fm_layers: list[str] | None = None
        # Compute loss_kl, the KL regulariser: as use_fm.
        use_kl: Any = True
        # The regulariser's form: standard or paper.
        kl_form: str = "standard"
        # Scheduled. Timesteps are drawn between these fractions of the model's schedule, both ends included.
        min_step_percent: Any = 0.02
        max_step_percent: Any = 0.98
        # How that range narrows over trainer_max_steps: none, linear, sqrt (threestudio's sqrt_anneal), dreamtime.
        timestep_annealing: str = "none"
        # Where its upper end arrives under linear annealing, as a fraction; null goes down to the minimum.
        anneal_end_percent: float | None = None
        # Draw latents from the encoder's Gaussian, as threestudio does, instead of taking its mode.
        sample_latents: bool = False
        # Resize input to the checkpoint's own size; without it pictures must be a size the encoder can take.
        resize_input: bool = True

    cfg: Config

    def configure(self) -> None:
        # options first: a misspelt one should not cost the loading of a model, nor a schedule's end the training
        if self.cfg.trainer_max_steps < 1:
            raise OptionError.because(
                f"system.guidance.trainer_max_steps is {self.cfg.trainer_max_steps}; expected at least 1"
            )
        self._options_at(epoch=sys.maxsize, global_step=sys.maxsize)
        self.options = self._options_at(epoch=0, global_step=0)
        self.prior = LatentPrior.from_pretrained(
            self.cfg.pretrained_model_name_or_path,
            device=self.device,
            half_precision_weights=self.cfg.half_precision_weights,
            textual_inversion=self.cfg.textual_inversion,
            lora=self.cfg.lora,
            prediction_type=self.cfg.prediction_type,
            efficiency=Efficiency(**{option.name: self.cfg[option.name] for option in fields(Efficiency)}),
        )
        self.prior.autoencoder.check_layers(self.options.fm_layers)
        # None draws from torch's global generator; set another to draw the guidance's numbers apart from the run's
        self.generator: torch.Generator | None = None
        self.update_step(0, 0)
        host.info(f"Loaded latent diffusion prior {self.cfg.pretrained_model_name_or_path}")

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Bring the scheduled options and the range of timesteps to this moment of training."""
        self.options = self._options_at(epoch, global_step)
        progress = min(1.0, global_step / self.cfg.trainer_max_steps)
        self.min_step, self.max_step = self.prior.timestep_bounds(self.options, progress)
        self.use_directional = switched_on("use_directional", self.cfg.use_directional, epoch, global_step)

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
        **batch,
    ) -> dict[str, Any]:
        """Losses of rendered pictures in [0, 1], or of scaled latents if `rgb_as_latents`; angles in degrees.

        source_rgb: what `rgb` was before the optimisation, for the directional regulariser. Returns loss_sds, loss_fm,
        loss_kl and loss_directional (those in use); grad_norm, the norm of w(t) times the residual; per term
        the norm of its unweighted gradient on the latents, grad_norm_sds and so on, where a gradient is asked for;
        min_step, max_step; and `eval` under `guidance_eval`. Random numbers are drawn in the order of LatentPrior.
        Further keys of the framework's batch are taken and left alone. Raises ValueError for a term that is not finite.
        """
        # the precision is ours to choose, not the trainer's
        with torch.autocast(rgb.device.type, enabled=False):
            cameras = (elevation, azimuth, camera_distances)
            condition = self._condition(prompt_utils, cameras)
            v = self.prior.to_latents(
                rgb.permute(0, 3, 1, 2), latents=rgb_as_latents, options=self.options, generator=self.generator
            )
            losses = self.prior.score(v, condition, (self.min_step, self.max_step), self.options, self.generator)
            terms = losses.terms()
            norms = losses.gradient_norms() if torch.is_grad_enabled() and v.requires_grad else {}
            _require_finite({**{f"loss_{name}": term for name, term in terms.items()}, **_named(norms)})
            out = {f"loss_{name}": term for name, term in terms.items()}
            # lsd is ||w delta||^2 / 2B, so the norm needs no second pass
            out["grad_norm"] = (2 * len(v) * losses.lsd.detach()).sqrt()
            if self.use_directional:
                out["loss_directional"] = self._directional(source_rgb, rgb_as_latents, condition, losses)
            out |= {**_named(norms), "min_step": self.min_step, "max_step": self.max_step}
            if guidance_eval:
                limit = self.cfg.max_items_eval
                out["eval"] = guidance_pictures(self.prior, losses, condition, self.options, cameras, limit)
        return out

    def decode_latents(
        self,
        latents: Float[Tensor, "B C h w"],
        latent_height: int | None = None,
        latent_width: int | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """Pictures in [0, 1] of scaled latents, resized to the given size first; None: the checkpoint's own size."""
        height, width = self.prior.denoiser.sample_size
        size = (latent_height or height, latent_width or width)
        if latents.shape[-2:] != size:
            latents = F.interpolate(latents.float(), size, mode="bilinear", align_corners=False)
        with torch.autocast(latents.device.type, enabled=False):
            return self.prior.autoencoder.decode(latents.float())

    def _options_at(self, epoch: int, global_step: int) -> PriorOptions:
        values = {option.name: self.cfg[option.name] for option in fields(PriorOptions)}
        for name in SCHEDULED:
            if values[name] is not None:
                values[name] = scheduled(name, values[name], epoch, global_step)
        for name in SWITCHES:
            values[name] = switched_on(name, values[name], epoch, global_step)
        if values["fm_layers"] is not None:
            values["fm_layers"] = tuple(values["fm_layers"])
        return PriorOptions(**values)

    def _directional(
        self, source_rgb: Tensor | None, as_latents: bool, condition: Condition, losses: PriorLosses
    ) -> Float[Tensor, ""]:
        if source_rgb is None:
            raise OptionError.because(
                "system.guidance.use_directional is on, but this system gives no source to hold on to: set it to false"
            )
        with torch.no_grad():
            v_source = self.prior.to_latents(source_rgb.permute(0, 3, 1, 2), latents=as_latents, options=self.options)
        return directional_regulariser(self.prior, losses.v, v_source, condition, losses, self.options)

    def _condition(self, prompt_utils: Any, cameras: tuple[Tensor, Tensor, Tensor]) -> Condition:
        batch, view_dependent = len(cameras[0]), self.cfg.view_dependent_prompting
        null = None
        if self.options.score == "nfsd":
            null = self.prior.text_encoder([""]).expand(batch, -1, -1)
        if not prompt_utils.use_perp_neg:
            cond, uncond = prompt_utils.get_text_embeddings(*cameras, view_dependent).chunk(2)
            return Condition(cond, uncond, null=null)
        embeddings, weights = prompt_utils.get_text_embeddings_perp_neg(*cameras, view_dependent)
        # rows: positive B, unconditional B, then the negatives of the first sample, of the second, ...
        negatives = embeddings[2 * batch :].unflatten(0, (batch, weights.shape[1]))
        return Condition(embeddings[:batch], embeddings[batch : 2 * batch], negatives, weights, null)


def _named(norms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"grad_norm_{name}": norm for name, norm in norms.items()}


def _require_finite(values: dict[str, Tensor]) -> None:
    """Raise ValueError naming what is not finite; one look at the device for all of them."""
    stacked = torch.stack([value.detach() for value in values.values()])
    if not bool(torch.isfinite(stacked).all()):
        bad = ", ".join(f"{name} = {value.item()}" for name, value in values.items() if not torch.isfinite(value))
        raise OptionError.because(
            f"the optimisation has diverged: {bad}; lower the learning rate or set system.guidance.grad_clip"
        )
