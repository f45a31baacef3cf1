"""Embeds prompts as the hidden states that condition a latent diffusion model, with a cache of two levels.

An embedding is the text tower's last hidden state, as in Stable Diffusion's pipelines: L rows of width D, where L is
the tokenizer's `model_max_length`. Longer prompts are cut, with a warning, but keep the words of their view (", back
view") if they end in them. Stable Diffusion XL has two towers: their second-to-last hidden states are concatenated
along D, and a pooled embedding is packed below them as additional rows (packing.py).

Embeddings are kept in memory and, if a cache folder is given, on disk under a hash of the text tower's files, the
precision and the prompt, so another checkpoint under the same path is never mistaken for this one. The tower is loaded
at the first prompt that is in neither cache; `unload` releases it.
"""

import hashlib
import logging
import os
import re
from bisect import bisect_right
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
from latent_prior.models.adapters import with_all_vectors
from latent_prior.models.checkpoint import Checkpoint
from latent_prior.models.loading import load_text_encoder, single_file_prefixes, text_towers
from latent_prior.models.packing import packed
from latent_prior.models.weights import WEIGHT_NAMES, weight_files
from latent_prior.prior import require_finite

logger = logging.getLogger(__name__)

# How the hosts' prompt processors end a view-dependent prompt.
VIEW = re.compile(r", (?:side|front|back|overhead) view(?:, <\S+> <\S+>)?$")


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
        self._towers: list[tuple] = []

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "B L D"]:
        """Embeddings of prompts, float32, on the device. Raises Diverged where they are not finite."""
        if isinstance(prompts, str) or not len(prompts):
            raise ValueError(f"prompts: got {prompts!r}; expected a list of at least one string")
        missing = [prompt for prompt in dict.fromkeys(prompts) if not self._recall(prompt)]
        if missing:
            embeddings = self._embed(missing)
            half = self.dtype == torch.float16
            require_finite({"the prompts' embeddings": embeddings}, "use float32" if half else "use another checkpoint")
            for prompt, embedding in zip(missing, embeddings, strict=True):
                self._memory[prompt] = embedding
                self._store(prompt, embedding)
        return torch.stack([self._memory[prompt] for prompt in prompts])

    def unload(self) -> None:
        """Release the text towers; they are loaded again for the next new prompt."""
        self._towers = []

    @cached_property
    def _empty_is_zero(self) -> bool:
        """Whether the empty prompt is embedded as zeros: in Stable Diffusion XL, unless the checkpoint disables it."""
        index = self.checkpoint.beside_parts("model_index.json") if self.checkpoint.is_xl else {}
        return self.checkpoint.is_xl and index.get("force_zeros_for_empty_prompt", True)  # diffusers' default

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the contents of text towers, tokenizers and adapters."""
        # increase the number when the way prompts are embedded changes
        digest = hashlib.sha256(f"2 {self.dtype} {self._empty_is_zero}".encode())
        for part in text_towers(self.checkpoint):
            tower = self.checkpoint.part(part)
            tokenizer = self.checkpoint.part(part.replace("text_encoder", "tokenizer"))
            files = [tower / "config.json", *sorted(file for file in tokenizer.iterdir() if file.is_file())]
            if self.checkpoint.kind == "single_file":
                for name, tensor in sorted(self.checkpoint.single_file_tensors(*single_file_prefixes(part)).items()):
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

    def _embed(self, prompts: list[str]) -> Tensor:
        if not self._towers:
            loaded = [load_text_encoder(self.checkpoint, self.dtype, part) for part in text_towers(self.checkpoint)]
            self._towers = [(tokenizer, model.to(self.device)) for tokenizer, model in loaded]
        xl = self.checkpoint.is_xl
        outputs = [
            model(self._tokens(tokenizer, model, prompts), output_hidden_states=xl) for tokenizer, model in self._towers
        ]
        if not xl:
            return outputs[0].last_hidden_state.float()
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        embeddings = packed(hidden.float(), outputs[1].text_embeds.float())
        if self._empty_is_zero:
            embeddings[[not prompt.strip() for prompt in prompts]] = 0
        return embeddings

    def _tokens(self, tokenizer, model, prompts: list[str]) -> Tensor:
        words = self.checkpoint.adapters.textual_inversion
        prompts = [with_all_vectors(prompt, tokenizer) if words else prompt for prompt in prompts]
        # a tokenizer without a stated limit reports an astronomical one
        length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        said = set()  # a prompt has hundreds of views where a checkpoint knows cameras
        for row, prompt in enumerate(prompts):
            count = _count(tokenizer, prompt)
            if count > length:
                prompts[row] = _cut(prompt, tokenizer, length)
                if tokenizer is self._towers[0][0] and prompt[:100] not in said:
                    said.add(prompt[:100])
                    lost = count - min(_count(tokenizer, prompts[row]), length)
                    where = "" if prompts[row] == prompt else " before the words of its view"
                    logger.warning("prompt cut by %d of its %d tokens%s: %r", lost, count, where, prompt[:100])
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return tokens.input_ids.to(self.device)

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


def _count(tokenizer, prompt: str) -> int:
    return len(tokenizer(prompt, verbose=False).input_ids)


def _cut(prompt: str, tokenizer, length: int) -> str:
    """A prompt that is too long, cut to whole words before the words of its view.

    Without such words it is returned unchanged, and the tokenizer cuts its end.
    """
    view = VIEW.search(prompt)
    if view is None:
        return prompt
    body = prompt[: view.start()]
    fits = bisect_right(range(len(body) + 1), length, key=lambda end: _count(tokenizer, body[:end] + view[0]))
    # one more letter, so that a word that just fits counts as whole; a script without spaces is cut anywhere
    return (body[:fits].rpartition(" ")[0].rstrip() or body[: max(fits - 1, 0)]) + view[0]
