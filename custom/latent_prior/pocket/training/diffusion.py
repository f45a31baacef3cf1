"""The pocket UNet: a text-conditioned latent diffusion model with v-prediction and Stable Diffusion's noise schedule.

v-prediction (Salimans and Ho 2022) gives an accurate noise residual at high noise, where a small model's epsilon
prediction is worst and where score distillation determines the shape.
"""

import copy
import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from latent_prior.pocket.captions import CAMERAS, VIEWS
from latent_prior.pocket.pictures import PictureSet
from latent_prior.pocket.training.batches import Batches
from latent_prior.pocket.training.clip import tokens_of
from latent_prior.pocket.training.loop import mixed_precision, train

STEPS, BATCH, PEAK_LR, SEED = 6600, 64, 1.2e-3, 2
FURTHER_LR = 6e-4  # of a UNet that is trained already
EMA_DECAY = 0.998
WORDS_LR = 8.0  # learning rate of the words, as a multiple of the UNet's


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


class _UNetAndWords(nn.Module):
    """The trained modules: the UNet, and the token embeddings of the words for views and cameras.

    The contrastive loss leaves "front" and "back" nearly synonymous, because most solids look the same from both sides.
    Here they are learned as in Textual Inversion (Gal et al. 2022, eq. 2): with the diffusion loss and a frozen text
    encoder.
    """

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel, tokenizer: CLIPTokenizer):
        super().__init__()
        self.unet = unet
        words = [*sorted({word for view in VIEWS for word in view.split()}), *CAMERAS.every]
        table = text.get_input_embeddings().weight
        self.register_buffer("rows", tokens_of(tokenizer, words)[:, 1].to(table.device), persistent=False)
        self.words = nn.Parameter(table.detach()[self.rows].clone())

    def embeddings(self, text: CLIPTextModel) -> Float[Tensor, "V D"]:
        return text.get_input_embeddings().weight.detach().index_copy(0, self.rows, self.words)

    def hidden(self, text: CLIPTextModel, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The frozen text encoder's hidden states, with the learned embeddings inserted."""
        table = text.get_input_embeddings().weight
        name = next(name for name, weight in text.named_parameters() if weight is table)
        return torch.func.functional_call(text, {name: self.embeddings(text)}, (ids,)).last_hidden_state


@torch.no_grad()
def with_camera_words(text: CLIPTextModel, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A copy of the text encoder that has an embedding for each of the tokenizer's words.

    The words of cameras, where they are new, start from those of the views, and differ by a little noise.
    """
    text = copy.deepcopy(text)
    known = text.config.vocab_size
    if known == len(tokenizer):
        return text
    table = text.resize_token_embeddings(len(tokenizer), mean_resizing=False).weight
    front, back, side, view = table[tokens_of(tokenizer, ["front", "back", "side", "view"])[:, 1]]
    turned = [math.radians(angle) for angle in CAMERAS.azimuth.values]
    around = [max(math.cos(a), 0) * front + max(-math.cos(a), 0) * back + abs(math.sin(a)) * side for a in turned]
    starts = torch.stack([*around, *[view] * len(CAMERAS.elevation.values)])
    noise = torch.randn(starts.shape, generator=torch.Generator().manual_seed(SEED))
    table[known:] = starts + table[:known].std() / 2 * noise
    return text


def train_diffusion(
    folder: Path,
    vae: AutoencoderKL,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    pictures: PictureSet,
    all_round: PictureSet,
    device: torch.device,
    steps: int = STEPS,
    batch: int = BATCH,
    start: UNet2DConditionModel | None = None,
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train (or resume, or load) the UNet in `folder`, from `start` if given, on two sets of pictures; returns its
    exponential moving average, and the text encoder with the words that were learned with it, which is otherwise as
    given."""
    torch.manual_seed(SEED)
    text = with_camera_words(text, tokenizer).to(device).eval().requires_grad_(False)
    unet = build(text.config.hidden_size) if start is None else copy.deepcopy(start).requires_grad_(True)
    unet = unet.to(device, memory_format=torch.channels_last)  # a fifth faster on a CPU
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # torch's fused attention has a slow backward pass on a CPU
    model = _UNetAndWords(unet, text, tokenizer)
    ema = copy.deepcopy(model).requires_grad_(False)
    ddim = scheduler()
    batches = Batches(folder, vae, tokenizer, pictures, all_round, device, batch)

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        drawn = batches.draw(g)
        t = (drawn.t * 1000).long().to(device)
        v, noise = drawn.v.to(device), torch.randn(drawn.v.shape, generator=g).to(device)
        hidden = model.hidden(text, drawn.ids.to(device))
        with mixed_precision(device):
            out = unet(ddim.add_noise(v, noise, t), t, hidden).sample.float()
        each = (out - ddim.get_velocity(v, noise, t)).square().mean(dim=(1, 2, 3))
        return each.mean(), drawn.means(each)

    options = {"ema": ema, "ema_decay": EMA_DECAY, "faster": (model.words, WORDS_LR), "label": "unet"}
    train(folder, model, loss, steps, PEAK_LR if start is None else FURTHER_LR, SEED, weight_decay=0.01, **options)
    with torch.no_grad():
        text.get_input_embeddings().weight.copy_(ema.embeddings(text))
    return ema.unet.to(memory_format=torch.contiguous_format).eval(), text
