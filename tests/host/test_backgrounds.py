"""Backgrounds and materials against closed forms and slow loops."""

import math
import random

import pytest
import torch
from latent_prior.host.embedded.backgrounds import (
    NeuralEnvironmentMapBackground,
    SolidColorBackground,
    TexturedBackground,
)
from latent_prior.host.embedded.materials import NoMaterial


@pytest.fixture
def dirs():
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(2, 3, 4, 3, generator=generator), dim=-1)


def test_solid_color(dirs):
    background = SolidColorBackground({"color": [0.1, 0.2, 0.3, 0.4], "n_output_dims": 4})
    assert torch.equal(background(dirs), torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(2, 3, 4, 4))
    assert not list(background.parameters()) and set(background.state_dict()) == {"env_color"}
    learned = SolidColorBackground({"learned": True})
    learned(dirs).sum().backward()
    assert torch.equal(learned.env_color.grad, torch.full((3,), 24.0))
    with pytest.raises(ValueError, match="n_output_dims"):
        SolidColorBackground({"n_output_dims": 4})


@pytest.mark.parametrize("build", [SolidColorBackground, NeuralEnvironmentMapBackground])
def test_random_colours_come_by_chance_and_only_in_training(build, dirs):
    background = build({"random_aug": True, "random_aug_prob": 0.5})
    plain = background.eval()(dirs)
    background.train()
    outcomes = []
    for seed in range(20):
        random.seed(seed)
        torch.manual_seed(seed)
        color = background(dirs)
        random.seed(seed)
        expected = random.random() < 0.5
        assert torch.equal(color, plain) != expected
        if expected:  # one colour a picture, drawn after the coin from torch's generator
            torch.manual_seed(seed)
            torch.testing.assert_close(color, torch.rand(2, 1, 1, 3).expand(2, 3, 4, 3))
        outcomes.append(expected)
    assert 4 < sum(outcomes) < 16
    assert torch.equal(background.eval()(dirs), plain)


def test_texture_is_looked_up_by_angles(dirs):
    torch.manual_seed(0)
    background = TexturedBackground({"height": 5, "width": 7, "n_output_dims": 4, "color_activation": "none"})
    torch.manual_seed(0)
    assert torch.equal(background.texture, torch.randn(1, 4, 5, 7))
    out = background(dirs)
    texture = background.texture[0].detach()

    def reflect(index, size):  # the picture is mirrored at its border
        return -index - 1 if index < 0 else 2 * size - 1 - index if index >= size else index

    for direction, color in zip(dirs.reshape(-1, 3).tolist(), out.reshape(-1, 4), strict=True):
        column = math.acos(direction[2]) / math.pi * 7 - 0.5
        row = (math.atan2(direction[1], direction[0]) / (2 * math.pi) + 0.5) * 5 - 0.5
        expected = torch.zeros(4)
        for i in (math.floor(row), math.floor(row) + 1):
            for j in (math.floor(column), math.floor(column) + 1):
                weight = (1 - abs(row - i)) * (1 - abs(column - j))
                expected += weight * texture[:, reflect(i, 5), reflect(j, 7)]
        torch.testing.assert_close(color, expected, atol=1e-4, rtol=0)


def test_environment_map_is_a_network_of_the_direction(dirs):
    background = NeuralEnvironmentMapBackground({"eval_color": [0.3, 0.6, 0.9]})
    expected = torch.sigmoid(background.network(background.encoding((dirs.view(-1, 3) + 1) / 2)))
    torch.testing.assert_close(background(dirs), expected.view(2, 3, 4, 3))
    assert torch.equal(background.eval()(dirs), torch.tensor([0.3, 0.6, 0.9]).expand(2, 3, 4, 3))
    parameters = [name for name, _ in background.named_parameters()]
    assert parameters == ["network.layers.0.weight", "network.layers.2.weight", "network.layers.4.weight"]


def test_no_material():
    features = torch.randn(5, 2, 3)
    assert torch.equal(NoMaterial({})(features, viewdirs=None), torch.sigmoid(features))
    latents = torch.randn(5, 4)
    material = NoMaterial({"n_output_dims": 4, "color_activation": "none"})
    assert torch.equal(material(features=latents), latents)
    assert torch.equal(material.export(features=latents)["albedo"], latents.clamp(0, 1)[:, :3])
    network = {"otype": "VanillaMLP", "n_neurons": 8, "n_hidden_layers": 1}
    mixed = NoMaterial({"input_feature_dims": 4, "mlp_network_config": network})
    torch.testing.assert_close(mixed(latents), torch.sigmoid(mixed.network(latents)))
    with pytest.raises(ValueError, match="material.n_output_dims is 3.*geometry.n_feature_dims"):
        NoMaterial({})(latents)
    with pytest.raises(ValueError, match="at least 3"):
        NoMaterial({"n_output_dims": 2}).export(latents[:, :2])
    assert NoMaterial({"requires_normal": True}).requires_normal and not NoMaterial({}).requires_normal
