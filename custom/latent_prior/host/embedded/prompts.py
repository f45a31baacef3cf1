"""Prompts and their embeddings by view: a camera at the back gets "..., back view".

The directions are side (everywhere else), front, back and overhead; later ones take precedence. Angles are in degrees;
azimuth 0 is the front.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.base import BaseObject
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.logs import debug, info
from latent_prior.host.embedded.prompt_output import DirectionConfig, PromptProcessorOutput, shift_azimuth_deg

__all__ = ["PromptProcessor", "PromptProcessorOutput"]


class PromptProcessor(BaseObject):
    """Base of all prompt processors; a subclass computes the embeddings of the prompts."""

    @dataclass
    class Config(BaseObject.Config):
        prompt: str = "a hamburger"  # what to make

        # Prompts for single directions; None: the prompt with the direction's words added.
        prompt_front: str | None = None
        prompt_side: str | None = None
        prompt_back: str | None = None
        prompt_overhead: str | None = None

        negative_prompt: str = ""  # what guidance moves away from; empty: the unconditional embedding
        pretrained_model_name_or_path: str = "runwayml/stable-diffusion-v1-5"  # checkpoint with the text encoder
        overhead_threshold: float = 60.0  # overhead from this elevation on, degrees
        front_threshold: float = 45.0  # front within this azimuth on either side of 0, degrees
        back_threshold: float = 45.0  # back within this azimuth on either side of 180, degrees
        view_dependent_prompt_front: bool = False  # "front view of a mug" instead of "a mug, front view"

        # Perp-Neg (Armandpour et al. 2023): negative prompts of the neighbouring views, each weighted by a decay
        # f(r) = a exp(-b r) + c over the interpolation r between two views, given as [a, b, c].
        use_perp_neg: bool = False  # use these instead of one prompt per direction
        perp_neg_f_sb: tuple[float, float, float] = (1, 0.5, -0.606)  # side, when between side and back
        perp_neg_f_fsb: tuple[float, float, float] = (1, 0.5, +0.967)  # front, when between side and back
        perp_neg_f_fs: tuple[float, float, float] = (4, 0.5, -2.426)  # front, when between front and side
        perp_neg_f_sf: tuple[float, float, float] = (4, 0.5, -2.426)  # side, when between front and side

    cfg: Config

    def configure(self) -> None:
        self.directions = self._make_directions()
        self.direction2idx = {direction.name: i for i, direction in enumerate(self.directions)}
        self.prompt = self.preprocess_prompt(self.cfg.prompt)
        self.negative_prompt = self.cfg.negative_prompt
        self.prompts_vd = [self.cfg[f"prompt_{d.name}"] or d.prompt(self.prompt) for d in self.directions]
        self.negative_prompts_vd = [d.negative_prompt(self.negative_prompt) for d in self.directions]
        info(f"Prompt [{self.prompt}], negative prompt [{self.negative_prompt}]")
        debug(f"Prompts by view: {dict(zip(self.direction2idx, self.prompts_vd, strict=True))}")
        self.prepare_text_embeddings()
        self.load_text_embeddings()

    def _make_directions(self) -> list[DirectionConfig]:
        cfg = self.cfg

        def side(elevation, azimuth, distance) -> Bool[Tensor, "B"]:
            return torch.ones_like(elevation, dtype=torch.bool)

        def front(elevation, azimuth, distance) -> Bool[Tensor, "B"]:
            azimuth = shift_azimuth_deg(azimuth)
            return (azimuth > -cfg.front_threshold) & (azimuth < cfg.front_threshold)

        def back(elevation, azimuth, distance) -> Bool[Tensor, "B"]:
            azimuth = shift_azimuth_deg(azimuth)
            return (azimuth > 180 - cfg.back_threshold) | (azimuth < -180 + cfg.back_threshold)

        def overhead(elevation, azimuth, distance) -> Bool[Tensor, "B"]:
            return elevation > cfg.overhead_threshold

        def words(name: str) -> Callable[[str], str]:
            if cfg.view_dependent_prompt_front:
                prefix = "backside" if name == "back" else name
                return lambda prompt: f"{prefix} view of {prompt}"
            return lambda prompt: f"{prompt}, {name} view"

        conditions = {"side": side, "front": front, "back": back, "overhead": overhead}
        return [
            DirectionConfig(name, words(name), lambda negative: negative, condition)
            for name, condition in conditions.items()
        ]

    def preprocess_prompt(self, prompt: str) -> str:
        """The prompt itself. Raises OptionError if it refers to threestudio's prompt library, which is not included."""
        if prompt.startswith("lib:"):
            raise OptionError.because(
                f"the prompt library is threestudio's; write out the prompt instead of {prompt!r}",
                full_key(self.cfg, "prompt"),
            )
        return prompt

    def prepare_text_embeddings(self) -> None:
        """Override: embed `prompt`, `negative_prompt`, `prompts_vd` and `negative_prompts_vd`."""
        raise NotImplementedError

    def load_from_cache(self, prompt: str) -> Float[Tensor, "L D"]:
        """Override: a prompt's embedding on this object's device."""
        raise NotImplementedError

    def load_text_embeddings(self) -> None:
        """Load all embeddings and group them by use."""
        self.text_embeddings = self.load_from_cache(self.prompt)[None]
        self.uncond_text_embeddings = self.load_from_cache(self.negative_prompt)[None]
        self.text_embeddings_vd = torch.stack([self.load_from_cache(prompt) for prompt in self.prompts_vd])
        self.uncond_text_embeddings_vd = torch.stack([self.load_from_cache(p) for p in self.negative_prompts_vd])

    def __call__(self) -> PromptProcessorOutput:
        """The embeddings in the form that guidance needs."""
        return PromptProcessorOutput(
            text_embeddings=self.text_embeddings,
            uncond_text_embeddings=self.uncond_text_embeddings,
            text_embeddings_vd=self.text_embeddings_vd,
            uncond_text_embeddings_vd=self.uncond_text_embeddings_vd,
            directions=self.directions,
            direction2idx=self.direction2idx,
            use_perp_neg=self.cfg.use_perp_neg,
            perp_neg_f_sb=tuple(self.cfg.perp_neg_f_sb),
            perp_neg_f_fsb=tuple(self.cfg.perp_neg_f_fsb),
            perp_neg_f_fs=tuple(self.cfg.perp_neg_f_fs),
            perp_neg_f_sf=tuple(self.cfg.perp_neg_f_sf),
            prompt=self.prompt,
            prompts_vd=self.prompts_vd,
        )
