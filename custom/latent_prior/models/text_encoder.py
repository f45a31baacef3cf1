"""Embeds prompts as the hidden states that condition a latent diffusion model, with a cache of two levels.

Embeddings are kept in memory and, if a cache folder is given, on disk under a hash of the text tower's files, the
precision and the prompt, so another checkpoint under the same path is never mistaken for this one. The tower is loaded
at the first prompt that is in neither cache; `unload` releases it.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import atomic_write
from latent_prior.files.refusals import NotWritten
from latent_prior.files.tensors import read_tensors
from latent_prior.models.checkpoint import Checkpoint
from latent_prior.models.text_towers import TextTowers, empty_is_zero
from latent_prior.models.weights import WEIGHT_NAMES, weight_files
from latent_prior.prior import require_finite

logger = logging.getLogger(__name__)


class TextEncoder:
    """Embeds prompts with a checkpoint's text tower.

    cache_dir: folder for embeddings on disk; None keeps them in memory only.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        cache_dir: str | Path | None = None,
    ):
        self.checkpoint = checkpoint
        self.device = device
        self.dtype = dtype
        self.cache_dir = None if cache_dir is None else Path(os.path.expanduser(cache_dir))
        self._memory: dict[str, Tensor] = {}
        self._towers: TextTowers | None = None

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "B L D"]:
        """Embeddings of prompts, float32, on the device. Raises Diverged where they are not finite."""
        if isinstance(prompts, str) or not len(prompts):
            raise ValueError(f"prompts: got {prompts!r}; expected a list of at least one string")
        missing = [prompt for prompt in dict.fromkeys(prompts) if not self._recall(prompt)]
        if missing:
            if self._towers is None:
                self._towers = TextTowers(self.checkpoint, self.device, self.dtype)
            embeddings = self._towers(missing)
            half = self.dtype != torch.float32
            require_finite({"the prompts' embeddings": embeddings}, "use float32" if half else "use another checkpoint")
            for prompt, embedding in zip(missing, embeddings, strict=True):
                self._memory[prompt] = embedding
                self._store(prompt, embedding)
        return torch.stack([self._memory[prompt] for prompt in prompts])

    def unload(self) -> None:
        """Release the text towers; they are loaded again for the next new prompt."""
        self._towers = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the contents of text towers, tokenizers and adapters."""
        # increase the number when the way prompts are embedded changes
        digest = hashlib.sha256(f"2 {self.dtype} {empty_is_zero(self.checkpoint)}".encode())
        for part in self.checkpoint.towers:
            tower = self.checkpoint.part(part)
            tokenizer = self.checkpoint.part(part.replace("text_encoder", "tokenizer"))
            files = [tower / "config.json", *sorted(file for file in tokenizer.iterdir() if file.is_file())]
            if prefixes := self.checkpoint.in_file(part):
                for name, tensor in sorted(self.checkpoint.single_file_tensors(*prefixes).items()):
                    digest.update(name.encode())
                    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            else:
                files += weight_files(tower, WEIGHT_NAMES[part])
            for file in files:
                digest.update(file.name.encode())
                digest.update(file.read_bytes())
        adapters = self.checkpoint.adapters
        for adapter in (*adapters.textual_inversion, *adapters.lora):
            digest.update(f"{adapter.field}\0{adapter.entry}\0{adapter.path.name}\0".encode())
            digest.update(adapter.path.read_bytes())
        return digest.hexdigest()

    def _cached(self, prompt: str) -> Path | None:
        """The prompt's file in the cache; None without one."""
        if self.cache_dir is None:
            return None
        key = hashlib.sha256(f"{self.fingerprint}\0{prompt}".encode()).hexdigest()
        return self.cache_dir / f"{key}.safetensors"

    def _recall(self, prompt: str) -> bool:
        """True if the prompt's embedding is in memory, after loading it from disk if needed."""
        if prompt in self._memory:
            return True
        file = self._cached(prompt)
        if file is None or not os.path.isfile(file):  # Path.is_file raises without permission
            return False
        try:
            self._memory[prompt] = read_tensors(Path(file))["embedding"].to(self.device)
        except (OptionError, OSError, KeyError) as error:
            logger.warning("cached embedding %s is unreadable and will be recomputed: %s", file, error)
            return False
        return True

    def _store(self, prompt: str, embedding: Tensor) -> None:
        file = self._cached(prompt)
        if file is None:
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as beside:
                save_file({"embedding": embedding.cpu().contiguous()}, beside)
        except (NotWritten, OSError, SafetensorError) as error:
            logger.warning("prompt embeddings are not cached on disk: cannot write to %s: %s", file.parent, error)
            self.cache_dir = None
