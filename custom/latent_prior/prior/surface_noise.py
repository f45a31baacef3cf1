"""Noise that lies on the surface that is seen, so that all views of a place see the same noise.

A prompt leaves much open, such as where stripes begin. With noise drawn anew for every picture each step pulls towards
another answer, and their mean is a blur; with noise that stays on the surface all views pull towards one. The noise of a
latent is the sum over its pixels, so it is standard normal and moves with the surface by less than a latent.
Source: Yan et al. 2025, "Consistent Flow Distillation for Text-to-3D Generation" (arXiv 2501.05445), which keeps the
noise in a map around the object; here it is in cells of space, so the surface needs no coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

FINEST = 8  # pixels of a latent, along each axis, that are looked at
ENTRIES = 2**18  # of the table of noise; cells that share an entry are far from each other
_PRIMES = (73856093, 19349663, 83492791)  # Teschner et al. 2003, "Optimized Spatial Hashing"
_NOWHERE = 1 << 20  # the third coordinate of the cells of the picture itself


@dataclass(frozen=True)
class SurfaceNoise:
    """cell: edge length of a cell of noise, in the units of the points; a rendered pixel's or less. seed: of the noise."""

    cell: float
    channels: int
    seed: int = 0

    def __call__(
        self, points: Float[Tensor, "B H W 3"], opacity: Float[Tensor, "B H W 1"], size: Sequence[int]
    ) -> Float[Tensor, "B C h w"]:
        """Noise of latents of `size` (h, w) for pictures that see `points`; where opacity is below half, nothing.

        There the noise lies on the picture. Pictures are brought to a whole number of pixels for each latent first.
        """
        finer = [min(max(1, round(have / want)), FINEST) for have, want in zip(points.shape[1:3], size, strict=True)]
        cells = self._cells(*_resized(points, opacity, [n * want for n, want in zip(finer, size, strict=True)]))
        views, (height, width), (down, across) = len(cells), size, finer
        blocks = cells.view(views, height, down, width, across, 3).transpose(2, 3).flatten(3, 4)
        primes = torch.tensor(_PRIMES, device=cells.device)
        entries = (blocks * primes).unbind(-1)
        entry = (entries[0] ^ entries[1] ^ entries[2]) % ENTRIES
        shared = (entry[..., None] == entry[..., None, :]).sum(dim=(-1, -2))  # a cell that n pixels see counts n times
        noise = self._table.to(points.device)[entry].sum(dim=3) / shared.sqrt().unsqueeze(-1)
        return noise.permute(0, 3, 1, 2)

    def _cells(self, points: Float[Tensor, "B H W 3"], seen: Tensor) -> Int[Tensor, "B H W 3"]:
        ranges = [torch.arange(n, device=points.device) for n in points.shape[1:3]]
        place = F.pad(torch.stack(torch.meshgrid(*ranges, indexing="ij"), dim=-1), (0, 1), value=_NOWHERE)
        return torch.where(seen, (points / self.cell).floor().long(), place)

    @cached_property
    def _table(self) -> Float[Tensor, "N C"]:
        return torch.randn(ENTRIES, self.channels, generator=torch.Generator().manual_seed(self.seed))


def _resized(points: Tensor, opacity: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
    """Points, and whether something is seen there, in pictures of another size."""
    if list(points.shape[1:3]) != size:
        stacked = torch.cat([points * opacity, opacity], dim=-1).permute(0, 3, 1, 2)
        stacked = F.interpolate(stacked, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        points, opacity = stacked[..., :3] / stacked[..., 3:].clamp(min=1e-6), stacked[..., 3:]
    return points, opacity > 0.5
