"""The Fréchet distance against its closed form and against torchmetrics."""

import numpy as np
import pytest
import scipy.linalg
import torch
from latent_prior.metrics import frechet_distance
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance


def closed_form(a, b):
    """Of the Gaussians with the samples' means and (unbiased) covariances."""
    a, b = a.double().numpy(), b.double().numpy()
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(ca @ cb)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * root.real)


def samples(seed, count, shift=0.0, dim=6):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=g) @ torch.randn(dim, dim, generator=g) + shift


class Toy(nn.Module):
    """Pictures in [0, 1], 3 x 8 x 8, to five numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 192, generator=torch.Generator().manual_seed(0)))

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1) @ self.weight.T


def test_it_is_the_closed_form():
    a, b = samples(0, 300), samples(1, 200, shift=0.7)
    assert frechet_distance(a, b) == pytest.approx(closed_form(a, b), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_a_shift_is_its_squared_length():
    a = samples(0, 100)
    assert frechet_distance(a, a + 3.0) == pytest.approx(6 * 9, rel=1e-5)  # shifted in single precision


def test_equal_sets_are_no_distance_apart():
    a = samples(0, 300)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    few = samples(2, 4, dim=20)  # covariances of low rank: roots of rounding errors, relative to a spread of about 400
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-4)


def test_it_is_what_torchmetrics_makes_of_the_pictures():
    pictures = torch.rand(90, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    a, b = pictures[:50], pictures[50:] / 2
    toy = Toy().requires_grad_(False)
    metric = FrechetInceptionDistance(feature=toy, normalize=True, input_img_size=(3, 8, 8))
    for part in a.split(20):
        metric.update(part, real=False)
    for part in b.split(20):
        metric.update(part, real=True)
    # torchmetrics returns single precision here
    assert frechet_distance(toy(a), toy(b)) == pytest.approx(metric.compute().item(), rel=1e-6)


def test_one_picture_has_no_covariance():
    with pytest.raises(ValueError, match="two pictures of each kind, got 1 and 5"):
        frechet_distance(samples(0, 1), samples(0, 5))
