import pytest
import torch
from latent_prior.prior import WEIGHTINGS, FlowSchedule, eps_from_model, weighting


def test_weights_by_hand(schedule):
    t = torch.tensor([0, 250, 999])
    for b, a in enumerate(schedule.alphas_cumprod[t].tolist()):
        expected = {"sds": 1 - a, "uniform": 1.0, "fantasia3d": a**0.5 * (1 - a)}
        expected["sigma_over_alpha"] = ((1 - a) / a) ** 0.5
        expected["velocity"] = 1 + ((1 - a) / a) ** 0.5
        assert set(expected) == set(WEIGHTINGS)
        for name, value in expected.items():
            w = weighting(name, schedule, t)
            assert w.shape == (3, 1, 1, 1)
            assert float(w[b]) == pytest.approx(value, rel=1e-12)


def test_the_residual_of_a_flows_velocity_is_the_noise_residual_by_its_weight(randn):
    """u_hat - (eps - v) = w (eps_hat - eps), whatever the shift (Yang et al. 2025)."""
    t, v, eps, output = torch.tensor([20, 500, 990]), randn(3, 4, 2, 2), randn(3, 4, 2, 2), randn(3, 4, 2, 2)
    for shift in (1.0, 3.0):
        schedule = FlowSchedule(shift, dtype=torch.float64)
        z_t = schedule.add_noise(v, eps, t)
        eps_hat = eps_from_model(output, z_t, schedule.alpha(t), schedule.sigma(t), "flow_prediction")
        torch.testing.assert_close(weighting("velocity", schedule, t) * (eps_hat - eps), output - (eps - v))


def test_unknown_weighting_lists_choices_and_key(schedule):
    names = "fantasia3d, sds, sigma_over_alpha, uniform, velocity"
    message = rf"weighting_strategy is 'sd'; expected one of {names} \(did you mean 'sds'\?\)"
    with pytest.raises(ValueError, match=message):
        weighting("sd", schedule, torch.tensor([1]))
