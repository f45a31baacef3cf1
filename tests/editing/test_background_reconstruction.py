"""Background reconstruction against a step computed by hand, and by what it is for."""

import copy

import pytest
import torch
from latent_prior.editing.background_reconstruction import OUTSIDE_WEIGHT, reconstructed
from latent_prior.models.autoencoder import Autoencoder
from latent_prior.models.checkpoint import resolve
from latent_prior.models.loading import load_vae


@pytest.fixture
def case(pocket_like):
    torch.manual_seed(0)
    autoencoder = Autoencoder(load_vae(resolve(str(pocket_like)), torch.float32))
    original = torch.rand(1, 3, 16, 16)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    return autoencoder, autoencoder.encode(original).detach(), original, mask


def test_the_background_comes_back_and_the_weights_stay(case):
    autoencoder, latents, original, mask = case
    before = copy.deepcopy(autoencoder.vae.state_dict())
    decoded = autoencoder.decode(latents)
    fitted = reconstructed(autoencoder, latents, original, mask, steps=60, learning_rate=3e-3)
    outside = (1 - mask).expand_as(original) == 1
    error = [(p - original)[outside].square().mean() for p in (decoded, fitted)]
    assert error[1] < error[0] / 3
    for name, value in autoencoder.vae.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(parameter.requires_grad for parameter in autoencoder.vae.parameters())


def test_one_step_is_adams_on_the_published_loss(case):
    """Adam's first step moves every weight by the learning rate against its gradient's sign."""
    autoencoder, latents, original, mask = case
    vae = copy.deepcopy(autoencoder.vae)
    vae.decoder.requires_grad_(True)
    z = latents / autoencoder.scaling_factor
    edit = vae.decode(z).sample.detach()
    made = vae.decode(z).sample
    loss = 0
    for channel in range(3):
        for i in range(16):
            for j in range(16):
                inside = mask[0, 0, i, j]
                gap = made[0, channel, i, j] - edit[0, channel, i, j]
                off = made[0, channel, i, j] - (2 * original[0, channel, i, j] - 1)
                loss = loss + (inside * gap**2 + OUTSIDE_WEIGHT * (1 - inside) * off**2) / (3 * 16 * 16)
    loss.backward()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter -= 1e-4 * parameter.grad / (parameter.grad.abs() + 1e-8)
        expected = (vae.decode(z).sample / 2 + 0.5).clamp(0, 1)
    steps = []
    found = reconstructed(autoencoder, latents, original, mask, steps=1, on_step=lambda: steps.append(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    assert (found - autoencoder.decode(latents)).abs().max() > 1e-3  # the step can be told from none
    assert len(steps) == 1


def test_no_steps_leave_the_picture_as_it_decodes(case):
    autoencoder, latents, original, mask = case
    torch.testing.assert_close(
        reconstructed(autoencoder, latents, original, mask, steps=0), autoencoder.decode(latents)
    )
