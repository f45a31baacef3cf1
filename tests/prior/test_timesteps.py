import math

import pytest
import torch
from latent_prior.prior import (
    ANNEALINGS,
    DiffusionSchedule,
    annealed_bounds,
    dreamtime_timestep,
    dreamtime_weight,
    sample_timesteps,
    timestep_range,
)


def test_both_ends_are_drawn_evenly():
    t = sample_timesteps(6000, 3, 8, torch.Generator().manual_seed(0))
    counts = torch.bincount(t, minlength=9)
    assert counts[:3].sum() == 0
    # 1000 expected of each of six; 5 standard deviations of the binomial are 144
    assert ((counts[3:] - 1000).abs() < 144).all()


def test_same_generator_same_timesteps_and_the_global_one_is_left_alone():
    state = torch.get_rng_state()
    first = sample_timesteps(16, 20, 980, torch.Generator().manual_seed(7))
    assert torch.equal(first, sample_timesteps(16, 20, 980, torch.Generator().manual_seed(7), "cpu"))
    assert not torch.equal(first, sample_timesteps(16, 20, 980, torch.Generator().manual_seed(8)))
    assert torch.equal(state, torch.get_rng_state())


def test_without_a_generator_the_draw_is_threestudios():
    torch.manual_seed(5)
    ours = sample_timesteps(4, 20, 980)
    torch.manual_seed(5)
    assert torch.equal(ours, torch.randint(20, 980 + 1, [4], dtype=torch.long))


@pytest.mark.parametrize(("t_min", "t_max"), [(5, 4), (-1, 4)])
def test_empty_range_is_refused(t_min, t_max):
    with pytest.raises(ValueError, match="empty range"):
        sample_timesteps(1, t_min, t_max)


def test_range_from_percentages():
    assert timestep_range(1000, 0.02, 0.98) == (20, 980)
    assert timestep_range(1000, 0.0, 1.0) == (0, 999)  # T itself is no timestep
    assert timestep_range(50, 0.03, 0.03) == (1, 1)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.2), (-0.1, 0.5), (0.1, 1.1), (float("nan"), 0.5)])
def test_impossible_percentages_are_refused(low, high):
    with pytest.raises(ValueError, match="max_step_percent is .*min_step_percent"):
        timestep_range(1000, low, high)


def test_no_annealing_keeps_the_bounds():
    assert {annealed_bounds("none", p, 20, 980) for p in (0.0, 0.5, 1.0)} == {(20, 980)}


def test_linear_annealing_lowers_the_upper_bound():
    assert [annealed_bounds("linear", p, 20, 980, t_end=500) for p in (0.0, 0.25, 1.0)] == [
        (20, 980),
        (20, 860),
        (20, 500),
    ]
    assert annealed_bounds("linear", 1.0, 20, 980) == (20, 20)


@pytest.mark.parametrize("progress", [0.0, 0.01, 0.25, 0.5, 1.0])
def test_sqrt_annealing_is_hifas(progress):
    t = 980 - 960 * math.sqrt(progress)
    low, high = annealed_bounds("sqrt", progress, 20, 980)
    assert low == high and abs(low - t) <= 0.5


def test_dreamtime_weight_by_hand(schedule):
    weight = dreamtime_weight(schedule, centre=600.0, width=150.0)
    for t in (0, 400, 600, 999):
        a = float(schedule.alphas_cumprod[t])
        expected = math.sqrt((1 - a) / a) * math.exp(-((t - 600) ** 2) / (2 * 150**2))
        assert float(weight[t]) == pytest.approx(expected, rel=1e-12)
    assert torch.equal(dreamtime_weight(schedule), dreamtime_weight(schedule, 500.0, 125.0))


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_dreamtime_timestep_against_search(schedule, progress):
    """Every t' is tried, and the weight above it summed afresh."""
    t_min, t_max = 20, 980
    weight = dreamtime_weight(schedule).tolist()
    total = sum(weight[t_min : t_max + 1])
    misses = {t: abs(sum(weight[t : t_max + 1]) / total - progress) for t in range(t_min, t_max + 1)}
    assert dreamtime_timestep(progress, t_min, t_max, schedule) == min(misses, key=misses.get)


def test_dreamtime_dwells_in_the_middle(schedule):
    t = [dreamtime_timestep(i / 100, 20, 980, schedule) for i in range(101)]
    assert t == sorted(t, reverse=True)
    assert (t[0], t[-1]) == (980, 20)
    middle = sum(375 <= x <= 875 for x in t)
    assert middle > 80  # against 52 of 101 if it fell evenly
    assert annealed_bounds("dreamtime", 0.3, 20, 980, schedule=schedule) == (t[30], t[30])


@pytest.mark.parametrize("annealing", sorted(ANNEALINGS))
def test_every_annealing_stays_in_range_and_never_rises(schedule, annealing):
    bounds = [annealed_bounds(annealing, i / 50, 30, 700, schedule=schedule) for i in range(51)]
    highs = [high for _, high in bounds]
    assert highs == sorted(highs, reverse=True) and highs[0] == 700
    assert all(30 <= low <= high for low, high in bounds)


def test_bad_annealing_is_named(schedule):
    with pytest.raises(ValueError, match=r"timestep_annealing is 'lin'.*linear"):
        annealed_bounds("lin", 0.0, 20, 980)
    with pytest.raises(ValueError, match="progress is"):
        annealed_bounds("linear", 1.01, 20, 980)
    with pytest.raises(ValueError, match="anneal_end_percent"):
        annealed_bounds("linear", 0.5, 20, 980, t_end=10)
    with pytest.raises(ValueError, match="noise schedule"):
        annealed_bounds("dreamtime", 0.5, 20, 980)


def test_dreamtime_moves_on_where_the_last_timestep_has_no_signal(schedule):
    """Its weight would be infinite there; every other timestep's share is that of the schedule without it."""
    table = schedule.alphas_cumprod.clone()
    table[-1] = 0.0
    t = [dreamtime_timestep(progress / 10, 20, 999, DiffusionSchedule(table)) for progress in range(11)]
    assert (t[0], t[-1]) == (999, 20) and all(a > b for a, b in zip(t, t[1:], strict=False))
    assert t == pytest.approx([dreamtime_timestep(p / 10, 20, 999, schedule) for p in range(11)], abs=1)


def test_logit_normal_timesteps_are_of_their_distribution():
    t = sample_timesteps(20_000, 100, 299, torch.Generator().manual_seed(0), sampling="logit_normal")
    assert t.min() >= 100 and t.max() <= 299
    normal = torch.distributions.Normal(0.0, 1.0)
    for share in (0.1, 0.3, 0.5, 0.8):
        expected = normal.cdf(torch.tensor(share).logit()).item()
        # the standard deviation of such a share is at most 0.0035
        assert (t < 100 + 200 * share).float().mean().item() == pytest.approx(expected, abs=0.015)


def test_an_unknown_sampling_is_named():
    with pytest.raises(ValueError, match="timestep_sampling is 'normal'; expected one of logit_normal, uniform"):
        sample_timesteps(1, 0, 9, sampling="normal")
