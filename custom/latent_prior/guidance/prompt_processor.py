"""`latent-prior-prompt-processor`: embeds prompts for any checkpoint that the guidance accepts, in this process.

The host's base class handles view-dependent prompts and perp-neg. This class only computes the embeddings, with
`TextEncoder`, which supports `pocket`, single files and withdrawn hub ids, and has its own cache, keyed by the contents
of the text encoder instead of its name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent_prior import OptionError, host, options_under
from latent_prior.models.camera_words import CameraWords
from latent_prior.models.checkpoint import resolve
from latent_prior.models.text_encoder import TextEncoder

CACHE_FOLDER = Path(".threestudio_cache", "text_embeddings")  # threestudio's own


class _Nearest:
    """Which of the cameras with words is nearest; found once for a batch, which hundreds of directions ask about."""

    def __init__(self, words: CameraWords):
        self._words = words
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # elevation, azimuth, and what was found

    def is_number(self, number: int) -> Callable[[Tensor, Tensor, Tensor], Bool[Tensor, "B"]]:
        """A direction's condition: whether the nearest is this one."""
        return lambda elevation, azimuth, distance: self._index(elevation, azimuth) == number

    def _index(self, elevation: Tensor, azimuth: Tensor) -> Int[Tensor, "B"]:
        if self._last is None or self._last[0] is not elevation or self._last[1] is not azimuth:
            self._last = elevation, azimuth, self._words.index(azimuth, elevation)
        return self._last[2]


@host.register("latent-prior-prompt-processor")
class LatentPriorPromptProcessor(host.PromptProcessor):
    """The host's prompt processor with our text encoder."""

    @dataclass
    class Config(host.PromptProcessor.Config):
        # Checkpoint with the text encoder: pocket, a diffusers folder, a .safetensors file or a hub id; as
        # in the guidance.
        pretrained_model_name_or_path: str = "pocket"
        # Textual Inversion (`file` or `file=word`) and LoRA (`file` or `file:scale`) files or hub ids for it, as in
        # the guidance: ${system.guidance.textual_inversion}.
        textual_inversion: list[str] = field(default_factory=list)
        lora: list[str] = field(default_factory=list)
        # Keep embeddings on disk, in .threestudio_cache/text_embeddings of the working directory, if it can be written.
        use_cache: bool = True
        # For the score bridge: words added to the prompt of every view, for what is wrong with its results, such as ",
        # oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed".
        src_modifier: str | None = None
        # And for what is wanted, such as ", detailed high resolution, high quality, sharp".
        tgt_modifier: str = ""
        # threestudio's switch for a separate process. Prompts are always embedded in this process: true is rejected.
        spawn: bool = False

    cfg: Config
    directions: list[Any]  # the host's DirectionConfig, with the prompts of each
    prompts_vd: list[str]
    negative_prompts_vd: list[str]

    def configure(self) -> None:
        # before the base class runs and a cache folder is made
        if not (self.cfg.prompt or "").strip():
            raise OptionError.because('system.prompt_processor.prompt is empty; say what to make, e.g. "a red mug"')
        if self.cfg.spawn:
            raise OptionError.because(
                "system.prompt_processor.spawn is true; expected false: prompts are embedded in this process"
            )
        super().configure()

    def prepare_text_embeddings(self) -> None:
        """Embed all prompts at once, then release the text encoder."""
        with options_under("system.prompt_processor."):
            checkpoint = resolve(self.cfg.pretrained_model_name_or_path, self.cfg.textual_inversion, self.cfg.lora)
            words = CameraWords.of(checkpoint)
            if words is not None and not self.cfg.use_perp_neg:  # Perp-Neg interpolates between four views
                self._add_cameras(words)
            views = [*self.prompts_vd, *self.negative_prompts_vd]
            if self.cfg.src_modifier is not None:
                plain = [self.prompt, *self.prompts_vd]
                views += [prompt + self.cfg[key] for key in ("tgt_modifier", "src_modifier") for prompt in plain]
            prompts = list(dict.fromkeys([self.prompt, self.negative_prompt, *views]))
            encoder = TextEncoder(checkpoint, self.device, cache_dir=CACHE_FOLDER if self.cfg.use_cache else None)
            self._embeddings: dict[str, Tensor] = dict(zip(prompts, encoder(prompts), strict=True))
        encoder.unload()

    def _add_cameras(self, words: CameraWords) -> None:
        """A direction for each pair of a checkpoint's camera words, which then goes before the four views.

        Its prompt is that of the view that it is in, and the words.
        """
        cameras = list(words.cameras())
        azimuth, elevation = torch.tensor(cameras, dtype=torch.float32, device=self.device).T
        view = torch.zeros(len(cameras), dtype=torch.long)
        for k, direction in enumerate(self.directions):
            view[direction.condition(elevation, azimuth, torch.ones_like(azimuth)).cpu()] = k
        prompts = [f"{self.prompts_vd[k]}, {words.words(*c)}" for k, c in zip(view.tolist(), cameras, strict=True)]
        nearest = _Nearest(words)
        negatives = [self.negative_prompts_vd[k] for k in view.tolist()]
        self.directions = [
            *self.directions,
            *(
                replace(self.directions[k], name=words.words(*camera), condition=nearest.is_number(i))
                for i, (k, camera) in enumerate(zip(view.tolist(), cameras, strict=True))
            ),
        ]
        self.direction2idx = {direction.name: i for i, direction in enumerate(self.directions)}
        self.prompts_vd = [*self.prompts_vd, *prompts]
        self.negative_prompts_vd = [*self.negative_prompts_vd, *negatives]

    def load_from_cache(self, prompt: str) -> Float[Tensor, "L D"]:
        """A prompt's embedding on this object's device; the base class asks for every prompt once."""
        return self._embeddings[prompt].to(torch.device(self.device))

    def __call__(self) -> Any:
        """The host's output, and with a src_modifier beside it, as `bridge`, that of the score bridge."""
        output = super().__call__()
        if self.cfg.src_modifier is not None:
            given = {}
            for name, modifier in (("", self.cfg.tgt_modifier), ("uncond_", self.cfg.src_modifier)):
                given[f"{name}text_embeddings"] = self.load_from_cache(self.prompt + modifier)[None]
                views = [self.load_from_cache(prompt + modifier) for prompt in self.prompts_vd]
                given[f"{name}text_embeddings_vd"] = torch.stack(views)
            object.__setattr__(output, "bridge", replace(output, **given))
        return output


def bridge_of(prompt_utils: Any) -> Any:
    """The output whose prompts are the target's and, in place of the negative ones, the source's."""
    if not hasattr(prompt_utils, "bridge"):
        raise OptionError.because(
            "system.guidance.score is bridge, which needs prompts of its own: set system.prompt_processor.src_modifier, "
            "with system.prompt_processor_type=latent-prior-prompt-processor"
        )
    return prompt_utils.bridge
