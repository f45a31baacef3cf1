import dataclasses

import pytest
import torch
from latent_prior.prior import PriorLosses, fm_loss, kl_loss, lsd_loss


@pytest.fixture
def losses(randn):
    """All three terms of a random latent under an identity decoder."""
    v = randn(2, 4, 3, 3).requires_grad_()
    z_t, eps, eps_hat, x0_hat = (randn(2, 4, 3, 3) for _ in range(4))
    delta, w = eps_hat - eps, torch.ones(2, 1, 1, 1, dtype=torch.float64)
    terms = lsd_loss(v, delta, w), fm_loss(lambda x: [x], v, delta), kl_loss(v)
    return PriorLosses(*terms, torch.tensor([1, 2]), v, eps, z_t, eps_hat, delta, x0_hat)


def test_total_is_the_weighted_sum_and_carries_its_gradient(losses):
    total = losses.total({"sds": 0.5, "fm": 2, "kl": 3.0})
    torch.testing.assert_close(total, 0.5 * losses.lsd + 2 * losses.fm + 3 * losses.kl)
    parts = [torch.autograd.grad(term, losses.v, retain_graph=True)[0] for term in (losses.lsd, losses.fm, losses.kl)]
    expected = 0.5 * parts[0] + 2 * parts[1] + 3 * parts[2]
    torch.testing.assert_close(torch.autograd.grad(total, losses.v, retain_graph=True)[0], expected)


def test_missing_weights_count_as_zero(losses):
    torch.testing.assert_close(losses.total({"kl": 2.0}), 2 * losses.kl)
    assert float(losses.total({})) == 0.0


def test_terms_left_out_are_none_and_need_no_weight(losses):
    without = dataclasses.replace(losses, fm=None)
    assert set(without.terms()) == {"sds", "kl"}
    torch.testing.assert_close(without.total({"sds": 1.0, "fm": 0.0}), losses.lsd)
    with pytest.raises(ValueError, match=r"the weight of 'fm' is 1\.0; expected 0: the prior did not compute"):
        without.total({"fm": 1.0})


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_bad_weights_are_named(losses, weight):
    with pytest.raises(ValueError, match="the weight of 'kl' is"):
        losses.total({"kl": weight})


def test_unknown_term_is_named(losses):
    with pytest.raises(ValueError, match=r"'lsd'; expected one of fm, kl, sds \(did you mean 'sds'\?\)"):
        losses.total({"lsd": 1.0})


def test_a_term_that_is_not_finite_is_named(losses):
    broken = dataclasses.replace(losses, kl=torch.tensor(float("nan")))
    with pytest.raises(ValueError, match="diverged: kl = nan"):
        broken.total({"sds": 1.0, "kl": 1.0})
    assert torch.isfinite(broken.total({"sds": 1.0, "kl": 0.0}))


def test_gradient_norms_per_term(losses):
    norms = losses.gradient_norms()
    torch.testing.assert_close(norms["sds"], (losses.delta / 2).norm())
    torch.testing.assert_close(norms["fm"], torch.tensor(72.0, dtype=torch.float64).rsqrt())  # entries all +-1/72
    assert all(norm.shape == () and not norm.requires_grad for norm in norms.values())
    losses.total({"sds": 1.0, "fm": 1.0, "kl": 1.0}).backward()  # the graph is still there


def test_results_are_frozen(losses):
    with pytest.raises(dataclasses.FrozenInstanceError):
        losses.lsd = None
