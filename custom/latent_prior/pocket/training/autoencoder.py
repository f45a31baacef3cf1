"""The pocket autoencoder: 64x64 pictures to 16x16x4 latents and back (diffusers' AutoencoderKL)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import UInt8
from torch import Tensor

from latent_prior.metrics import psnr
from latent_prior.pocket.training.loop import mixed_precision, train

STEPS, BATCH, PEAK_LR, SEED = 4000, 16, 2e-3, 1
EDGE_WEIGHT = 0.5  # weight of the image gradient term, which replaces a perceptual loss
SQUARE_WEIGHT = 4.0  # weight of the squared error: with L1 alone, solids stay grey for a long time
KL_WEIGHT = 1e-6  # on the summed KL of a picture; keeps the latents near unit scale and smooth
LOG_VARIANCE = -6.0  # of the posterior at initialisation: noise of the usual unit variance would drown the colours


def build() -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )
    with torch.no_grad():
        vae.quant_conv.bias[4:] = LOG_VARIANCE
        vae.quant_conv.weight[4:] = 0
    return vae


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 and squared error of pictures, and L1 of their finite differences."""
    edges = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
    return F.l1_loss(y, x) + SQUARE_WEIGHT * F.mse_loss(y, x) + EDGE_WEIGHT * edges


def train_autoencoder(
    folder: Path, images: UInt8[Tensor, "N 3 H W"], device: torch.device, steps: int = STEPS, batch: int = BATCH
) -> AutoencoderKL:
    """Train (or resume, or load) the autoencoder in `folder`; scaling_factor is set to 1/std of the latents."""
    torch.manual_seed(SEED)
    vae = build().to(device)

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(images), (batch,), generator=g)
        x = images[rows].to(device).float() / 127.5 - 1
        noise = torch.randn(batch, 4, x.shape[-2] // 4, x.shape[-1] // 4, generator=g).to(device)
        with mixed_precision(device):
            posterior = vae.encode(x).latent_dist
            z = posterior.mean.float() + posterior.std.float() * noise
            y = vae.decode(z).sample.float()
        kl = posterior.kl().float().mean()
        figures = {"psnr": psnr((y + 1) / 2, (x + 1) / 2).mean().item(), "kl": kl.item(), "std": z.std().item()}
        return reconstruction_loss(y, x) + KL_WEIGHT * kl, figures

    train(folder, vae, loss, steps, PEAK_LR, SEED, label="autoencoder")
    latents = encode_all(vae, images[:4000], device)
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae.requires_grad_(False)


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: UInt8[Tensor, "N 3 H W"], device: torch.device) -> Tensor:
    """Posterior means of all pictures, unscaled, on the CPU."""
    chunks = [vae.encode(part.to(device).float() / 127.5 - 1).latent_dist.mean.cpu() for part in images.split(100)]
    return torch.cat(chunks)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, images: UInt8[Tensor, "N 3 H W"], device: torch.device) -> float:
    """Mean over pictures of the PSNR in dB of decode(encode(picture)), on a [0, 1] scale, clipped."""
    total = []
    for part in images.split(100):
        x = part.to(device).float() / 127.5 - 1
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        total.append(psnr((y + 1) / 2, (x + 1) / 2))
    return torch.cat(total).mean().item()
