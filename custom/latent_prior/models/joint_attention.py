"""Attention of Stable Diffusion 3's transformer in which the last token of the text stands for many equal ones.

A checkpoint without its T5 has zeros in place of the T5's 256 tokens. Tokens of the text have no position, so tokens
that are equal stay so through all blocks, and n of them weigh in a softmax as much as one with log n added to its
logit. The result is the same, for a third of the time at small sizes.
"""

import math

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor


class RepeatedLastToken:
    """diffusers' JointAttnProcessor2_0 for a text whose last token stands for `copies` of it."""

    def __init__(self, copies: int):
        self.copies = copies

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "B N D"],
        encoder_hidden_states: Float[Tensor, "B L D"] | None = None,
        **_,
    ) -> Float[Tensor, "B N D"] | tuple[Float[Tensor, "B N D"], Float[Tensor, "B L D"]]:
        """Attention among the picture's tokens, or among these and the text's."""

        def heads(projected: Tensor, norm: torch.nn.Module | None = None) -> Tensor:
            split = projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return split if norm is None else norm(split)

        query, key = heads(attn.to_q(hidden_states), attn.norm_q), heads(attn.to_k(hidden_states), attn.norm_k)
        value, bias, text = heads(attn.to_v(hidden_states)), None, encoder_hidden_states
        if text is not None:
            query = torch.cat([query, heads(attn.add_q_proj(text), attn.norm_added_q)], dim=2)
            key = torch.cat([key, heads(attn.add_k_proj(text), attn.norm_added_k)], dim=2)
            value = torch.cat([value, heads(attn.add_v_proj(text))], dim=2)
            bias = query.new_zeros(key.shape[2])
            bias[-1] = math.log(self.copies)
            bias = bias.expand(1, 1, query.shape[2], -1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)
        picture = attended[:, : hidden_states.shape[1]]
        picture = attn.to_out[1](attn.to_out[0](picture))
        if text is None:
            return picture
        words = attended[:, hidden_states.shape[1] :]
        return picture, words if attn.context_pre_only else attn.to_add_out(words)
