"""Fields with a known surface and known colours."""

import pytest
import torch


class Fields:
    """Functions of (N, 3) points, as generators.mesh takes them."""

    @staticmethod
    def ball(radius=0.5, center=(0.0, 0.0, 0.0), peak=200.0, width=0.01):
        """A density that falls linearly from `peak` to zero over `width` inside and outside the sphere."""
        middle = torch.tensor(center)

        def density(points):
            inside = (radius - (points - middle).norm(dim=-1, keepdim=True)) / width
            return peak * ((inside + 1) / 2).clamp(0, 1)

        return density

    @staticmethod
    def sum(*densities):
        return lambda points: torch.stack([density(points) for density in densities]).sum(dim=0)

    @staticmethod
    def plain(*rgb):
        return lambda points: torch.tensor(rgb).expand(len(points), 3)


@pytest.fixture
def fields():
    return Fields


@pytest.fixture
def unit_box():
    return torch.tensor([[-1.0] * 3, [1.0] * 3])
