"""The layer generator: its sizes against Text2LIVE's, compositing, what its code does, gradients."""

import pytest
import torch
from latent_prior import OptionError
from latent_prior.editing.layer import Layer, LayerGenerator, LayerGeneratorConfig, scales_for


def generator_of(**settings) -> LayerGenerator:
    torch.manual_seed(0)
    return LayerGenerator(LayerGeneratorConfig(**{"scales": 2, "channels": 8, "code_channels": 3} | settings))


@pytest.mark.parametrize("side, expected", [(8, 2), (64, 5), (255, 6), (512, 7), (4096, 7)])
def test_scales_leave_two_pixels_at_the_bottom(side, expected):
    assert scales_for(side) == expected
    assert expected == 7 or 2 <= side / 2**expected < 4


def test_parameters_at_seven_scales_are_text2lives():
    """Counted by hand: skip 1x1 with its norm, two 3x3 down, norm, 3x3 and 1x1 up; no norm at the end of the outermost."""
    c, s = 128, 4

    def scale(inputs: int, outermost: bool) -> int:
        skip = inputs * s + s + 2 * s
        down = 9 * inputs * c + c + 2 * c + 9 * c * c + c + 2 * c
        up = 2 * (c + s) + 9 * (c + s) * c + c + 2 * c + c * c + c + (0 if outermost else 2 * c)
        return skip + down + up

    expected = scale(3, True) + 6 * scale(c, False) + c * 4 + 4
    found = LayerGenerator(LayerGeneratorConfig(scales=7, code="none"))
    assert sum(p.numel() for p in found.parameters()) == expected == pytest.approx(3.1e6, rel=0.05)


@pytest.mark.parametrize("code", ["bottleneck", "input", "none"])
@pytest.mark.parametrize("size", [(8, 8), (9, 23), (32, 16)])
def test_layers_have_the_pictures_size_and_stay_in_range(code, size):
    layer = generator_of(code=code)(torch.rand(2, 3, *size))
    assert layer.rgb.shape == (2, 3, *size) and layer.alpha.shape == (2, 1, *size)
    for part in (layer.rgb, layer.alpha):
        assert 0 < part.min() and part.max() < 1


def test_alpha_begins_near_a_half():
    alpha = generator_of(scales=4, channels=32)(torch.rand(1, 3, 64, 64)).alpha
    assert 0.3 < alpha.mean() < 0.7


def test_over_is_alpha_compositing():
    layer = Layer(torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4))
    background = torch.rand(1, 3, 4, 4)
    for i in range(4):
        for j in range(4):
            a = layer.alpha[0, 0, i, j]
            torch.testing.assert_close(
                layer.over(background)[0, :, i, j], a * layer.rgb[0, :, i, j] + (1 - a) * background[0, :, i, j]
            )


@pytest.mark.parametrize("code", ["bottleneck", "input"])
def test_the_code_is_trained_and_changes_the_layer(code):
    generator, picture = generator_of(code=code), torch.rand(1, 3, 16, 16)
    before = generator(picture)
    (before.rgb.sum() + before.alpha.square().sum()).backward()
    (parameter,) = [p for name, p in generator.named_parameters() if name.endswith("code")]
    assert parameter.grad.abs().max() > 0
    with torch.no_grad():
        parameter.copy_(torch.randn_like(parameter))
        assert not torch.allclose(generator(picture).rgb, before.rgb, atol=1e-4)


def test_evaluation_shows_what_was_trained():
    generator, picture = generator_of(), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(generator.train()(picture).rgb, generator.eval()(picture).rgb, rtol=0, atol=0)


def test_colours_are_painted_in_decorrelated_coordinates():
    generator = generator_of()
    logits = {}
    generator.head.register_forward_hook(lambda module, inputs, out: logits.update(out=out))
    rgb = generator(torch.rand(1, 3, 8, 8)).rgb
    x, y, z = logits["out"][0, :3]
    expected = [0.563 * x + 0.312 * y + 0.069 * z, 0.584 * x - 0.173 * z, 0.584 * x - 0.312 * y + 0.104 * z]
    torch.testing.assert_close(rgb[0], torch.stack(expected).sigmoid())


def test_bad_sizes_and_settings_name_their_key():
    with pytest.raises(
        ValueError, match="7x64 is too small for 2 scales, which need sides of 8: raise data.short_side"
    ):
        generator_of()(torch.rand(1, 3, 64, 7))
    with pytest.raises(OptionError, match="short_side is 6; expected at least 8 pixels"):
        scales_for(6)
    with pytest.raises(OptionError, match="^code is 'top'"):
        generator_of(code="top")
    with pytest.raises(OptionError, match="^channels is 0"):
        generator_of(channels=0)
    with pytest.raises(OptionError, match="^scales is 10+; expected at most 16"):
        LayerGenerator(LayerGeneratorConfig(scales=10**9))
    with pytest.raises(OptionError, match="^channels=10+, skip_channels=4, code_channels=16: needs .* of memory"):
        LayerGenerator(LayerGeneratorConfig(scales=5, channels=10**9))
