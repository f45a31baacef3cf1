import pytest
import torch
from diffusers import DDIMScheduler
from latent_prior.models.sampling import ddim
from latent_prior.prior import DiffusionSchedule, x0_from_eps
from torch.testing import assert_close

SCHEDULE = DiffusionSchedule.scaled_linear(0.00085, 0.012, 1000)


def test_steps_agree_with_diffusers():
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    scheduler.set_timesteps(10)
    z_t, eps = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    expected, seen = z_t, []
    for t in (700, 600):
        expected = scheduler.step(eps, t, expected, eta=0.0).prev_sample

    def denoise(z, now):
        seen.append(z)
        return eps, x0_from_eps(z, eps, SCHEDULE.alpha(now), SCHEDULE.sigma(now))

    ddim(denoise, SCHEDULE, z_t, torch.full((2,), 700), 7)
    assert_close(seen[2], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 17])
def test_a_point_mass_is_reached_from_anywhere(steps):
    """Where all data is one latent, the exact prediction leads there in any number of steps, from any timesteps."""
    truth = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    schedule = DiffusionSchedule(SCHEDULE.alphas_cumprod.double())
    t = torch.tensor([0, 1, 300, 999])
    z_t = schedule.add_noise(truth.expand(4, -1, -1, -1), torch.randn(4, 4, 2, 2, dtype=torch.float64), t)
    seen = []

    def denoise(z, now):
        seen.append(now)
        return (z - schedule.alpha(now) * truth) / schedule.sigma(now), truth.expand_as(z)

    assert_close(ddim(denoise, schedule, z_t, t, steps), truth.expand(4, -1, -1, -1))
    assert len(seen) == steps
    assert torch.equal(seen[0], t)


def test_no_steps():
    with pytest.raises(ValueError, match="steps is 0"):
        ddim(lambda z, t: (z, z), SCHEDULE, torch.zeros(1, 4, 2, 2), torch.tensor([5]), 0)
