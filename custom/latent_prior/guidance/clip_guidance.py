"""`clip-guidance`: CLIP instead of the prior, with the same guidance contract.

Two terms: loss_clip_directional (StyleGAN-NADA, Gal et al. 2022), which moves a picture from its source in the
direction from the source text to the target text, and loss_clip_text (Text2LIVE, Bar-Tal et al. 2022), which
moves it towards the target text. The system sets their weights, `system.loss.lambda_clip_directional` and
`lambda_clip_text`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host, options_under
from latent_prior.guidance.augmented_views import draw_views, seen_from
from latent_prior.guidance.schedules import ever_on, switched_on
from latent_prior.models.clip import Clip
from latent_prior.models.options import Switch
from latent_prior.prior import directional_loss, require_finite, spherical_distance

VIEW = 3 * 32**2  # numbers of a small picture


@host.register("clip-guidance")
class ClipGuidance(host.BaseObject):
    """Scores pictures by the direction of their embeddings from a source, and by their distance to a text."""

    @dataclass
    class Config(host.BaseObject.Config):
        # The CLIP: pocket, a folder in transformers' layout, or a hub id such as openai/clip-vit-base-patch32.
        clip_name_or_path: str = "pocket"
        # What the pictures should show, usually ${system.prompt_processor.prompt}.
        prompt: str = ""
        # What the source's pictures show, for the directional term; empty: not given.
        source_prompt: str = ""
        # Compute loss_clip_directional, which needs source_rgb and source_prompt.
        use_directional: Switch = False
        # Compute loss_clip_text.
        use_text: Switch = False
        # Number of random views of each picture that CLIP scores; 1: the unchanged picture. Text2LIVE uses 16.
        views: int = 1

    cfg: Config

    def configure(self) -> None:
        with options_under("system.guidance."):  # first, so that a missing option is reported before a model is loaded
            self._check_options()
            self.clip = Clip.from_pretrained(self.cfg.clip_name_or_path, self.device)
        self._texts: dict[str, Tensor] = {}  # embeddings by prompt
        self.source_text = self.clip.embed_texts([self.cfg.source_prompt])
        # None draws from torch's global generator; set one to draw the views independently of the run
        self.generator: torch.Generator | None = None
        self.update_step(0, 0)
        host.info(f"Loaded CLIP {self.cfg.clip_name_or_path}")

    @options_under("system.guidance.")
    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Set the switches for this step of training."""
        self.use_directional = switched_on("use_directional", self.cfg.use_directional, epoch, global_step)
        self.use_text = switched_on("use_text", self.cfg.use_text, epoch, global_step)

    def __call__(
        self,
        rgb: Float[Tensor, "B H W C"],
        prompt_utils: Any,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        rgb_as_latents: bool = False,
        guidance_eval: bool = False,
        source_rgb: Float[Tensor, "_ _ _ C"] | None = None,
        prompt: str | None = None,
        **batch,
    ) -> dict[str, Any]:
        """loss_clip_directional and loss_clip_text (those in use) for pictures in [0, 1].

        source_rgb: `rgb` before the optimisation, one per picture, for the directional term. prompt: what these
        pictures should show; None uses the config's. `prompt_utils`, the cameras and other keys of the framework's
        batch are accepted and ignored. Raises OptionError for latents, a missing source and a term that is not finite.
        """
        if rgb_as_latents:
            raise OptionError.because(
                "clip-guidance scores pictures, but the system passes latents (rgb_as_latents): set system.space=rgb, "
                "or system.guidance_type=latent-prior-guidance"
            )
        if rgb.shape[-1] != 3:
            raise OptionError.because(
                f"got pictures of shape {tuple(rgb.shape)}; expected B H W 3: set system.geometry.n_feature_dims=3"
            )
        out: dict[str, Any] = {}
        # the precision is chosen here, not by the trainer
        with torch.autocast(rgb.device.type, enabled=False):
            views = draw_views(len(rgb) * self.cfg.views, self.generator) if self.cfg.views > 1 else None
            if not (self.use_directional or self.use_text):
                return out
            now = self._embedded(rgb, views)
            text = self._text(prompt or self.cfg.prompt)
            if self.use_directional:
                before = self._embedded_source(source_rgb, rgb, views)
                out["loss_clip_directional"] = directional_loss(now, before, text, self.source_text)
            if self.use_text:
                out["loss_clip_text"] = spherical_distance(now, text).mean()
        require_finite(out)
        return out

    def _text(self, prompt: str) -> Float[Tensor, "1 D"]:
        if prompt not in self._texts:
            self._texts[prompt] = self.clip.embed_texts([prompt])
        return self._texts[prompt]

    def _embedded(self, rgb_BHWC: Tensor, views: Tensor | None) -> Float[Tensor, "N D"]:
        images = rgb_BHWC.permute(0, 3, 1, 2).float()
        if views is not None:
            images = seen_from(images.repeat_interleave(self.cfg.views, 0), views)
        return self.clip.embed_images(images)

    @torch.no_grad()
    def _embedded_source(self, source_rgb: Tensor | None, rgb: Tensor, views: Tensor | None) -> Float[Tensor, "N D"]:
        if source_rgb is None:
            raise OptionError("system.guidance.use_directional", True, "false: this system gives no source")
        if len(source_rgb) != len(rgb):
            raise ValueError(
                f"got {len(source_rgb)} pictures of the source for {len(rgb)} pictures; expected the same number"
            )
        return self._embedded(source_rgb, views)

    def _check_options(self) -> None:
        if not self.cfg.prompt.strip():
            raise OptionError("prompt", self.cfg.prompt, 'what the pictures should show, such as "a golden mug"')
        if self.cfg.views < 1:
            raise OptionError("views", self.cfg.views, "at least 1")
        host.require_memory(self.cfg.views * VIEW, {"views": self.cfg.views})
        ever_on("use_text", self.cfg.use_text)
        if ever_on("use_directional", self.cfg.use_directional):
            self._check_source_prompt()

    def _check_source_prompt(self) -> None:
        source, target = self.cfg.source_prompt.strip(), self.cfg.prompt.strip()
        if not source:
            raise OptionError(
                "source_prompt", source, 'what the source shows, such as "a mug", or use_directional=false'
            )
        if source == target:
            raise OptionError(
                "source_prompt", source, "what the source shows: there is no direction from the prompt to itself"
            )
