"""The pocket UNet: a text-conditioned latent diffusion model of v-prediction under Stable Diffusion's noise schedule.

v-prediction (Salimans and Ho 2022) gives an accurate noise residual at high noise, where a small model's epsilon would
be worst and where score distillation decides the shape.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from latent_prior.pocket.clip import tokens_of
from latent_prior.pocket.pictures import PictureSet
from latent_prior.pocket.training.autoencoder import encode_all
from latent_prior.pocket.training.loop import mixed_precision, train

STEPS, BATCH, PEAK_LR, SEED = 4600, 64, 1.2e-3, 2
EMA_DECAY = 0.998
NO_CAPTION = 0.1  # share of pictures trained without caption, for classifier-free guidance
NO_VIEW = 0.15  # share of captions without view words


def build(text_width: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 160),
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def captions_table(
    text: CLIPTextModel, tokenizer: CLIPTokenizer, pictures: PictureSet, device: torch.device
) -> tuple[Float[Tensor, "K L D"], Tensor, Tensor]:
    """Hidden states of every distinct caption (row 0: the empty one), and per picture the rows without and with view."""
    plain = [s.caption for s in pictures.subjects]
    viewed = [f"{c}, {v}" for c, v in zip(plain, pictures.views, strict=True)]
    unique = ["", *sorted(set(plain) | set(viewed))]
    row = {c: i for i, c in enumerate(unique)}
    with torch.no_grad():
        hidden = [text(ids.to(device)).last_hidden_state for ids in tokens_of(tokenizer, unique).split(200)]
    return torch.cat(hidden), torch.tensor([row[c] for c in plain]), torch.tensor([row[c] for c in viewed])


def train_diffusion(
    folder: Path,
    vae: AutoencoderKL,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    pictures: PictureSet,
    device: torch.device,
    steps: int = STEPS,
    batch: int = BATCH,
    start: UNet2DConditionModel | None = None,
) -> UNet2DConditionModel:
    """Train (or go on, or load) the UNet in `folder`, from `start` where one is given; returns its exponential moving
    average."""
    torch.manual_seed(SEED)
    unet = build(text.config.hidden_size) if start is None else copy.deepcopy(start).requires_grad_(True)
    unet = unet.to(device)
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # torch's fused attention is slow backwards on a CPU
    ema = copy.deepcopy(unet).requires_grad_(False)
    ddim = scheduler()
    hidden, plain, viewed = captions_table(text, tokenizer, pictures, device)
    latent_file = folder / "latents.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if not latent_file.exists():
        torch.save(encode_all(vae, pictures.images, device) * vae.config.scaling_factor, latent_file)
    latents = torch.load(latent_file, weights_only=True)

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(pictures), (batch,), generator=g)
        chance = torch.rand(batch, generator=g)
        said = torch.where(chance < NO_VIEW, plain[rows], viewed[rows])
        said = torch.where(chance > 1 - NO_CAPTION, 0, said)
        v, noise = latents[rows].to(device), torch.randn(batch, *latents.shape[1:], generator=g).to(device)
        # stratified over the batch: the loss differs more between timesteps than between pictures
        t = ((torch.arange(batch) + torch.rand(batch, generator=g)) / batch * 1000).long().to(device)
        with mixed_precision(device):
            out = unet(ddim.add_noise(v, noise, t), t, hidden[said]).sample.float()
        return F.mse_loss(out, ddim.get_velocity(v, noise, t)), {}

    train(folder, unet, loss, steps, PEAK_LR, SEED, weight_decay=0.01, ema=ema, ema_decay=EMA_DECAY, label="unet")
    return ema.eval()
