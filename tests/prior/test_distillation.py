import pytest
import torch
from latent_prior.prior import (
    classifier_free_guidance,
    csd_residual,
    lsd_loss,
    nfsd_residual,
    sample_timesteps,
    sds_residual,
    weighting,
)
from reference import losses as reference

SHAPE = (4, 3, 2, 5)


def gradient(loss, v):
    return torch.autograd.grad(loss, v)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_w_delta_over_b_to_the_last_bit(randn, dtype):
    """Also where v dwarfs delta, and v - (v - w delta) would have lost it to rounding."""
    v = (1e4 * randn(*SHAPE)).to(dtype).requires_grad_()
    delta, w = (1e-4 * randn(*SHAPE)).to(dtype), randn(4, 1, 1, 1).abs().to(dtype)
    assert torch.equal(gradient(lsd_loss(v, delta, w), v), w * delta / 4)


def test_value_and_gradient_are_those_of_the_printed_loss(randn):
    v, delta, w = randn(3, 4, 2, 2).requires_grad_(), randn(3, 4, 2, 2), randn(3, 1, 1, 1).abs()
    printed = 0.5 * ((v - (v - w * delta).detach()) ** 2).sum() / 3
    ours = lsd_loss(v, delta, w)
    torch.testing.assert_close(ours, printed)
    torch.testing.assert_close(gradient(ours, v), gradient(printed, v))
    assert float(ours.detach()) == pytest.approx(reference.lsd_value(v, delta, w), rel=1e-12)


def test_no_gradient_runs_through_delta_or_w(randn):
    delta, w = randn(*SHAPE).requires_grad_(), randn(4, 1, 1, 1).requires_grad_()
    v = randn(*SHAPE).requires_grad_()
    # delta that depends on v must not add the denoiser's Jacobian either
    loss = lsd_loss(v, delta + v**2, w)
    through = torch.autograd.grad(loss, [delta, w], allow_unused=True, retain_graph=True)
    assert through == (None, None)
    torch.testing.assert_close(gradient(loss, v), (w * (delta + v**2) / 4).detach())


def test_size_of_the_latent_scales_the_value_but_not_the_gradient(randn):
    v, delta, w = randn(2, 4, 3, 3), randn(2, 4, 3, 3), randn(2, 1, 1, 1)
    big_v, big_delta = v.repeat(1, 1, 2, 2).requires_grad_(), delta.repeat(1, 1, 2, 2)
    v.requires_grad_()
    small, big = lsd_loss(v, delta, w), lsd_loss(big_v, big_delta, w)
    torch.testing.assert_close(big, 4 * small)
    torch.testing.assert_close(gradient(big, big_v)[..., :3, :3], gradient(small, v))


def test_clip_bounds_the_weighted_residual(randn):
    v, delta, w = randn(*SHAPE).requires_grad_(), randn(*SHAPE), randn(4, 1, 1, 1).abs()
    assert torch.equal(gradient(lsd_loss(v, delta, w, clip=0.3), v), (w * delta).clamp(-0.3, 0.3) / 4)
    assert float(lsd_loss(v, delta, w, clip=0.0).detach()) == 0.0
    with pytest.raises(ValueError, match="grad_clip is"):
        lsd_loss(v, delta, w, clip=-1.0)


def test_residuals_by_hand(randn):
    cond, uncond, neg, eps = (randn(2, 4, 3, 3) for _ in range(4))
    assert torch.equal(sds_residual(cond, eps), cond - eps)
    assert torch.equal(csd_residual(cond, uncond), cond - uncond)
    # the bound itself counts as large
    out = nfsd_residual(cond, uncond, neg, torch.tensor([199, 200]), 7.5)
    torch.testing.assert_close(out[0], uncond[0] + 7.5 * (cond[0] - uncond[0]))
    torch.testing.assert_close(out[1], uncond[1] - neg[1] + 7.5 * (cond[1] - uncond[1]))
    lower = nfsd_residual(cond, uncond, neg, torch.tensor([199, 200]), 7.5, t_small=10)
    torch.testing.assert_close(lower[0], uncond[0] - neg[0] + 7.5 * (cond[0] - uncond[0]))


def test_csd_is_what_guidance_adds_at_large_scale(randn):
    """(sds residual) / s tends to the csd residual as s grows: Yu et al. 2023."""
    cond, uncond, eps = randn(2, 4, 3, 3), randn(2, 4, 3, 3), randn(2, 4, 3, 3)
    for scale in (1e2, 1e4):
        sds = sds_residual(classifier_free_guidance(cond, uncond, scale), eps) / scale
        torch.testing.assert_close(sds, csd_residual(cond, uncond), atol=20 / scale, rtol=0)


# The Gaussian mixture as diffusion model. ----------------------------------------------------------------------------


def test_the_oracles_score_is_the_gradient_of_its_density(mixture, schedule, randn):
    t = torch.tensor([10, 400, 900])
    z_t, alpha, sigma = randn(3, 3, 2, 2).requires_grad_(), schedule.alpha(t), schedule.sigma(t)
    expected = torch.autograd.grad(mixture.log_density(z_t, alpha, sigma).sum(), z_t)[0]
    torch.testing.assert_close(mixture.score(z_t.detach(), alpha, sigma), expected)


def test_lsd_of_one_gaussian_in_closed_form(mixture, schedule, randn):
    """eps_hat is linear in eps, so a draw and its mirror image average to the expectation exactly:
    w sigma alpha (v - mu) / (alpha^2 s^2 + sigma^2) / B."""
    single = mixture.given(0)
    t = torch.tensor([20, 500, 980])
    alpha, sigma, w = schedule.alpha(t), schedule.sigma(t), weighting("sds", schedule, t)
    v, eps = randn(3, 3, 2, 2).requires_grad_(), randn(3, 3, 2, 2)
    total = 0.0
    for noise in (eps, -eps):
        delta = sds_residual(single.eps(schedule.add_noise(v, noise, t).detach(), alpha, sigma), noise)
        total = total + 0.5 * lsd_loss(v, delta, w)
    variance = alpha**2 * single.std**2 + sigma**2
    expected = w * sigma * alpha * (v.detach() - single.means[0]) / variance / 3
    torch.testing.assert_close(gradient(total, v), expected)


def test_lsd_is_the_scaled_gradient_of_the_noised_density(mixture, schedule, randn):
    """w delta = w (-(sigma / alpha) grad_v log p_t(alpha v + sigma eps) - eps), draw by draw."""
    t = torch.tensor([50, 300, 700])
    alpha, sigma, w = schedule.alpha(t), schedule.sigma(t), weighting("fantasia3d", schedule, t)
    v, eps = randn(3, 3, 2, 2).requires_grad_(), randn(3, 3, 2, 2)
    z_t = schedule.add_noise(v, eps, t)
    slope = torch.autograd.grad(mixture.log_density(z_t, alpha, sigma).sum(), v)[0]
    delta = sds_residual(mixture.eps(z_t.detach(), alpha, sigma), eps)
    ours = gradient(lsd_loss(v, delta, w), v)
    torch.testing.assert_close(ours, w * (-sigma / alpha * slope - eps) / 3)


def descend(schedule, start, residual, t_max, name="sds", steps=300, rate=0.3):
    """Plain gradient descent on LSD, 8 noise draws a step; gives the end point."""
    generator = torch.Generator().manual_seed(1)
    v = start.clone().requires_grad_()
    for _ in range(steps):
        batch = v.expand(8, -1, -1, -1)
        t = sample_timesteps(8, 20, t_max, generator)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        eps = torch.randn(batch.shape, generator=generator, dtype=v.dtype)
        delta = residual(schedule.add_noise(batch.detach(), eps, t), t, alpha, sigma, eps)
        step = gradient(lsd_loss(batch, delta, weighting(name, schedule, t)), v)
        v = (v - rate * step).detach().requires_grad_()
    return v.detach()


@pytest.mark.parametrize("name", ["sds", "uniform", "fantasia3d"])
def test_descending_finds_the_nearer_mode(mixture, schedule, randn, name):
    near_first = 0.3 * mixture.means[:1] + 0.05 * randn(1, 3, 2, 2)

    def residual(z_t, t, alpha, sigma, eps):
        return sds_residual(mixture.eps(z_t, alpha, sigma), eps)

    end = descend(schedule, near_first, residual, 300, name)
    # |mean| is 2. Measured: 0.007 (sds, fantasia3d), 0.05 (uniform, which scatters most at low noise)
    assert (end[0] - mixture.means[0]).norm() < 0.1
    assert (near_first[0] - mixture.means[0]).norm() > 1.0


@pytest.mark.parametrize(("variant", "within"), [("unguided", 0.05), ("guided", 0.8), ("csd", 0.8)])
def test_descending_carries_v_from_one_mode_to_the_prompts(mixture, schedule, variant, within):
    """The prompt is component 1, v starts at component 0, 4 away. Guidance and csd overshoot the mode, as they must:
    they follow the prompt's odds against the rest, which go on rising beyond it."""
    prompt = mixture.given(1)

    def residual(z_t, t, alpha, sigma, eps):
        cond, uncond = prompt.eps(z_t, alpha, sigma), mixture.eps(z_t, alpha, sigma)
        if variant == "csd":
            return csd_residual(cond, uncond)
        return sds_residual(classifier_free_guidance(cond, uncond, 5.0 if variant == "guided" else 1.0), eps)

    end = descend(schedule, mixture.means[:1], residual, 600, steps=200, rate=0.1)[0]
    # measured: 0.003, 0.59, 0.67
    assert (end - mixture.means[1]).norm() < within
