import pytest
import torch
from latent_prior.models.checkpoint import resolve
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.loading import load_scheduler
from latent_prior.prior import x0_from_eps
from torch.testing import assert_close


@pytest.fixture
def denoiser(folder):
    return Denoiser.from_checkpoint(resolve(str(folder)), torch.device("cpu"), torch.float32)


def test_clean_estimate_agrees_with_diffusers(denoiser, folder, geometry):
    scheduler = load_scheduler(resolve(str(folder)))
    scheduler.set_timesteps(1000)
    z_t = torch.randn(3, 4, geometry.latent_size, geometry.latent_size)
    condition = torch.randn(3, geometry.max_length, geometry.text_width)
    t = torch.tensor([5, 400, 950])
    with torch.no_grad():
        eps, x0 = denoiser(z_t, t, condition)
        output = denoiser.module(z_t, t, encoder_hidden_states=condition).sample
    implied = x0_from_eps(z_t, eps, denoiser.schedule.alpha(t), denoiser.schedule.sigma(t))
    for row, step in enumerate(t):
        expected = scheduler.step(output[row : row + 1], int(step), z_t[row : row + 1]).pred_original_sample
        assert_close(x0[row : row + 1], expected, rtol=1e-4, atol=1e-4)
        assert_close(implied[row : row + 1], expected, rtol=1e-4, atol=1e-4)  # divided by alpha = 0.08 at t = 950


def test_sizes_come_from_the_checkpoint(denoiser, geometry):
    assert denoiser.sample_size == (geometry.latent_size, geometry.latent_size)
    assert denoiser.condition_width == geometry.text_width
    assert denoiser.schedule.num_timesteps == 1000


def test_rows_are_independent(denoiser, geometry):
    z_t = torch.randn(2, 4, geometry.latent_size, geometry.latent_size)
    condition = torch.randn(2, geometry.max_length, geometry.text_width)
    t = torch.tensor([100, 700])
    with torch.no_grad():
        both, _ = denoiser(z_t, t, condition)
        for row in range(2):
            alone, _ = denoiser(z_t[[row]], t[[row]], condition[[row]])
            assert_close(both[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_unknown_prediction_type(denoiser):
    with pytest.raises(ValueError, match="'flow'.*v_prediction"):
        Denoiser(denoiser.network, denoiser.schedule, "flow")


def test_weights_are_frozen(denoiser):
    assert not denoiser.module.training
    assert not any(parameter.requires_grad for parameter in denoiser.module.parameters())
