import pytest
import torch
from latent_prior.prior import DiffusionSchedule
from reference.gaussian_mixture import GaussianMixture


@pytest.fixture
def generator():
    """A seeded generator, so that every test draws the same numbers on its own."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def schedule():
    """Stable Diffusion's schedule in float64."""
    return DiffusionSchedule.scaled_linear(0.00085, 0.012, 1000).to(dtype=torch.float64)


@pytest.fixture
def randn(generator):
    """Standard normal float64 tensors of a given shape."""

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw


@pytest.fixture
def mixture(randn):
    """Two well separated Gaussians over latents 3 2 2."""
    direction = randn(3, 2, 2)
    direction = 2.0 * direction / direction.norm()
    probabilities = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return GaussianMixture(torch.stack([direction, -direction]), 0.1, probabilities)
