"""StyleGAN2 against the slow reference, closed forms and NVIDIA's sizes."""

import math

import pytest
import torch
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from latent_prior.stylegan2.ops import modulated_conv2d, smoothing_filter, upsampled
from reference import stylegan2 as slow


def small(resolution=32, seed=0, **sizes):
    """A random generator in which biases, noise and w_avg play a part."""
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "base": 256, "most": 16} | sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = StyleGAN2(StyleGAN2Config.of_size(resolution, **sizes))
        with torch.no_grad():
            for name, value in generator.named_parameters():
                if "noise_strength" in name or name.endswith("bias"):
                    value.add_(0.3 * torch.randn_like(value))
            generator.mapping.w_avg.normal_()
    return generator.eval()


@pytest.fixture(scope="module")
def toy():
    return small()


def draws(*shape, seed=1, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# a filter that is symmetric, as all are, yet not the standard one
UNEVEN = torch.tensor([[1.0, 2, 2, 1], [2, 7, 7, 2], [2, 7, 7, 2], [1, 2, 2, 1]], dtype=torch.float64) / 48


@pytest.mark.parametrize("kernel", [smoothing_filter().double(), UNEVEN])
def test_upsampling_is_the_reference(kernel):
    x = draws(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.stack([slow.upsampled(image, kernel) for image in x])
    torch.testing.assert_close(upsampled(x, kernel), expected, rtol=0, atol=1e-14)


def test_upsampling_keeps_a_level():
    level = upsampled(torch.full((1, 1, 6, 6), 3.0), smoothing_filter())
    torch.testing.assert_close(level[..., 1:-2, 1:-2], torch.full((1, 1, 9, 9), 3.0))


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("size", "kernel"), [(3, None), (3, UNEVEN), (1, None)])
def test_modulated_convolution_is_the_reference(demodulate, size, kernel):
    x = draws(2, 4, 4, 5, dtype=torch.float64).requires_grad_()
    weight = draws(3, 4, size, size, seed=2, dtype=torch.float64).requires_grad_()
    style = draws(2, 4, seed=3, dtype=torch.float64).requires_grad_()
    value = modulated_conv2d(x, weight, style, demodulate, kernel)
    expected = slow.modulated(x, weight, style, demodulate, kernel)
    assert value.shape[2:] == ((4, 5) if kernel is None else (8, 10))
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-13)
    at = draws(*value.shape, seed=4, dtype=torch.float64)
    found = torch.autograd.grad((value * at).sum(), (x, weight, style))
    wanted = torch.autograd.grad((expected * at).sum(), (x, weight, style))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_the_generator_is_the_reference():
    generator = small(resolution=8, w_dim=6, z_dim=5, base=32, most=3).double()
    state = {name: value.detach().clone() for name, value in generator.state_dict().items()}
    learned = [name for name, _ in generator.named_parameters()]
    for name in learned:
        state[name].requires_grad_()
    z = draws(2, 5, dtype=torch.float64)
    w = slow.mapping(state, z, layers=2)
    torch.testing.assert_close(generator.mapping(z), w, rtol=0, atol=1e-14)

    apart = draws(1, 4, 6, seed=2, dtype=torch.float64)  # so that every layer has a style of its own
    value = generator.synthesis(generator.styles(z) + apart)
    expected = slow.synthesis(state, w[:, None] + apart, resolution=8)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)

    at = draws(*value.shape, seed=3, dtype=torch.float64)
    found = torch.autograd.grad((value * at).sum(), list(generator.parameters()))
    wanted = torch.autograd.grad((expected * at).sum(), [state[name] for name in learned])
    for name, one, other in zip(learned, found, wanted, strict=True):
        assert other.any(), name
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, msg=name)


def test_demodulation_gives_unit_variance_whatever_the_style():
    x, weight, style = draws(4, 12, 48, 48), 7 * draws(6, 12, 3, 3, seed=2), draws(4, 12, seed=3).exp()
    out = modulated_conv2d(x, weight, style, demodulate=True)
    inside = out[..., 1:-1, 1:-1].var(dim=(2, 3))
    torch.testing.assert_close(inside, torch.ones(4, 6), rtol=0, atol=0.2)  # 2116 correlated pixels each
    assert float(inside.mean()) == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(modulated_conv2d(x, weight, 10 * style, demodulate=True), out, rtol=1e-4, atol=1e-4)


def test_sizes_are_nvidias():
    large = StyleGAN2Config.of_size(1024)
    assert (large.num_ws, large.resolution) == (18, 1024)
    assert large.channels == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert StyleGAN2Config.of_size(256, base=16384).channels == (512, 512, 512, 512, 256, 128, 64)
    assert StyleGAN2Config.of_size(256).num_ws == 14
    with torch.device("meta"):
        parameters = dict(StyleGAN2(large).named_parameters())
    # what NVIDIA's own network summary of the 1024-px generator adds up to
    assert sum(value.numel() for value in parameters.values()) == 30_370_060


@pytest.mark.parametrize("resolution", [48, 4, 0])
def test_sizes_that_are_none(resolution):
    with pytest.raises(ValueError, match=f"resolution is {resolution}"):
        StyleGAN2Config.of_size(resolution)


def test_the_configuration_is_read_off_the_shapes():
    cfg = StyleGAN2Config(24, 12, 3, (16, 16, 8, 4))
    assert StyleGAN2Config.of_state(StyleGAN2(cfg).state_dict()) == cfg
    for prefix in ("mapping.", "synthesis.b8."):
        rest = {name: value for name, value in StyleGAN2(cfg).state_dict().items() if not name.startswith(prefix)}
        with pytest.raises(ValueError, match="not a StyleGAN2 generator"):
            StyleGAN2Config.of_state(rest)


def test_which_style_goes_where(toy):
    affine, heard = {}, {}
    for name, module in toy.synthesis.named_modules():
        if name.endswith(".affine"):
            affine[name.removesuffix(".affine")] = module
    hooks = [
        module.register_forward_hook(lambda m, i, out, name=name: heard.__setitem__(name, out))
        for name, module in affine.items()
    ]
    expected = [["b4.conv1"], ["b4.torgb", "b8.conv0"], ["b8.conv1"], ["b8.torgb", "b16.conv0"], ["b16.conv1"]]
    expected += [["b16.torgb", "b32.conv0"], ["b32.conv1"], ["b32.torgb"]]
    ws = draws(1, 8, 16)
    try:
        with torch.no_grad():
            toy.synthesis(ws)
            before = dict(heard)
            for i, names in enumerate(expected):
                moved = ws.clone()
                moved[:, i] += 1
                toy.synthesis(moved)
                assert [name for name in affine if not torch.equal(heard[name], before[name])] == names
    finally:
        for hook in hooks:
            hook.remove()
    assert toy.cfg.num_ws == len(expected)


def test_truncation_draws_to_the_mean(toy):
    z = draws(3, 16)
    w, mean = toy.mapping(z), toy.mapping.w_avg
    for psi, expected in ((1, w), (0, mean.expand(3, -1)), (0.25, 0.75 * mean + 0.25 * w)):
        styles = toy.styles(z, psi)
        assert styles.shape == (3, 8, 16)
        torch.testing.assert_close(styles, expected[:, None].expand(-1, 8, -1))
    torch.testing.assert_close(toy(z, truncation=0.25), toy.synthesis(toy.styles(z, 0.25)))


def test_only_the_direction_of_z_matters(toy):
    z = draws(3, 16)
    torch.testing.assert_close(toy.mapping(5 * z), toy.mapping(z), rtol=1e-5, atol=1e-6)


def test_noise(toy):
    z = draws(2, 16)

    def paint(mode, seed=None):
        return toy(z, noise_mode=mode, generator=None if seed is None else torch.Generator().manual_seed(seed))

    torch.testing.assert_close(paint("const"), paint("const"), rtol=0, atol=0)
    torch.testing.assert_close(paint("random", 1), paint("random", 1), rtol=0, atol=0)
    assert not torch.allclose(paint("random", 1), paint("random", 2), atol=1e-2)
    assert not torch.allclose(paint("random", 1), paint("const"), atol=1e-2)
    twins = toy.synthesis(toy.styles(z[:1]).expand(2, -1, -1), "random", torch.Generator().manual_seed(0))
    assert not torch.allclose(twins[0], twins[1], atol=1e-2)  # each sample has its own

    quiet = StyleGAN2(toy.cfg)
    quiet.load_state_dict({n: v * (not n.endswith("noise_strength")) for n, v in toy.state_dict().items()})
    for mode in ("const", "random", "none"):
        torch.testing.assert_close(quiet(z, noise_mode=mode), paint("none"))
    with pytest.raises(ValueError, match="noise_mode is 'some'; expected one of const, random, none"):
        paint("some")


def test_estimating_the_mean_style():
    mapping = small().mapping
    mapping.estimate_average(4096, seed=3)
    first = mapping.w_avg.clone()
    with torch.no_grad():
        w = mapping(draws(50_000, 16, seed=9))
    error = w.std(0) * math.sqrt(1 / 4096 + 1 / 50_000)
    assert ((first - w.mean(0)).abs() < 4.5 * error).all()
    mapping.estimate_average(4096, seed=3)
    torch.testing.assert_close(mapping.w_avg, first, rtol=0, atol=0)
