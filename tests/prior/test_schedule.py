import pytest
import torch
from latent_prior.prior import DiffusionSchedule, FlowSchedule, draw_noise


def test_scaled_linear_equals_diffusers_to_the_last_bit():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    ours = DiffusionSchedule.scaled_linear(0.00085, 0.012, 1000)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)


def test_from_betas_is_the_running_product():
    betas = torch.linspace(0.01, 0.2, 7, dtype=torch.float64)
    product, expected = 1.0, []
    for beta in betas.tolist():
        product *= 1.0 - beta
        expected.append(product)
    torch.testing.assert_close(
        DiffusionSchedule.from_betas(betas).alphas_cumprod, torch.tensor(expected, dtype=torch.float64)
    )


def test_alpha_and_sigma_preserve_variance_and_broadcast(schedule):
    t = torch.tensor([0, 500, 999])
    assert schedule.alpha(t).shape == schedule.sigma(t).shape == (3, 1, 1, 1)
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(schedule.alpha(t)))
    torch.testing.assert_close(schedule.alpha_bar(t).flatten(), schedule.alphas_cumprod[t])


def test_add_noise_sample_by_sample(schedule, randn):
    v, eps, t = randn(3, 4, 2, 2), randn(3, 4, 2, 2), torch.tensor([3, 400, 990])
    for b in range(3):
        alpha_bar = float(schedule.alphas_cumprod[t[b]])
        expected = alpha_bar**0.5 * v[b] + (1 - alpha_bar) ** 0.5 * eps[b]
        torch.testing.assert_close(schedule.add_noise(v, eps, t)[b], expected)


def test_add_noise_keeps_the_latents_precision(schedule):
    v = torch.zeros(2, 4, 2, 2)
    assert schedule.add_noise(v, v, torch.tensor([1, 2])).dtype == torch.float32


def test_to_changes_precision_only(schedule):
    single = schedule.to(dtype=torch.float32)
    assert single.num_timesteps == schedule.num_timesteps == 1000
    assert single.alphas_cumprod.dtype == torch.float32
    torch.testing.assert_close(single.alphas_cumprod.double(), schedule.alphas_cumprod)


@pytest.mark.parametrize("table", [[0.5, 0.9], [1.2, 0.5], [0.5, -0.1], [0.9, float("nan")], []])
def test_impossible_tables_are_refused(table):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        DiffusionSchedule(torch.tensor(table))


def test_a_table_of_two_axes_is_refused():
    with pytest.raises((ValueError, TypeError)):  # TypeError from jaxtyping, where its run-time check is on
        DiffusionSchedule(torch.tensor([[0.9, 0.5]]))


def test_noise_is_the_generators():
    v = torch.zeros(2, 4, 8, 8)
    first = draw_noise(v, torch.Generator().manual_seed(3))
    assert torch.equal(first, draw_noise(v, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, draw_noise(v, torch.Generator().manual_seed(4)))
    # The global generator is left alone by a draw from another, and used when there is none.
    state = torch.get_rng_state()
    draw_noise(v, torch.Generator().manual_seed(3))
    assert torch.equal(state, torch.get_rng_state())
    unseeded = draw_noise(v)
    torch.set_rng_state(state)
    assert torch.equal(unseeded, torch.randn_like(v))


# Flows. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flows_levels_are_the_schedulers(shift):
    scheduler = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule, t = FlowSchedule(shift), torch.arange(1000)
    torch.testing.assert_close(schedule.sigma(t).flatten(), scheduler.sigmas.flip(0))
    torch.testing.assert_close(schedule.network_time(t), scheduler.timesteps.flip(0), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(schedule.alpha(t) + schedule.sigma(t), torch.ones(1000, 1, 1, 1))
    assert schedule.sigma(t[-1:]) == 1 and schedule.alpha_bar(t[-1:]) == 0


def test_a_flows_timesteps_are_continuous():
    schedule = FlowSchedule(3.0, dtype=torch.float64)
    s = torch.tensor([0.1, 0.25, 0.9], dtype=torch.float64)
    expected = torch.stack([3 * x / (1 + 2 * x) for x in s])
    torch.testing.assert_close(schedule.sigma(s * 1000 - 1).flatten(), expected)


def test_alpha_bar_compares_levels_of_all_schedules(randn):
    """A flow's noised latent, divided by its scale, is that of a variance-preserving process at the same alpha_bar."""
    flow, v, eps = FlowSchedule(dtype=torch.float64), randn(1, 4, 2, 2), randn(1, 4, 2, 2)
    t = torch.tensor([300])
    table = DiffusionSchedule(flow.alpha_bar(t).flatten())
    scale = (flow.alpha(t) ** 2 + flow.sigma(t) ** 2).sqrt()
    torch.testing.assert_close(flow.add_noise(v, eps, t) / scale, table.add_noise(v, eps, torch.tensor([0])))


def test_the_nearest_timestep(schedule):
    assert [schedule.nearest(float(schedule.alphas_cumprod[t])) for t in (0, 400, 999)] == [0, 400, 999]
    assert FlowSchedule().nearest(0.5) == 499  # as much noise as signal


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_shifts_are_refused(shift):
    with pytest.raises(ValueError, match="shift of a flow"):
        FlowSchedule(shift)
