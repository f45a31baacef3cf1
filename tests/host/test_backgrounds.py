"""Backgrounds and materials against closed forms and slow loops."""

import math

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
    for wrong in ({"n_output_dims": 4}, {"color": "white"}, {"color": ["a", "b", "c"]}):
        with pytest.raises(ValueError, match="system.background.color is"):
            SolidColorBackground(wrong)


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
    background = NeuralEnvironmentMapBackground({})
    expected = torch.sigmoid(background.network(background.encoding((dirs.view(-1, 3) + 1) / 2)))
    torch.testing.assert_close(background(dirs), expected.view(2, 3, 4, 3))
    parameters = [name for name, _ in background.named_parameters()]
    assert parameters == ["network.layers.0.weight", "network.layers.2.weight", "network.layers.4.weight"]


def test_no_material():
    features = torch.randn(5, 2, 3)
    assert torch.equal(NoMaterial({})(features, viewdirs=None), torch.sigmoid(features))
    latents = torch.randn(5, 4)
    material = NoMaterial({"n_output_dims": 4, "color_activation": "none"})
    assert torch.equal(material(features=latents), latents)
    assert torch.equal(NoMaterial({}).export(features=features)["albedo"], torch.sigmoid(features))
    with pytest.raises(ValueError, match="system.material.n_output_dims is 3; .*system.geometry.n_feature_dims"):
        NoMaterial({})(latents)
