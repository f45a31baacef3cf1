import pytest
import torch
from latent_prior.prior import WEIGHTINGS, weighting


def test_weights_by_hand(schedule):
    t = torch.tensor([0, 250, 999])
    for b, a in enumerate(schedule.alphas_cumprod[t].tolist()):
        expected = {"sds": 1 - a, "uniform": 1.0, "fantasia3d": a**0.5 * (1 - a)}
        expected["sigma_over_alpha"] = ((1 - a) / a) ** 0.5
        assert set(expected) == set(WEIGHTINGS)
        for name, value in expected.items():
            w = weighting(name, schedule, t)
            assert w.shape == (3, 1, 1, 1)
            assert float(w[b]) == pytest.approx(value, rel=1e-12)


def test_unknown_weighting_lists_choices_and_key(schedule):
    names = "fantasia3d, sds, sigma_over_alpha, uniform"
    message = rf"weighting_strategy is 'sd'; expected one of {names} \(did you mean 'sds'\?\)"
    with pytest.raises(ValueError, match=message):
        weighting("sd", schedule, torch.tensor([1]))
