import pytest
import torch
from latent_prior.prior import (
    classifier_free_guidance,
    perp_neg,
    perpendicular_component,
    rescale_guidance,
)
from reference import guidance as reference

SHAPE = (2, 4, 3, 2)


def test_scale_is_the_standard_one(randn):
    cond, uncond = randn(*SHAPE), randn(*SHAPE)
    torch.testing.assert_close(classifier_free_guidance(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(classifier_free_guidance(cond, uncond, 1.0), cond)
    # threestudio's plain branch at 100 is ours at 101.
    torch.testing.assert_close(classifier_free_guidance(cond, uncond, 101.0), cond + 100.0 * (cond - uncond))


def test_perpendicular_component_is_perpendicular_and_completes_x(randn):
    x, y = randn(*SHAPE), randn(*SHAPE)
    across = perpendicular_component(x, y)
    torch.testing.assert_close((across * y).sum(dim=(1, 2, 3)), torch.zeros(2, dtype=torch.float64))
    along = x - across
    torch.testing.assert_close(perpendicular_component(along, y), torch.zeros_like(x))


def test_perpendicular_to_nothing_is_everything(randn):
    x = randn(*SHAPE)
    assert torch.equal(perpendicular_component(x, torch.zeros_like(x)), x)


@pytest.mark.parametrize("negatives", [1, 2, 3])
def test_perp_neg_against_the_loop(randn, negatives):
    pos, uncond, negs, weights = randn(*SHAPE), randn(*SHAPE), randn(2, negatives, *SHAPE[1:]), -randn(2, negatives)
    ours = perp_neg(pos, uncond, negs, weights, 7.5)
    torch.testing.assert_close(ours, reference.perp_neg(pos, uncond, negs, weights, 7.5))


def test_perp_neg_without_weight_is_classifier_free_guidance(randn):
    pos, uncond, negs = randn(*SHAPE), randn(*SHAPE), randn(2, 2, *SHAPE[1:])
    expected = classifier_free_guidance(pos, uncond, 7.5)
    torch.testing.assert_close(perp_neg(pos, uncond, negs, torch.zeros(2, 2, dtype=torch.float64), 7.5), expected)


def test_perp_neg_on_the_hosts_row_order(randn):
    """threestudio's rows: B positive, B unconditional, then the negatives sample by sample (rest[i::N])."""
    batch, negatives = 2, 2
    rows, weights = randn((2 + negatives) * batch, *SHAPE[1:]), -randn(batch, negatives).abs()
    pos, uncond, rest = rows[:batch], rows[batch : 2 * batch], rows[2 * batch :]
    total = pos - uncond
    for i in range(negatives):
        across = perpendicular_component(rest[i::negatives] - uncond, pos - uncond)
        total = total + weights[:, i].view(-1, 1, 1, 1) * across
    ours = perp_neg(pos, uncond, rest.unflatten(0, (batch, negatives)), weights, 3.0)
    torch.testing.assert_close(ours, uncond + 3.0 * total)


@pytest.fixture
def guided(randn):
    """Clean estimates, guided and conditional."""
    cond, uncond = randn(3, 4, 3, 2), randn(3, 4, 3, 2)
    return classifier_free_guidance(cond, uncond, 20.0), cond


@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_rescale_against_the_loop(guided, phi):
    torch.testing.assert_close(rescale_guidance(*guided, phi), reference.rescaled_x0(*guided, phi))


def test_rescale_with_phi_one_matches_the_conditionals_spread(guided):
    torch.testing.assert_close(rescale_guidance(*guided, 1.0).std(dim=(1, 2, 3)), guided[1].std(dim=(1, 2, 3)))


def test_rescale_with_phi_zero_changes_nothing(guided):
    assert torch.equal(rescale_guidance(*guided, 0.0), guided[0])


@pytest.mark.parametrize("phi", [-0.1, 1.5, float("nan")])
def test_phi_outside_its_range_is_refused(guided, phi):
    with pytest.raises(ValueError, match="guidance_rescale is"):
        rescale_guidance(*guided, phi)
