"""Noise on surfaces: against a slow loop, and what it promises of its distribution and of several views."""

import pytest
import torch
from latent_prior.prior import SurfaceNoise
from latent_prior.prior.surface_noise import _PRIMES, ENTRIES
from torch.testing import assert_close


def plane(height, width, cell, offset=(0.0, 0.0)):
    """A picture of the plane z = 0.1 whose pixels are `cell` wide, moved by `offset` pixels; all of it is seen."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    points = torch.stack([(x + offset[0]) * cell, (y + offset[1]) * cell, torch.full_like(x, 0.1)], dim=-1)
    return points[None], torch.ones(1, height, width, 1)


def slowly(noise, points, opacity, size):
    """Cell by cell: the noise of a cell counts once for each pixel that sees it, over the root of the squares' sum."""
    table = torch.randn(ENTRIES, noise.channels, generator=torch.Generator().manual_seed(noise.seed))
    (views, height, width), (h, w) = points.shape[:3], size
    down, across = height // h, width // w
    out = torch.zeros(views, noise.channels, h, w)
    for b in range(views):
        for i in range(h):
            for j in range(w):
                counts = {}
                for row in range(i * down, (i + 1) * down):
                    for column in range(j * across, (j + 1) * across):
                        cell = (row, column, 1 << 20)
                        if opacity[b, row, column] > 0.5:
                            cell = tuple(int(x // noise.cell) for x in points[b, row, column].tolist())
                        entry = (cell[0] * _PRIMES[0] ^ cell[1] * _PRIMES[1] ^ cell[2] * _PRIMES[2]) % ENTRIES
                        counts[entry] = counts.get(entry, 0) + 1
                total = sum(n * table[entry] for entry, n in counts.items())
                out[b, :, i, j] = total / sum(n * n for n in counts.values()) ** 0.5
    return out


def test_the_sum_over_a_latents_pixels():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 12, 8, 3, generator=generator) - 0.5
    opacity = torch.rand(2, 12, 8, 1, generator=generator)
    noise = SurfaceNoise(cell=0.3, channels=4, seed=3)
    assert_close(noise(points, opacity, (3, 4)), slowly(noise, points, opacity, (3, 4)))


@pytest.mark.parametrize("cell", [0.02, 0.05])  # a pixel sees a cell of its own, and shares one with its neighbours
def test_it_is_standard_normal_and_white(cell):
    points, opacity = plane(512, 512, 0.02)
    opacity[:, :, 256:] = 0  # the right half lies on the picture
    noise = SurfaceNoise(cell, 4)(points, opacity, (128, 128))
    for half in noise.chunk(2, dim=-1):
        assert half.mean().abs() < 4 / half.numel() ** 0.5
        assert half.var().item() == pytest.approx(1, abs=0.03)
    for neighbour in (noise[..., 1:] * noise[..., :-1], noise[..., 1:, :] * noise[..., :-1, :]):
        assert neighbour.mean().abs() < (0.02 if cell == 0.02 else 0.2)


def test_it_moves_with_the_surface():
    """By whole latents exactly; by half a latent the noise of a place is half the old one's, sqrt(1/2) each way."""
    noise = SurfaceNoise(0.02, 4, 1)
    still = noise(*plane(64, 64, 0.02), (16, 16))
    moved = noise(*plane(64, 64, 0.02, offset=(8, 0)), (16, 16))
    assert_close(moved[..., :-2], still[..., 2:])
    half = noise(*plane(64, 64, 0.02, offset=(2, 0)), (16, 16))
    assert (half * still).mean().item() == pytest.approx(0.5, abs=0.1)
    assert not torch.equal(SurfaceNoise(0.02, 4, 2)(*plane(64, 64, 0.02), (16, 16)), still)


@pytest.mark.parametrize("pixels", [(16, 16), (20, 12), (5, 7), (300, 300)])
def test_pictures_of_any_size(pixels):
    points, opacity = plane(*pixels, 1.6 / pixels[0])
    opacity[:, : pixels[0] // 2] = 0
    out = SurfaceNoise(0.05, 4)(points, opacity, (16, 16))
    assert out.shape == (1, 4, 16, 16)
    assert out.isfinite().all()
