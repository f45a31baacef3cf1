"""The pocket flow prior's denoiser: a small transformer of Stable Diffusion 3's architecture that predicts velocities.

z_t = (1 - sigma) v + sigma eps on straight paths, and the velocity eps - v (Esser et al. 2024, "Scaling Rectified Flow
Transformers for High-Resolution Image Synthesis", arXiv 2403.03206, eq. 13). Two text encoders condition it, as there:
the pocket prior's own, which stays as it is, and a small one that is trained along. There is no T5; the zeros that stand
for its tokens are one token here, which counts as many (models/joint_attention.py).
"""

import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from latent_prior.models.families import SD3
from latent_prior.models.joint_attention import RepeatedLastToken
from latent_prior.pocket.pictures import PictureSet
from latent_prior.pocket.training.batches import Batches
from latent_prior.pocket.training.loop import mixed_precision, train

STEPS, BATCH, PEAK_LR, SEED = 16_000, 64, 1e-3, 3
EMA_DECAY = 0.999
WIDTH, LAYERS, HEADS = 160, 6, 5
SHIFT = 3.0  # of the noise levels towards noise, as in Stable Diffusion 3


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def build(first: CLIPTextModelWithProjection) -> "FlowModel":
    """The models at their start; `first` is the text encoder that stays as it is."""
    own = first.config
    second = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=own.vocab_size,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=own.max_position_embeddings,
            projection_dim=32,
            bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
        )
    )
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=own.hidden_size + second.config.hidden_size,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=own.projection_dim + second.config.projection_dim,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    # each block begins as the identity, and the velocity as zero (Peebles and Xie 2023, "Scalable Diffusion Models with
    # Transformers", adaLN-Zero)
    zero = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        zero += [block.norm1.linear, block.norm1_context.linear]
    for linear in zero:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return FlowModel(transformer, second)


class FlowModel(nn.Module):
    """What is trained: the transformer and the second text encoder."""

    def __init__(self, transformer: SD3Transformer2DModel, second: CLIPTextModelWithProjection):
        super().__init__()
        self.transformer, self.second = transformer, second

    def forward(
        self,
        z: Float[Tensor, "B C h w"],
        sigma: Float[Tensor, "B"],
        ids: Int[Tensor, "B L"],
        first: CLIPTextModelWithProjection,
    ) -> Float[Tensor, "B C h w"]:
        """The velocity at noise levels sigma, under captions' token ids."""
        outputs = [encoder(ids, output_hidden_states=True) for encoder in (first, self.second)]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        hidden = torch.cat([hidden, torch.zeros_like(hidden[:, :1])], dim=1)
        return self.transformer(z, hidden, pooled, sigma * 1000).sample


def train_flow(
    folder: Path,
    vae: AutoencoderKL,
    first: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    pictures: PictureSet,
    all_round: PictureSet,
    device: torch.device,
    steps: int = STEPS,
    batch: int = BATCH,
) -> FlowModel:
    """Train (or resume, or load) the models in `folder` on two sets of pictures; returns their exponential moving
    average. Timesteps are uniform over the scheduler's shifted levels."""
    torch.manual_seed(SEED)
    first = first.to(device).eval().requires_grad_(False)
    model = build(first).to(device)
    model.transformer.set_attn_processor(RepeatedLastToken(SD3.t5_tokens))
    ema = copy.deepcopy(model).requires_grad_(False)
    batches = Batches(folder, vae, tokenizer, pictures, all_round, device, batch)

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        drawn = batches.draw(g)
        v, eps = drawn.v.to(device), torch.randn(drawn.v.shape, generator=g).to(device)
        sigma = (SHIFT * drawn.t / (1 + (SHIFT - 1) * drawn.t)).to(device)
        at = sigma.view(-1, 1, 1, 1)
        with mixed_precision(device):
            velocity = model((1 - at) * v + at * eps, sigma, drawn.ids.to(device), first).float()
        each = (velocity - (eps - v)).square().mean(dim=(1, 2, 3))
        return each.mean(), drawn.means(each)

    train(folder, model, loss, steps, PEAK_LR, SEED, weight_decay=0.01, ema=ema, ema_decay=EMA_DECAY, label="flow")
    return ema.eval()
