"""`latent-prior-prompt-processor`: prompts of any checkpoint that the guidance takes, embedded in this process.

What the host's base class does (words of the directions, which camera gets which, perp-neg) stays the host's. Ours is
how text becomes embeddings: through `TextEncoder`, which knows `pocket`, single files and withdrawn hub ids, and keeps
its own cache under the contents of the text encoder instead of its name.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host, options_under
from latent_prior.models.checkpoint import resolve
from latent_prior.models.text_encoder import TextEncoder

CACHE_FOLDER = Path(".threestudio_cache", "text_embeddings")  # where threestudio's own lies


@host.register("latent-prior-prompt-processor")
class LatentPriorPromptProcessor(host.PromptProcessor):
    """The host's prompt processor over our text encoder."""

    @dataclass
    class Config(host.PromptProcessor.Config):
        # Checkpoint with the text encoder: pocket, a diffusers folder, a .safetensors file or a hub id. The guidance's.
        pretrained_model_name_or_path: str = "pocket"
        # Textual Inversion (`file` or `file=word`) and LoRA (`file` or `file:scale`) files or hub ids on top of it; the
        # guidance's: ${system.guidance.textual_inversion}.
        textual_inversion: list[str] = field(default_factory=list)
        lora: list[str] = field(default_factory=list)
        # Keep embeddings on disk, in .threestudio_cache/text_embeddings of the working directory, if it can be written.
        use_cache: bool = True
        # threestudio's switch for a process of its own. Here prompts are always embedded in this one: true is refused.
        spawn: bool = False

    cfg: Config

    def configure(self) -> None:
        # before anything else, so that neither the base class nor a cache folder comes first
        if not (self.cfg.prompt or "").strip():
            raise OptionError.because('system.prompt_processor.prompt is empty; say what to make, e.g. "a red mug"')
        if self.cfg.spawn:
            raise OptionError.because(
                "system.prompt_processor.spawn is true; expected false: prompts are embedded in this process"
            )
        super().configure()

    def prepare_text_embeddings(self) -> None:
        """Embed all prompts at once, then let go of the text encoder."""
        prompts = list(dict.fromkeys([self.prompt, self.negative_prompt, *self.prompts_vd, *self.negative_prompts_vd]))
        with options_under("system.prompt_processor."):
            encoder = TextEncoder(
                resolve(self.cfg.pretrained_model_name_or_path, self.cfg.textual_inversion, self.cfg.lora),
                self.device,
                cache_dir=CACHE_FOLDER if self.cfg.use_cache else None,
            )
            self._embeddings: dict[str, Tensor] = dict(zip(prompts, encoder(prompts), strict=True))
        encoder.unload()

    def load_from_cache(self, prompt: str) -> Float[Tensor, "L D"]:
        """A prompt's embedding on this object's device; the base class asks for every prompt once."""
        return self._embeddings[prompt].to(torch.device(self.device))
