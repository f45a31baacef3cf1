"""The pocket UNet: a text-conditioned latent diffusion model with v-prediction and Stable Diffusion's noise schedule.

v-prediction (Salimans and Ho 2022) gives an accurate noise residual at high noise, where a small model's epsilon
prediction is worst and where score distillation determines the shape.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from latent_prior.files import atomic_write
from latent_prior.files.torch_file import read_torch
from latent_prior.pocket.captions import VIEWS, Subject
from latent_prior.pocket.pictures import PictureSet
from latent_prior.pocket.renderer import render
from latent_prior.pocket.solids import KINDS
from latent_prior.pocket.training.autoencoder import encode_all
from latent_prior.pocket.training.clip import tokens_of
from latent_prior.pocket.training.loop import mixed_precision, train

STEPS, BATCH, PEAK_LR, SEED = 4600, 64, 1.2e-3, 2
EMA_DECAY = 0.998
NO_CAPTION = 0.1  # fraction of pictures trained without caption, for classifier-free guidance
NO_VIEW = 0.15  # fraction of captions without view words
# Few solids look different from behind, and the words determine the side only at high noise. With uniform sampling the
# UNet ignores front and back; so half of each batch is drawn from the cases where they matter.
TWO_SIDED_SHARE = 0.5
TWO_SIDED_NOISE = 300  # smallest timestep of that half


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
    """The trained modules: the UNet, and the token embeddings of the view words.

    The contrastive loss leaves "front" and "back" nearly synonymous, because most solids look the same from both sides.
    Here they are learned as in Textual Inversion (Gal et al. 2022, eq. 2): with the diffusion loss and a frozen text
    encoder.
    """

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel, tokenizer: CLIPTokenizer):
        super().__init__()
        self.unet = unet
        words = sorted({word for view in VIEWS for word in view.split()})
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


def caption_ids(tokenizer: CLIPTokenizer, pictures: PictureSet) -> tuple[Int[Tensor, "K L"], Tensor, Tensor]:
    """Token ids of all distinct captions (row 0: the empty one), and per picture the rows without and with view."""
    plain = [s.caption for s in pictures.subjects]
    viewed = [f"{c}, {v}" for c, v in zip(plain, pictures.views, strict=True)]
    unique = ["", *sorted(set(plain) | set(viewed))]
    row = {c: i for i, c in enumerate(unique)}
    ids = tokens_of(tokenizer, unique)
    return ids, torch.tensor([row[c] for c in plain]), torch.tensor([row[c] for c in viewed])


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
    device: torch.device,
    steps: int = STEPS,
    batch: int = BATCH,
    start: UNet2DConditionModel | None = None,
) -> UNet2DConditionModel:
    """Train (or resume, or load) the UNet in `folder`, from `start` if given; returns its exponential moving average. The
    view words learned with it are written into `text`, which is otherwise frozen."""
    torch.manual_seed(SEED)
    unet = build(text.config.hidden_size) if start is None else copy.deepcopy(start).requires_grad_(True)
    unet = unet.to(device, memory_format=torch.channels_last)  # a fifth faster on a CPU
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # torch's fused attention has a slow backward pass on a CPU
    text = text.to(device).eval().requires_grad_(False)
    model = _UNetAndWords(unet, text, tokenizer)
    ema = copy.deepcopy(model).requires_grad_(False)
    ddim = scheduler()
    ids, plain, viewed = caption_ids(tokenizer, pictures)
    latent_file = folder / "latents.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if not latent_file.exists():
        with atomic_write(latent_file) as beside:
            torch.save(encode_all(vae, pictures.images, device) * vae.config.scaling_factor, beside)
    latents = read_torch(latent_file)
    sided = two_sided(pictures)
    extra = int(batch * TWO_SIDED_SHARE) if len(sided) else 0

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        usual = batch - extra
        rows = torch.randint(len(pictures), (usual,), generator=g)
        chance = torch.rand(usual, generator=g)
        said = torch.where(chance < NO_VIEW, plain[rows], viewed[rows])
        said = torch.where(chance > 1 - NO_CAPTION, 0, said)
        # stratified over the batch: the loss varies more between timesteps than between pictures
        t = (torch.arange(usual) + torch.rand(usual, generator=g)) / usual * 1000
        if extra:
            more = sided[torch.randint(len(sided), (extra,), generator=g)]
            noisy = (torch.arange(extra) + torch.rand(extra, generator=g)) / extra * (1000 - TWO_SIDED_NOISE)
            rows, said = torch.cat([rows, more]), torch.cat([said, viewed[more]])
            t = torch.cat([t, TWO_SIDED_NOISE + noisy])
        t = t.long().to(device)
        v, noise = latents[rows].to(device), torch.randn(batch, *latents.shape[1:], generator=g).to(device)
        hidden = model.hidden(text, ids[said].to(device))
        with mixed_precision(device):
            out = unet(ddim.add_noise(v, noise, t), t, hidden).sample.float()
        return F.mse_loss(out, ddim.get_velocity(v, noise, t)), {}

    train(folder, model, loss, steps, PEAK_LR, SEED, weight_decay=0.01, ema=ema, ema_decay=EMA_DECAY, label="unet")
    with torch.no_grad():
        text.get_input_embeddings().weight.copy_(ema.embeddings(text))
    return ema.unet.to(memory_format=torch.contiguous_format).eval()
