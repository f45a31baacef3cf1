"""C() against a slow reading of the schedule as a list of corner points."""

import math

import pytest
from latent_prior.host.embedded.scalars import C, C_max, knots
from omegaconf import OmegaConf


def slow_piecewise(schedule, step):
    """Corner points (step, value), then linear interpolation between the two around `step`."""
    start, v0, *rest = schedule
    corners = [(start, v0)] + [(rest[i + 1], rest[i]) for i in range(0, len(rest), 2)]
    if step <= corners[0][0]:
        return corners[0][1]
    for (s0, a), (s1, b) in zip(corners, corners[1:], strict=False):
        if s0 <= step < s1:
            return a + (b - a) * (step - s0) / (s1 - s0)
    return corners[-1][1]


@pytest.mark.parametrize(
    "schedule",
    [[0, 1.0, 5.0, 100], [10, 3.0, -2.0, 60], [5, 0.0, 1.0, 20, 4.0, 40], [0, 9.0, 1.0, 10, 1.0, 50, 7.0, 51, 2.0, 90]],
)
def test_schedule_follows_its_corner_points(schedule):
    for step in range(0, 120):
        assert C(schedule, 0, step) == pytest.approx(slow_piecewise(schedule, step), abs=1e-12)


def test_three_numbers_start_at_zero_and_lists_may_come_from_omegaconf():
    value = OmegaConf.create({"x": [2.0, 4.0, 10]}).x
    assert [C(value, 0, step) for step in (0, 5, 10, 99)] == [2.0, 3.0, 4.0, 4.0]


def test_int_end_counts_steps_and_float_end_counts_epochs():
    assert C([0, 0.0, 1.0, 10], epoch=0, global_step=5) == 0.5
    assert C([0, 0.0, 1.0, 10.0], epoch=5, global_step=0) == 0.5
    assert C([0, 0.0, 1.0, 10.0], epoch=0, global_step=1000) == 0.0


def test_scalars_pass_through_and_exponential_is_linear_in_the_logarithm():
    assert C(3, 0, 0) == 3 and C(0.5, 9, 9) == 0.5
    assert C([0, 1e-4, 1e-2, 10], 0, 5, interpolation="exp") == pytest.approx(math.sqrt(1e-4 * 1e-2))


def test_jump_needs_no_ramp():
    assert [C([10, 1.0, 2.0, 10], 0, step) for step in (9, 10, 11)] == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], [0, 1.0, 2.0, 10, 3.0], "0.1", None, [0, "a", 1.0, 5], [0, True, 1.0, 5]]
)
def test_malformed_schedules_are_refused(value):
    with pytest.raises(ValueError, match="scheduled scalar"):
        C(value, 0, 0)


def test_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="linear"):
        C([0, 1.0, 2.0, 3], 0, 0, interpolation="cubic")


@pytest.mark.parametrize("schedule", [[1.0, 5.0, 10], [0, 7.0, 1.0, 10], [0, 1.0, 2.0, 10, 9.0, 20, 0.0, 30], 4, 2.5])
def test_c_max_is_the_maximum_over_all_steps(schedule):
    assert C_max(schedule) == max(C(schedule, 0, step) for step in range(0, 50))


@pytest.mark.parametrize("refused", [[0.1, 0.2], [0.1], "0.1", [0, 1.0, 2.0, 10, 3.0]])
def test_what_c_refuses_the_others_refuse(refused):
    for read in (C_max, lambda value: list(knots([0.5, value]))):
        with pytest.raises(ValueError, match="scheduled scalar"):
            read(refused)


@pytest.mark.parametrize(
    "schedules",
    [
        [[0, 1.0, 5.0, 20], [5, 3.0, -2.0, 12, 4.0, 30]],
        [[0, 0.0, 1.0, 10, 8.0, 10, 2.0, 20], 3.0],  # a jump
        [[0, 1.0, 5.0, 4.0, 0.0, 8.0], [1.0, 2.0, 2.5]],  # in epochs; the piece is chosen by the step
        [[0, 1.0, 5.0, 7, 0.0, 8.0], [2.0, -1.0, 6]],  # both
    ],
)
def test_extremes_of_sums_and_differences_are_at_knots(schedules):
    """Over every pair of an epoch and a step."""

    def extremes(moments, signs):
        values = [
            sum(sign * C(value, *moment) for sign, value in zip(signs, schedules, strict=True)) for moment in moments
        ]
        return min(values), max(values)

    everywhere = [(epoch, step) for epoch in range(40) for step in range(40)]
    for signs in ((1, 0), (0, 1), (1, -1), (1, 1)):
        assert extremes(list(knots(schedules)), signs) == pytest.approx(extremes(everywhere, signs), abs=1e-12)
