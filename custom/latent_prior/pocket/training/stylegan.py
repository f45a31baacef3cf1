"""Training of the pocket StyleGAN by regression: each z has a true picture, so the generator is fitted to the renderer.

Two stages. First the mapping network alone is trained so that w encodes the scene linearly, as the quantities on which
the picture depends smoothly (`scene_features`). With the picture loss alone, it learns the pose last, and handles stay
blurred. Then the whole generator is fitted to pictures. `adversarial.py` finishes it as a GAN. Both stages are
resumable.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from latent_prior.files import atomic_write
from latent_prior.metrics import psnr
from latent_prior.pocket.mug_scenes import scenes, truth
from latent_prior.pocket.training import loop
from latent_prior.stylegan2.generator import FullyConnected, Mapping, StyleGAN2, StyleGAN2Config

# NVIDIA's rule for channels with base 2048 and at most 128: 1.1 million parameters, 4.6 MB
SHAPE = StyleGAN2Config.of_size(64, z_dim=128, w_dim=128, mapping_layers=4, base=2048, most=128)
PICTURES, PICTURES_SEED, SHARD = 14_000, 500_000, 500
MAPPING_STEPS, MAPPING_LR, MAPPING_BATCH = 4000, 3.0, 256
STEPS, LR, BATCH = 6000, 0.05, 8
AZIMUTH_HARMONICS, HUE_HARMONICS = 4, 2
# Standard deviation of w after the first stage. Unscaled it is 3, and the styles then change sign between scenes: after
# 800 steps of the second stage that gives 24.3 dB on unseen z, 1 gives 26.7, 0.45 gives 28.6.
W_SPREAD = 0.45
EDGES, SMOOTH = 1.5, 0.01  # of regression_loss


def scene_features(z: Float[Tensor, "B Z"]) -> Float[Tensor, "B F"]:
    """What w should encode linearly: harmonics of azimuth and hue, elevation, background, paint; of order one."""
    s = scenes(z)
    angle = torch.deg2rad(s.azimuth)
    hue = torch.atan2(z[:, 3], z[:, 4])
    waves = [f(k * angle) for k in range(1, AZIMUTH_HARMONICS + 1) for f in (torch.sin, torch.cos)]
    waves += [f(k * hue) for k in range(1, HUE_HARMONICS + 1) for f in (torch.sin, torch.cos)]
    levels = [s.elevation / 20 - 1, s.background * 4 - 2.4, *(s.paint * 4 - 2).unbind(1)]
    return torch.stack(waves + levels, 1)


class MappingWithReading(nn.Module):
    """A mapping network with a linear readout of its w."""

    def __init__(self, mapping: Mapping, features: int):
        super().__init__()
        self.mapping = mapping
        self.reading = FullyConnected(mapping.w_avg.numel(), features, lr_multiplier=0.01)
        nn.init.zeros_(self.reading.weight)

    def forward(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B F"]:
        return self.reading(self.mapping(z))


def train_mapping(folder: Path, mapping: Mapping, steps: int = MAPPING_STEPS) -> None:
    """The first stage: fit w to `scene_features` of fresh z, then scale w to standard deviation W_SPREAD."""
    z_dim = mapping.fc0.weight.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = MappingWithReading(mapping, scene_features(torch.randn(1, z_dim)).shape[1])

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        z = torch.randn(MAPPING_BATCH, z_dim, generator=g)
        return F.mse_loss(model(z), scene_features(z)), {}

    loop.train(folder, model, loss, steps, MAPPING_LR, seed=10, label="mapping network")
    with torch.no_grad():  # leaky ReLU is homogeneous: scaling the last layer scales w
        scale = W_SPREAD / mapping(codes(PICTURES_SEED, 1000, z_dim)).std()
        last = getattr(mapping, f"fc{mapping.layers - 1}")
        last.weight.mul_(scale)
        last.bias.mul_(scale)


def codes(seed: int, count: int, z_dim: int = SHAPE.z_dim) -> Float[Tensor, "N Z"]:
    """The z of a shard of pictures."""
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(seed))


def true_pictures(folder: Path, count: int, seed: int = PICTURES_SEED) -> tuple[Tensor, UInt8[Tensor, "N 3 H W"]]:
    """z and their true pictures, at least `count`, in whole shards; shards missing from `folder` are rendered."""
    folder.mkdir(parents=True, exist_ok=True)
    zs, images = [], []
    for k in tqdm(range((count + SHARD - 1) // SHARD), desc="pictures: mugs", unit="shard", disable=None):
        path = folder / f"mugs-{seed + k:09d}.safetensors"
        zs.append(codes(seed + k, SHARD))
        if not path.exists():
            rendered = (truth(zs[-1], size=SHAPE.resolution) * 255).round().byte()
            with atomic_write(path) as beside:
                save_file({"images": rendered}, beside)
        images.append(load_file(path)["images"])
    return torch.cat(zs), torch.cat(images)


def regression_loss(made: Float[Tensor, "B 3 H W"], true: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """Mean of sqrt(e^2 + SMOOTH^2) over the error e (Charbonnier et al. 1994), plus EDGES times that of its differences.

    The differences to the right and lower neighbours are weighted more than the error itself; otherwise a mug's inside
    and a handle in front, which differ only in shade, are learned last.
    """

    def size(error: Tensor) -> Tensor:
        return (error.square() + SMOOTH**2).sqrt().mean()

    error = made - true
    return size(error) + EDGES * (size(error.diff(dim=-1)) + size(error.diff(dim=-2)))


def fit(
    folder: Path,
    generator: StyleGAN2,
    zs: Float[Tensor, "N Z"],
    images: UInt8[Tensor, "N 3 H W"],
    device: torch.device,
    steps: int = STEPS,
    batch: int = BATCH,
) -> StyleGAN2:
    """The second stage: fit pictures of z to the truth; returns the average of the weights over the last steps."""
    average = StyleGAN2(generator.cfg).to(device).requires_grad_(False)
    average.load_state_dict(generator.state_dict())

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(len(zs), (batch,), generator=g)
        true = images[chosen].to(device).float() / 127.5 - 1
        # without noise: this world has no randomness
        return regression_loss(generator(zs[chosen].to(device), noise_mode="none"), true), {}

    generator.to(device)
    loop.train(folder, generator, loss, steps, LR, seed=11, ema=average, ema_decay=0.995, label="regression")
    return average


@torch.no_grad()
def unseen_psnr(generator: StyleGAN2, count: int = 256, seed: int = 600_000) -> float:
    """PSNR in dB of pictures in [0, 1] of unseen z against their truth; mean over the pictures."""
    device = generator.mapping.w_avg.device
    total = 0.0
    for k in range(0, count, 32):
        z = codes(seed + k, 32)
        made = (generator(z.to(device), noise_mode="none").cpu().clamp(-1, 1) + 1) / 2
        total += psnr(made, truth(z)).sum().item()
    return total / count
