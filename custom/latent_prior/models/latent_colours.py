"""The colours of latents: the affine map from scaled latents to RGB that fits an autoencoder best.

Score Jacobian Chaining and Latent-NeRF give such a map for Stable Diffusion; here it is fitted to any checkpoint.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior.models.autoencoder import Autoencoder

LEVELS = 4  # levels per channel; LEVELS^3 flat pictures are encoded
LATENT_SIDE = 16  # their size in latent pixels: large enough that the borders do not affect the middle


@dataclass(frozen=True, eq=False)
class LatentColours:
    """RGB = latent @ matrix + offset, clipped to [0, 1]."""

    matrix: Float[Tensor, "C 3"]
    offset: Float[Tensor, "3"]

    @staticmethod
    @torch.no_grad()
    def fit(autoencoder: Autoencoder) -> "LatentColours":
        """Least squares over flat pictures of LEVELS^3 colours, from the latent's middle half to the colour."""
        levels = torch.linspace(0, 1, LEVELS)
        colours = torch.cartesian_prod(levels, levels, levels)
        side, quarter = LATENT_SIDE * autoencoder.downscale, LATENT_SIDE // 4
        latents = []
        for part in colours.split(8):
            v = autoencoder.encode(part.to(autoencoder.vae.device)[:, :, None, None].expand(-1, -1, side, side))
            latents.append(v[..., quarter:-quarter, quarter:-quarter].mean((-2, -1)).cpu())
        design = torch.cat([torch.cat(latents), torch.ones(len(colours), 1)], dim=1)
        solution = torch.linalg.lstsq(design.double(), colours.double()).solution.float()
        return LatentColours(solution[:-1], solution[-1])

    def __call__(self, latents: Float[Tensor, "*N C"]) -> Float[Tensor, "*N 3"]:
        return (latents @ self.matrix.to(latents) + self.offset.to(latents)).clamp(0, 1)
