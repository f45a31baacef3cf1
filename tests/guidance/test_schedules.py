import pytest
from latent_prior import OptionError
from latent_prior.guidance.schedules import named, scheduled, switched_on
from omegaconf import OmegaConf


@pytest.mark.parametrize(
    ("value", "at_0", "at_50", "at_200"),
    [(0.7, 0.7, 0.7, 0.7), ([1.0, 3.0, 100], 1.0, 2.0, 3.0), ([50, 4.0, 0.0, 100], 4.0, 4.0, 0.0)],
)
def test_values_at_moments(value, at_0, at_50, at_200):
    assert [scheduled("views", value, 0, step) for step in (0, 50, 200)] == [at_0, at_50, at_200]


@pytest.mark.parametrize(
    ("value", "at_0", "at_200"),
    [
        (True, True, True),
        (False, False, False),
        (0.5, True, True),
        (0, False, False),
        ([0.0, 1.0, 100], False, True),
        ([1.0, 0.0, 100], True, False),
    ],
)
def test_switches(value, at_0, at_200):
    assert [switched_on("use_text", value, 0, step) for step in (0, 200)] == [at_0, at_200]


@pytest.mark.parametrize("value", ["often", [1.0, 2.0], None])
def test_what_is_no_schedule_is_named(value):
    with pytest.raises(ValueError, match="use_text is .*a number or a schedule"):
        switched_on("use_text", value, 0, 0)


def test_names_change_at_their_steps():
    given = ["sds", 10, "csd", 30, "nfsd"]
    assert [named("score", given, step) for step in (0, 9, 10, 29, 30, 99)] == ["sds"] * 2 + ["csd"] * 2 + ["nfsd"] * 2
    assert named("score", "csd", 50) == "csd" and named("score", OmegaConf.create(given), 12) == "csd"
    for wrong in (["sds", 10], [10, "sds"], ["sds", "10", "csd"], ["sds", 10, "csd", 5, "nfsd"], [], 3, None):
        with pytest.raises(OptionError, match="score is .*expected a name, or names with the steps"):
            named("score", wrong, 0)
