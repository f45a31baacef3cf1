"""Which parameters train."""

import pytest
import torch
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from latent_prior.stylegan2.layers import layers_of_w_plus, matching, most_moved


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return StyleGAN2(StyleGAN2Config.of_size(16, z_dim=8, w_dim=8, mapping_layers=2, base=64, most=8))


def test_patterns_pick_by_name_in_the_generators_order(generator):
    assert matching(generator, ["*"]) == [name for name, _ in generator.named_parameters()]
    found = matching(generator, ["synthesis.*.conv?.weight", "mapping.fc0.*"])
    convolutions = [f"synthesis.{c}.weight" for c in ("b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1")]
    assert found == ["mapping.fc0.weight", "mapping.fc0.bias", *convolutions]
    with pytest.raises(ValueError, match="system.trainable: 'convs.*' matches no parameter"):
        matching(generator, ["*", "convs.*"])


def test_a_places_modules_are_those_its_style_reaches(generator):
    """Oracle: the gradient of the picture on one style's affine layers alone."""
    names = {module: name for name, module in generator.named_modules()}
    styled = {name: module for name, module in generator.named_modules() if hasattr(module, "affine")}
    for place, modules in enumerate(layers_of_w_plus(generator)):
        w_plus = torch.randn(2, generator.cfg.num_ws, 8)
        w_plus[:, place] = (
            0.0  # an affine layer learns from its style, and from a style of zeros its weight learns nothing
        )
        generator.zero_grad()
        generator.synthesis(w_plus, "none").square().sum().backward()
        reached = [name for name, module in styled.items() if not module.affine.weight.grad.any()]
        assert sorted(names[module] for module in modules) == sorted(reached)


def test_most_moved_by_mean_absolute_gradient():
    gradient = torch.zeros(3, 5, 2)
    gradient[:, 3], gradient[0, 1], gradient[:, 0] = -1.0, 6.0, 0.5
    assert most_moved(gradient, 1) == [1]  # mean 2 against 1
    assert most_moved(gradient, 3) == [0, 1, 3]
