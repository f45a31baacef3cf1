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

from latent_prior.files import atomic_write
from latent_prior.files.torch_file import read_torch
from latent_prior.pocket.captions import CAMERAS, VIEWS, Subject
from latent_prior.pocket.pictures import PictureSet, joined
from latent_prior.pocket.renderer import render
from latent_prior.pocket.solids import KINDS
from latent_prior.pocket.training.autoencoder import encode_all
from latent_prior.pocket.training.clip import tokens_of
from latent_prior.pocket.training.loop import mixed_precision, train

STEPS, BATCH, PEAK_LR, SEED = 6600, 64, 1.2e-3, 2
FURTHER_LR = 6e-4  # of a UNet that is trained already
EMA_DECAY = 0.998
WORDS_LR = 8.0  # learning rate of the words, as a multiple of the UNet's
# Of a batch, this share are the prior's pictures, of which so many are without caption (for classifier-free guidance),
# without view words, and without camera words.
USUAL_SHARE = 3 / 8
NO_CAPTION, NO_VIEW, NO_CAMERA = 0.12, 0.12, 0.2
# As many are pictures from all round, which always have camera words: from most of these cameras the prior's own
# pictures, and so samples for plain captions, never are. The rest are of either, with camera words as well, and at
# timesteps from this one on, where only the words determine the camera.
ALL_ROUND_SHARE = 3 / 8
NOISY = 300
# Few solids look different from behind, and with uniform sampling the UNet ignores front and back: so many of the rest
# are fronts and backs that look different.
TWO_SIDED_SHARE = 0.5


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


def caption_ids(tokenizer: CLIPTokenizer, pictures: PictureSet) -> tuple[Int[Tensor, "K L"], Int[Tensor, "N 3"]]:
    """Token ids of all distinct captions (row 0: the empty one), and per picture the rows of its caption alone, with its
    view, and with view and camera."""
    plain = [s.caption for s in pictures.subjects]
    viewed = [f"{c}, {v}" for c, v in zip(plain, pictures.views, strict=True)]
    placed = [f"{c}, {w}" for c, w in zip(viewed, pictures.cameras, strict=True)]
    unique = ["", *sorted({*plain, *viewed, *placed})]
    row = {c: i for i, c in enumerate(unique)}
    said = [[row[c] for c in three] for three in zip(plain, viewed, placed, strict=True)]
    return tokens_of(tokenizer, unique), torch.tensor(said)


def two_sided(pictures: PictureSet, least: float = 0.01) -> Int[Tensor, "M"]:
    """Indices of pictures from the front or back of a solid that looks different from behind.

    The criterion is a mean difference of more than `least` between pixels in [0, 1] of red renders on white.
    """
    azimuth = torch.tensor([0.0, 30.0, -30.0])
    around, level = torch.cat([azimuth, azimuth + 180]), torch.full((6,), 20.0)

    def differs(kind: str) -> bool:
        rgb = render([Subject(kind, "red")] * 6, level, around, torch.ones(6, 3), size=32).rgb
        return (rgb[:3] - rgb[3:]).abs().mean().item() > least

    kinds = {kind for kind in KINDS if differs(kind)}
    said = zip(pictures.subjects, pictures.views, strict=True)
    return torch.tensor([i for i, (s, v) in enumerate(said) if s.kind in kinds and v in ("front view", "back view")])


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
    every = joined(pictures, all_round)
    ids, rows_said = caption_ids(tokenizer, every)
    plain, viewed, placed = rows_said.T
    latent_file = folder / "latents.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if not latent_file.exists():
        with atomic_write(latent_file) as beside:
            torch.save(encode_all(vae, every.images, device) * vae.config.scaling_factor, beside)
    latents = read_torch(latent_file)
    sided = two_sided(every)
    usual, around = int(batch * USUAL_SHARE), int(batch * ALL_ROUND_SHARE)
    known = int((batch - usual - around) * TWO_SIDED_SHARE) if len(sided) else 0
    rest = batch - usual - around - known

    def stratified(g: torch.Generator, count: int, least: int = 0) -> Float[Tensor, "N"]:
        """Timesteps spread over the batch: the loss varies more between timesteps than between pictures."""
        return least + (torch.arange(count) + torch.rand(count, generator=g)) / max(count, 1) * (1000 - least)

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        first = torch.randint(len(pictures), (usual,), generator=g)
        chance = torch.rand(usual, generator=g)
        said = torch.where(chance < NO_CAMERA + NO_VIEW, viewed[first], placed[first])
        said = torch.where(chance < NO_VIEW, plain[first], said)
        said = torch.where(chance > 1 - NO_CAPTION, 0, said)
        more = len(pictures) + torch.randint(len(all_round), (around,), generator=g)
        noisy = torch.randint(len(every), (rest,), generator=g)
        if known:
            noisy = torch.cat([noisy, sided[torch.randint(len(sided), (known,), generator=g)]])
        rows = torch.cat([first, more, noisy])
        said = torch.cat([said, placed[more], placed[noisy]])
        t = torch.cat([stratified(g, usual), stratified(g, around), stratified(g, len(noisy), NOISY)]).long().to(device)
        v, noise = latents[rows].to(device), torch.randn(batch, *latents.shape[1:], generator=g).to(device)
        hidden = model.hidden(text, ids[said].to(device))
        with mixed_precision(device):
            out = unet(ddim.add_noise(v, noise, t), t, hidden).sample.float()
        each = (out - ddim.get_velocity(v, noise, t)).square().mean(dim=(1, 2, 3))
        parts = each.detach().split([usual, around, len(noisy)])
        return each.mean(), dict(zip(("usual", "all_round", "noisy"), (p.mean().item() for p in parts), strict=True))

    options = {"ema": ema, "ema_decay": EMA_DECAY, "faster": (model.words, WORDS_LR), "label": "unet"}
    train(folder, model, loss, steps, PEAK_LR if start is None else FURTHER_LR, SEED, weight_decay=0.01, **options)
    with torch.no_grad():
        text.get_input_embeddings().weight.copy_(ema.embeddings(text))
    return ema.unet.to(memory_format=torch.contiguous_format).eval(), text
