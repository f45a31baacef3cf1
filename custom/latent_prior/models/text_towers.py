"""The text encoders of a checkpoint, and how its family joins what they say of a prompt into one condition.

    Stable Diffusion 1, 2  the last hidden state of a CLIP
    Stable Diffusion XL    the second-to-last hidden states of two CLIPs, side by side; pooled: that of the second
    Stable Diffusion 3     the same of two CLIPs, padded to the transformer's width, and below them the T5's last hidden
                           state, or one row of zeros where there is no T5 (joint_attention.py); pooled: both CLIPs'
    Flux                   the T5's last hidden state; pooled: that of a CLIP

As in diffusers' pipelines. A condition has L rows of width D; pooled embeddings are packed below them as additional rows
(packing.py). A tower reads as many tokens as its tokenizer's `model_max_length`, or those of the family for a T5. Longer
prompts are cut, with a warning, but keep the words of their view (", back view") if they end in them.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior.models.adapters import with_all_vectors
from latent_prior.models.checkpoint import Checkpoint
from latent_prior.models.families import FLUX, SD, SD3, XL
from latent_prior.models.loading import load_text_encoder
from latent_prior.models.packing import packed

logger = logging.getLogger(__name__)

# How the hosts' prompt processors end a view-dependent prompt.
VIEW = re.compile(r", (?:side|front|back|overhead) view(?:, <\S+> <\S+>)?$")


def empty_is_zero(checkpoint: Checkpoint) -> bool:
    """Whether the empty prompt is embedded as zeros: in Stable Diffusion XL, unless the checkpoint disables it."""
    if checkpoint.family is not XL:
        return False
    return bool(
        checkpoint.beside_parts("model_index.json").get("force_zeros_for_empty_prompt", True)
    )  # as in diffusers


@dataclass(frozen=True, eq=False)
class _Tower:
    tokenizer: Any
    model: Any
    length: int  # tokens


class TextTowers:
    """The loaded text encoders of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype):
        self.checkpoint, self.device, self.family = checkpoint, device, checkpoint.family
        self.towers: dict[str, _Tower] = {}
        for part in checkpoint.towers:
            tokenizer, model = load_text_encoder(checkpoint, dtype, part)
            length = self.family.t5_tokens
            if part != self.family.t5:
                # a tokenizer without a stated limit reports an astronomical one
                length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
            self.towers[part] = _Tower(tokenizer, model.to(device), length)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "B R D"]:
        """The conditions of prompts, float32."""
        outputs = {part: self._output(tower, list(prompts)) for part, tower in self.towers.items()}
        if self.family is SD:
            return outputs["text_encoder"].last_hidden_state.float()
        if self.family is FLUX:
            read, pooled = outputs["text_encoder_2"].last_hidden_state, outputs["text_encoder"].pooler_output
            return packed(read.float(), pooled.float())
        clips = [outputs["text_encoder"], outputs["text_encoder_2"]]
        hidden = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1).float()
        if self.family is XL:
            embeddings = packed(hidden, clips[1].text_embeds.float())
            if empty_is_zero(self.checkpoint):
                embeddings[[not prompt.strip() for prompt in prompts]] = 0
            return embeddings
        width = self.checkpoint.config("transformer")["joint_attention_dim"]
        hidden = F.pad(hidden, (0, width - hidden.shape[-1]))
        t5 = outputs.get("text_encoder_3")
        read = torch.zeros_like(hidden[:, :1]) if t5 is None else t5.last_hidden_state.float()
        return packed(torch.cat([hidden, read], dim=1), torch.cat([clip.text_embeds for clip in clips], dim=-1).float())

    def _output(self, tower: _Tower, prompts: list[str]) -> Any:
        return tower.model(self._tokens(tower, prompts), output_hidden_states=self.family in (XL, SD3))

    def _tokens(self, tower: _Tower, prompts: list[str]) -> Int[Tensor, "B L"]:
        tokenizer, length = tower.tokenizer, tower.length
        if self.checkpoint.adapters.textual_inversion:
            prompts = [with_all_vectors(prompt, tokenizer) for prompt in prompts]
        said = set()  # a prompt has hundreds of views where a checkpoint knows cameras
        # what one tower does not read, another one may
        warns = tower is max(self.towers.values(), key=lambda other: other.length)
        for row, prompt in enumerate(prompts):
            count = _count(tokenizer, prompt)
            if count > length:
                prompts[row] = _cut(prompt, tokenizer, length)
                if warns and prompt[:100] not in said:
                    said.add(prompt[:100])
                    lost = count - min(_count(tokenizer, prompts[row]), length)
                    where = "" if prompts[row] == prompt else " before the words of its view"
                    logger.warning("prompt cut by %d of its %d tokens%s: %r", lost, count, where, prompt[:100])
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return tokens.input_ids.to(self.device)


def _count(tokenizer: Any, prompt: str) -> int:
    return len(tokenizer(prompt, verbose=False).input_ids)


def _cut(prompt: str, tokenizer: Any, length: int) -> str:
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
