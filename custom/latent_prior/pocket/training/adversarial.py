"""The last stage of the pocket StyleGAN's training: adversarial, with a loss to the truth of each z.

Non-saturating loss with R1 on real pictures (Mescheder et al. 2018), optionally path length regularisation (Karras et
al. 2020, eq. 4), and an average of the generator's weights. Both networks are updated simultaneously; there is no
augmentation, because any number of real pictures can be rendered.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from latent_prior.pocket.training import loop
from latent_prior.pocket.training.discriminator import Discriminator
from latent_prior.pocket.training.stylegan import regression_loss
from latent_prior.stylegan2.generator import StyleGAN2

STEPS, LR, BATCH = 400, 0.002, 8
R1_WEIGHT, R1_EVERY = 1.0, 8
PATH_EVERY, PATH_DECAY = 4, 0.01
TRUTH_WEIGHT, ADVERSARIAL_WEIGHT = 10.0, 0.1


def r1_penalty(discriminator: nn.Module, real: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """1/2 E |grad D(x)|^2 over real pictures."""
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return 0.5 * gradient.square().sum((1, 2, 3)).mean()


def path_lengths(
    generator: StyleGAN2, w_plus: Float[Tensor, "B n D"], g: torch.Generator | None = None
) -> Float[Tensor, " B"]:
    """|J_w^T y| of pictures in random directions y of unit expected length: how far a step in w moves the picture."""
    w_plus = w_plus.detach().requires_grad_()
    pictures = generator.synthesis(w_plus, "none")
    y = torch.randn(pictures.shape, generator=g).to(pictures) / pictures[0, 0].numel() ** 0.5
    (gradient,) = torch.autograd.grad((pictures * y).sum(), w_plus, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


class GAN(nn.Module):
    """Both networks, and the running mean of the path lengths."""

    def __init__(self, generator: StyleGAN2, discriminator: Discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.register_buffer("path_mean", torch.zeros([]))
        self.register_buffer("step", torch.zeros([], dtype=torch.long))


def losses(
    gan: GAN, z: Float[Tensor, "B Z"], real: Float[Tensor, "B 3 H W"], path_weight: float = 0.0, g=None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """The discriminator loss, the generator loss, and the generator's distance to the truth.

    `real` are the true pictures of z. The discriminator loss has no gradient for the generator, nor vice versa. Lazy
    regularisers are multiplied by their interval.
    """
    generator, discriminator, step = gan.generator, gan.discriminator, int(gan.step)
    made = generator(z, noise_mode="none")
    logits = discriminator(real), discriminator(made.detach())
    for_discriminator = F.softplus(-logits[0]).mean() + F.softplus(logits[1]).mean()
    if step % R1_EVERY == 0:
        for_discriminator = for_discriminator + R1_EVERY * R1_WEIGHT * r1_penalty(discriminator, real)
    discriminator.requires_grad_(False)
    for_generator = F.softplus(-discriminator(made)).mean()
    discriminator.requires_grad_(True)
    if path_weight > 0 and step % PATH_EVERY == 0:
        lengths = path_lengths(generator, generator.styles(z), g)
        gan.path_mean.lerp_(lengths.detach().mean(), PATH_DECAY)
        for_generator = for_generator + PATH_EVERY * path_weight * (lengths - gan.path_mean).square().mean()
    gan.step += 1
    return for_discriminator, for_generator, regression_loss(made, real)


def train_adversarially(
    folder: Path,
    generator: StyleGAN2,
    zs: Float[Tensor, "N Z"],
    images: UInt8[Tensor, "N 3 H W"],
    device: torch.device,
    steps: int = STEPS,
    batch: int = BATCH,
    path_weight: float = 0.0,
) -> StyleGAN2:
    """Continue training a fitted generator as a GAN; returns the average of its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        discriminator = Discriminator(generator.cfg.resolution)
    gan = GAN(generator, discriminator).to(device)
    gan.requires_grad_(True)
    average = GAN(StyleGAN2(generator.cfg), Discriminator(generator.cfg.resolution)).to(device).requires_grad_(False)
    average.load_state_dict(gan.state_dict())

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(len(zs), (batch,), generator=g)
        real = images[chosen].to(device).float() / 127.5 - 1
        d, adversarial, truth = losses(gan, zs[chosen].to(device), real, path_weight, g)
        figures = {"discriminator": d.item(), "adversarial": adversarial.item(), "truth": truth.item()}
        return d + ADVERSARIAL_WEIGHT * adversarial + TRUTH_WEIGHT * truth, figures

    loop.train(
        folder, gan, loss, steps, LR, seed=12, ema=average, ema_decay=0.995, label="adversarial", betas=(0.0, 0.99)
    )
    return average.generator
