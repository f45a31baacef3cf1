import pytest
import torch
from latent_prior.models.autoencoder import Autoencoder
from latent_prior.models.checkpoint import resolve
from torch.testing import assert_close

CPU = torch.device("cpu")


@pytest.fixture
def autoencoder(folder):
    return Autoencoder.from_checkpoint(resolve(str(folder)), CPU, torch.float32)


@pytest.fixture
def images(geometry):
    return torch.rand(2, 3, geometry.image_size, geometry.image_size, generator=torch.Generator().manual_seed(0))


def scaled(autoencoder, posterior):
    return posterior * autoencoder.vae.config.scaling_factor


def test_sizes_come_from_the_checkpoint(autoencoder, geometry):
    assert autoencoder.downscale == geometry.downscale
    assert autoencoder.latent_channels == 4
    assert autoencoder.layer_names == ("mid", *(f"up_{i}" for i in range(len(geometry.vae_channels))))
    assert autoencoder.default_layers == autoencoder.layer_names[1:4]


def test_encode_is_the_mode(autoencoder, images, geometry):
    v = autoencoder.encode(images)
    assert v.shape == (2, 4, geometry.latent_size, geometry.latent_size)
    assert_close(v, scaled(autoencoder, autoencoder.vae.encode(images * 2 - 1).latent_dist.mode()))


def test_encode_is_differentiable(autoencoder, images):
    images = images.requires_grad_()
    weight = torch.randn_like(autoencoder.encode(images))
    (found,) = torch.autograd.grad((autoencoder.encode(images) * weight).sum(), images)
    mode = scaled(autoencoder, autoencoder.vae.encode(images * 2 - 1).latent_dist.mode())
    (expected,) = torch.autograd.grad((mode * weight).sum(), images)
    assert found.norm() > 0
    assert_close(found, expected)


def test_encode_sample_draws_from_the_generator(autoencoder, images):
    first = autoencoder.encode(images, sample=True, generator=torch.Generator().manual_seed(3))
    again = autoencoder.encode(images, sample=True, generator=torch.Generator().manual_seed(3))
    other = autoencoder.encode(images, sample=True, generator=torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    posterior = autoencoder.vae.encode(images * 2 - 1).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(3))
    assert_close(first, scaled(autoencoder, posterior.mean + posterior.std * noise))


def test_decode_undoes_the_scaling_and_clamps(autoencoder, geometry):
    v = 3 * torch.randn(2, 4, geometry.latent_size, geometry.latent_size)
    expected = autoencoder.vae.decode(v / autoencoder.vae.config.scaling_factor).sample / 2 + 0.5
    assert_close(autoencoder.decode(v), expected.clamp(0, 1))


def test_shift_factor_is_honoured(autoencoder, images):
    before = autoencoder.encode(images)
    decoded = autoencoder.decode(before)
    autoencoder.shift_factor = 0.5
    assert_close(autoencoder.encode(images), before - 0.5 * autoencoder.scaling_factor)
    assert_close(autoencoder.decode(autoencoder.encode(images)), decoded)


@pytest.mark.parametrize("offset", [1, 2])
def test_size_that_the_encoder_cannot_take(autoencoder, geometry, offset):
    size = geometry.image_size + offset
    if size % geometry.downscale == 0:
        autoencoder.encode(torch.rand(1, 3, size, size))
        return
    with pytest.raises(ValueError, match=rf"multiples of {geometry.downscale}.*data\.height"):
        autoencoder.encode(torch.rand(1, 3, geometry.image_size, size))


def outputs_of_a_full_decode(autoencoder, v):
    """Every named layer's output and the calls made, by hooks on the decoder's blocks."""
    decoder, found = autoencoder.vae.decoder, {}
    hooks = [
        block.register_forward_hook(lambda _, __, output, name=name: found.__setitem__(name, output))
        for name, block in zip(autoencoder.layer_names, [decoder.mid_block, *decoder.up_blocks], strict=True)
    ]
    autoencoder.decode(v)
    for hook in hooks:
        hook.remove()
    return found


def test_features_are_the_decoders_own(autoencoder, geometry):
    v = torch.randn(2, 4, geometry.latent_size, geometry.latent_size)
    expected = outputs_of_a_full_decode(autoencoder, v)
    for name, feature in zip(autoencoder.layer_names, autoencoder.features(v, autoencoder.layer_names), strict=True):
        assert_close(feature, expected[name])
    defaults = autoencoder.features(v)
    assert len(defaults) == len(autoencoder.default_layers)
    assert_close(defaults[0], expected["up_0"])


def test_features_come_in_the_order_asked_for(autoencoder, geometry):
    v = torch.randn(1, 4, geometry.latent_size, geometry.latent_size)
    deep, shallow = autoencoder.features(v, ["up_1", "mid"])
    again_shallow, again_deep = autoencoder.features(v, ["mid", "up_1"])
    assert_close(deep, again_deep)
    assert_close(shallow, again_shallow)


def test_features_stop_after_the_deepest_layer(autoencoder, geometry):
    v = torch.randn(1, 4, geometry.latent_size, geometry.latent_size)
    blocks = [autoencoder.vae.decoder.mid_block, *autoencoder.vae.decoder.up_blocks, autoencoder.vae.decoder.conv_out]
    for deepest, name in enumerate(autoencoder.layer_names):
        ran = []
        hooks = [block.register_forward_hook(lambda *_, i=i, ran=ran: ran.append(i)) for i, block in enumerate(blocks)]
        autoencoder.features(v, [name, "mid"])
        for hook in hooks:
            hook.remove()
        assert ran == list(range(deepest + 1))


@pytest.mark.parametrize("layers", [["up_9"], ["conv_in"], ["mid", "Up_0"], []])
def test_unknown_layers(autoencoder, layers):
    with pytest.raises(ValueError, match="fm_layers.*mid, up_0, up_1"):
        autoencoder.features(torch.zeros(1, 4, 8, 8), layers)


@pytest.mark.slow
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("power", [-24, -12, 20])
def test_half_precision_passes_gradients_of_any_size(autoencoder, images, sample, power):
    """2^-24 and less is zero in float16, and 2^16 infinite; scaled by a power of two, nothing is lost at all."""
    autoencoder.vae.half()
    v = autoencoder.encode(images.requires_grad_(), sample=sample, generator=torch.Generator().manual_seed(3))
    assert v.dtype == torch.float32
    weight = torch.randn(v.shape, generator=torch.Generator().manual_seed(4))
    plain, scaled = (
        torch.autograd.grad((v * w).sum(), images, retain_graph=True)[0] for w in (weight, weight * 2.0**power)
    )
    assert plain.norm() > 0
    assert torch.equal(scaled, plain * 2.0**power)
    assert torch.autograd.grad(v.sum() * 0, images)[0].count_nonzero() == 0


def test_pictures_of_another_precision_than_the_weights(autoencoder, images):
    assert_close(autoencoder.encode(images.double()), autoencoder.encode(images))
    assert autoencoder.encode(images.half()).dtype == torch.float32


@pytest.mark.parametrize("power", [-24, -12, 20])
def test_half_precision_passes_the_gradients_of_features(autoencoder, geometry, power):
    """As of pictures: the gradient of a map's mean is below float16's least number, and comes through to the last bit."""
    autoencoder.vae.half()
    v = torch.randn(1, 4, geometry.latent_size, geometry.latent_size, generator=torch.Generator().manual_seed(3))
    v.requires_grad_()
    maps = autoencoder.features(v, ["up_0", "mid"])
    assert all(feature.dtype == torch.float32 for feature in maps)
    weights = [torch.randn(feature.shape, generator=torch.Generator().manual_seed(4)) for feature in maps]
    plain, scaled = (
        torch.autograd.grad(sum((f * w * s).sum() for f, w in zip(maps, weights, strict=True)), v, retain_graph=True)[0]
        for s in (1.0, 2.0**power)
    )
    assert plain.norm() > 0
    assert torch.equal(scaled, plain * 2.0**power)
