import math

import pytest
import torch
from latent_prior.prior import KL_FORMS, kl_loss
from reference import losses as reference


def with_moments(mu, sigma):
    """A latent 1 1 2 2 whose spatial moments are exactly these (variance over all entries)."""
    return torch.tensor([mu - sigma, mu + sigma, mu - sigma, mu + sigma], dtype=torch.float64).reshape(1, 1, 2, 2)


@pytest.mark.parametrize("form", KL_FORMS)
def test_value_against_the_loop(randn, form):
    v = 1.5 * randn(2, 3, 4, 5) + 0.3
    assert float(kl_loss(v, form)) == pytest.approx(reference.kl_value(v, form), rel=1e-12)


def test_standard_form_is_torchs_divergence():
    for mu, sigma in [(0.0, 1.0), (0.7, 0.4), (-2.0, 3.0)]:
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(mu, sigma), torch.distributions.Normal(0.0, 1.0)
        )
        assert float(kl_loss(with_moments(mu, sigma))) == pytest.approx(float(expected), rel=1e-6, abs=1e-12)


def test_variance_is_the_biased_one():
    v = torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(1, 1, 1, 2)  # biased variance 1, unbiased 2
    assert float(kl_loss(v)) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("form", "best", "least"),
    [("standard", 1.0, 0.0), ("paper", 1 / math.sqrt(2), 0.5 * (0.5 + math.log(math.sqrt(2)) + 1))],
)
def test_minimum(form, best, least):
    assert float(kl_loss(with_moments(0.0, best), form)) == pytest.approx(least, abs=1e-12)
    for mu, factor in [(0.0, 0.99), (0.0, 1.01), (0.05, 1.0), (-0.05, 1.0)]:
        assert float(kl_loss(with_moments(mu, best * factor), form)) > least
    # the slope in sigma is zero there, and rises through it
    sigma = torch.tensor(best, dtype=torch.float64, requires_grad=True)
    pattern = with_moments(0.0, 1.0)
    torch.testing.assert_close(
        torch.autograd.grad(kl_loss(sigma * pattern, form), sigma)[0], torch.zeros_like(sigma), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize(("form", "best"), [("standard", 1.0), ("paper", 1 / math.sqrt(2))])
def test_descending_reaches_the_minimum(randn, form, best):
    v = (3 * randn(2, 4, 6, 6) + 2).requires_grad_()
    optimiser = torch.optim.SGD([v], lr=0.5 * v.numel())
    for _ in range(60):
        optimiser.zero_grad()
        kl_loss(v, form).backward()
        optimiser.step()
        optimiser.param_groups[0]["lr"] *= 0.97
    moments = v.detach().std(dim=(2, 3), correction=0), v.detach().mean(dim=(2, 3))
    torch.testing.assert_close(moments[0], torch.full_like(moments[0], best), atol=1e-3, rtol=0)
    torch.testing.assert_close(moments[1], torch.zeros_like(moments[1]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", KL_FORMS)
def test_gradient_against_finite_differences(randn, form):
    assert torch.autograd.gradcheck(lambda v: kl_loss(v, form), randn(2, 2, 3, 3).requires_grad_())


def test_size_does_not_matter(randn):
    v = randn(2, 4, 3, 3)
    torch.testing.assert_close(kl_loss(v.repeat(3, 1, 4, 4)), kl_loss(v))


def test_constant_channel_is_costly_but_finite():
    v = torch.full((1, 4, 8, 8), 0.5, requires_grad=True)
    loss = kl_loss(v)
    assert 5 < float(loss.detach()) < 20
    assert torch.isfinite(torch.autograd.grad(loss, v)[0]).all()


def test_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"kl_form is 'papers'.*paper, standard \(did you mean 'paper'\?\)"):
        kl_loss(torch.zeros(1, 1, 2, 2), "papers")
