import pytest
import torch
from latent_prior.prior import (
    PREDICTION_TYPES,
    DiffusionSchedule,
    FlowSchedule,
    eps_from_model,
    eps_from_x0,
    x0_from_eps,
    x0_from_model,
)


def noised_by(schedule, randn):
    """z_t with the clean latent and the noise it was made of."""
    t = torch.tensor([5, 300, 980])
    v, eps = randn(3, 4, 2, 3), randn(3, 4, 2, 3)
    return schedule.add_noise(v, eps, t), v, eps, schedule.alpha(t), schedule.sigma(t)


@pytest.fixture
def noised(schedule, randn):
    return noised_by(schedule, randn)


def test_a_perfect_model_of_each_type_gives_noise_and_clean_latent(noised):
    z_t, v, eps, alpha, sigma = noised
    outputs = {"epsilon": eps, "v_prediction": alpha * eps - sigma * v, "sample": v}
    assert {*outputs, "flow_prediction"} == set(PREDICTION_TYPES)
    for kind, output in outputs.items():
        torch.testing.assert_close(eps_from_model(output, z_t, alpha, sigma, kind), eps)
        torch.testing.assert_close(x0_from_model(output, z_t, alpha, sigma, kind), v)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_perfect_flow_model_gives_noise_and_clean_latent(randn, shift):
    z_t, v, eps, alpha, sigma = noised_by(FlowSchedule(shift, dtype=torch.float64), randn)
    for kind, output in {"flow_prediction": eps - v, "epsilon": eps, "sample": v}.items():
        torch.testing.assert_close(eps_from_model(output, z_t, alpha, sigma, kind), eps)
        torch.testing.assert_close(x0_from_model(output, z_t, alpha, sigma, kind), v)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_any_prediction_stands_for_one_noise_and_one_clean_latent(schedule, randn, kind):
    of_flow = FlowSchedule(3.0, dtype=torch.float64)
    z_t, _, _, alpha, sigma = noised_by(of_flow if kind == "flow_prediction" else schedule, randn)
    output = randn(*z_t.shape)
    eps, x0 = (convert(output, z_t, alpha, sigma, kind) for convert in (eps_from_model, x0_from_model))
    torch.testing.assert_close(alpha * x0 + sigma * eps, z_t)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_at_zero_terminal_snr_both_estimates_are_those_of_the_closed_form(randn, kind):
    """alpha = 0: z_t is the noise, the velocity is -x0, and the noise says nothing of x0."""
    schedule = DiffusionSchedule(torch.tensor([0.9, 0.0], dtype=torch.float64))
    t, x0, eps = torch.tensor([1]), randn(1, 4, 2, 3), randn(1, 4, 2, 3)
    known = (schedule.add_noise(x0, eps, t), schedule.alpha(t), schedule.sigma(t), kind)
    output = -x0 if kind == "v_prediction" else x0
    torch.testing.assert_close(eps_from_model(output, *known), eps, rtol=0, atol=0)
    torch.testing.assert_close(x0_from_model(output, *known), x0, rtol=0, atol=0)


def test_x0_and_eps_are_each_others_inverse(noised):
    z_t, v, eps, alpha, sigma = noised
    torch.testing.assert_close(x0_from_eps(z_t, eps, alpha, sigma), v)
    torch.testing.assert_close(eps_from_x0(z_t, v, alpha, sigma), eps)


def test_matches_diffusers_for_velocity(noised):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction"
    )
    z_t, v, eps, alpha, sigma = noised
    theirs = scheduler.get_velocity(v, eps, torch.tensor([5, 300, 980]))
    # float64 table made from the same float32 one: measured difference 6e-8
    torch.testing.assert_close(eps_from_model(theirs, z_t, alpha, sigma, "v_prediction"), eps, atol=1e-6, rtol=0)


@pytest.mark.parametrize("convert", [eps_from_model, x0_from_model])
def test_unknown_type_is_named(noised, convert):
    z_t, _, eps, alpha, sigma = noised
    with pytest.raises(
        ValueError, match=r"prediction_type.*'velocity'.*epsilon, flow_prediction, sample, v_prediction"
    ):
        convert(eps, z_t, alpha, sigma, "velocity")
