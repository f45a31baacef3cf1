import pytest
import torch
from latent_prior.prior import directional_distillation_loss, lsd_loss, sds_residual, weighting
from reference import losses as reference

SHAPE = (3, 3, 2, 2)


def gradient(loss, v):
    return torch.autograd.grad(loss, v)[0]


def test_value_and_gradient_by_hand(randn):
    v, eps_hat, frozen, w = randn(*SHAPE).requires_grad_(), randn(*SHAPE), randn(*SHAPE), randn(3, 1, 1, 1).abs()
    loss = directional_distillation_loss(v, eps_hat, frozen, w)
    assert float(loss.detach()) == pytest.approx(reference.lsd_value(v, eps_hat - frozen, w), rel=1e-12)
    torch.testing.assert_close(gradient(loss, v), w * (eps_hat - frozen) / 3)


def test_equal_predictions_ask_for_nothing(randn):
    v, eps_hat = randn(*SHAPE).requires_grad_(), randn(*SHAPE)
    loss = directional_distillation_loss(v, eps_hat, eps_hat.clone(), torch.ones(3, 1, 1, 1, dtype=torch.float64))
    assert float(loss.detach()) == 0.0
    assert torch.equal(gradient(loss, v), torch.zeros_like(v))


def test_no_gradient_runs_through_the_predictions(randn):
    v, eps_hat, frozen = (randn(*SHAPE).requires_grad_() for _ in range(3))
    loss = directional_distillation_loss(v, eps_hat + v**2, frozen, torch.ones(3, 1, 1, 1, dtype=torch.float64))
    assert torch.autograd.grad(loss, [eps_hat, frozen], allow_unused=True, retain_graph=True) == (None, None)
    torch.testing.assert_close(gradient(loss, v), (eps_hat + v**2 - frozen).detach() / 3)


def predictions(model, schedule, v, t, eps):
    return model.eps(schedule.add_noise(v, eps, t).detach(), schedule.alpha(t), schedule.sigma(t))


def test_of_one_gaussian_in_closed_form(mixture, schedule, randn):
    """eps_hat is affine in the latent, so noise and mean cancel: w sigma alpha (v - v_frozen) / (alpha^2 s^2 + sigma^2)
    / B, draw by draw."""
    single, t = mixture.given(0), torch.tensor([20, 500, 980])
    alpha, sigma, w = schedule.alpha(t), schedule.sigma(t), weighting("sds", schedule, t)
    v, frozen, eps = randn(*SHAPE).requires_grad_(), randn(*SHAPE), randn(*SHAPE)
    found = [predictions(single, schedule, latents, t, eps) for latents in (v, frozen)]
    expected = w * sigma * alpha * (v.detach() - frozen) / (alpha**2 * single.std**2 + sigma**2) / 3
    torch.testing.assert_close(gradient(directional_distillation_loss(v, *found, w), v), expected)


def test_beside_distillation_it_holds_the_latent_half_way(mixture, schedule, randn):
    """Of one Gaussian both pull alike, one to the mean, the other to the source: at weight 1 they balance in the middle.
    Two mirrored draws average to the expectation exactly."""
    single, t = mixture.given(0), torch.tensor([20, 500, 980])
    w, frozen, eps = weighting("sds", schedule, t), randn(*SHAPE), randn(*SHAPE)

    def slope(v):
        v, total = v.clone().requires_grad_(), 0.0
        for noise in (eps, -eps):
            now, before = (predictions(single, schedule, latents, t, noise) for latents in (v, frozen))
            total = total + lsd_loss(v, sds_residual(now, noise), w) + directional_distillation_loss(v, now, before, w)
        return gradient(total, v)

    middle = (single.means[:1] + frozen) / 2
    torch.testing.assert_close(slope(middle), torch.zeros_like(middle), atol=1e-12, rtol=0)
    assert slope(frozen).norm() > 0.1
