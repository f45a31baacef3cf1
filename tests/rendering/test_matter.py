"""Weights of samples against loops and closed forms."""

import math

import pytest
import torch
from latent_prior.rendering.matter import density_of_distance, distance_weights


def phi(distance, inv_std):
    return 1 / (1 + math.exp(-inv_std * distance))


def test_weights_of_distances_against_neus():
    """Wang et al. 2021, eq. 13: alpha_i = max(0, (Phi(f_i) - Phi(f_i+1)) / Phi(f_i)), light by the product."""
    inv_std = 12.0
    distances = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).double() * 0.2
    weights, light = distance_weights(distances, inv_std)
    for ray, found, lit in zip(distances.tolist(), weights.tolist(), light.tolist(), strict=True):
        there, expected = 1.0, [0.0] * len(ray)
        for i in range(len(ray) - 1):
            assert lit[i] == pytest.approx(there, rel=1e-9)
            before, after = phi(ray[i], inv_std), phi(ray[i + 1], inv_std)
            alpha = max(0.0, (before - after) / before)
            expected[i] += there * alpha / 2
            expected[i + 1] += there * alpha / 2
            there *= 1 - alpha
        assert found == pytest.approx(expected, abs=1e-9)


def test_a_ray_through_a_wall_sees_its_face():
    t = torch.linspace(0, 2, 401)
    wall = (t - 1).abs() - 0.2  # from 0.8 to 1.2
    weights, _ = distance_weights(wall[None], 200.0)
    assert weights.sum().item() == pytest.approx(1, abs=1e-4)
    assert (weights[0] * t).sum().item() == pytest.approx(0.8, abs=0.01)


def test_a_ray_that_only_leaves_sees_nothing():
    weights, _ = distance_weights(torch.linspace(-0.5, 0.5, 30)[None], 50.0)
    assert weights.abs().max() == 0


def test_the_density_takes_as_much_light_as_fine_sections():
    inv_std, t = 30.0, torch.linspace(0, 1, 20001, dtype=torch.float64)
    distance = 0.6 - t  # straight in
    tau = (density_of_distance(distance, inv_std)[:-1] * (t[1] - t[0])).sum()
    weights, _ = distance_weights(distance[None], inv_std)
    assert weights.sum().item() == pytest.approx(1 - math.exp(-tau), abs=1e-3)
    step = 1e-4
    thin = distance_weights(torch.tensor([[0.01, 0.01 - step]], dtype=torch.float64), inv_std)[0].sum().item()
    density = density_of_distance(torch.tensor([[0.01]], dtype=torch.float64), inv_std).item()
    assert thin == pytest.approx(1 - math.exp(-density * step), rel=1e-2)
