"""`latent-prior-prompt-processor`: embeds prompts for any checkpoint that the guidance accepts, in this process.

The host's base class handles view-dependent prompts and perp-neg. This class only computes the embeddings, with
`TextEncoder`, which supports `pocket`, single files and withdrawn hub ids, and has its own cache, keyed by the contents
of the text encoder instead of its name.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host, options_under
from latent_prior.models.checkpoint import resolve
from latent_prior.models.text_encoder import TextEncoder

CACHE_FOLDER = Path(".threestudio_cache", "text_embeddings")  # threestudio's own


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
        # threestudio's switch for a separate process. Prompts are always embedded in this process: true is rejected.
        spawn: bool = False

    cfg: Config

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
