import pytest
import torch
from latent_prior.models.checkpoint import resolve
from latent_prior.models.condition import Condition, predict
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.options import PriorOptions
from latent_prior.models.scores import residual
from latent_prior.prior import perp_neg, x0_from_eps
from torch.testing import assert_close

BATCH = 3


@pytest.fixture
def denoiser(folder):
    return Denoiser.from_checkpoint(resolve(str(folder)), torch.device("cpu"), torch.float32)


@pytest.fixture
def inputs(geometry):
    torch.manual_seed(0)
    z_t = torch.randn(BATCH, 4, geometry.latent_size, geometry.latent_size)
    t = torch.tensor([30, 199, 800])
    return z_t, t


def embeddings(geometry, *shape):
    return torch.randn(*shape, geometry.max_length, geometry.text_width)


def close(found, expected):
    # rows of one batch against single rows: float32 convolutions sum in another order
    assert_close(found, expected, rtol=1e-3, atol=1e-4)


def count_calls(denoiser):
    calls = []
    denoiser.module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def one_by_one(denoiser, z_t, t, rows):
    with torch.no_grad():
        return torch.cat([denoiser(z_t[[b]], t[[b]], rows[[b]])[0] for b in range(len(z_t))])


def test_plain_guidance(denoiser, inputs, geometry):
    condition = Condition(embeddings(geometry, BATCH), embeddings(geometry, BATCH))
    calls = count_calls(denoiser)
    found = predict(denoiser, *inputs, condition, PriorOptions(guidance_scale=7.0))
    assert len(calls) == 1
    cond, uncond = (one_by_one(denoiser, *inputs, rows) for rows in (condition.cond, condition.uncond))
    close(found.eps_hat, uncond + 7.0 * (cond - uncond))
    close(found.eps_cond, cond)
    z_t, t = inputs
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    close(found.x0_hat, x0_from_eps(z_t, found.eps_hat, alpha, sigma))
    close(found.eps_uncond, uncond)
    assert not found.eps_hat.requires_grad


def test_perp_neg_and_null_rows(denoiser, inputs, geometry):
    weights = -torch.rand(BATCH, 2)
    condition = Condition(
        embeddings(geometry, BATCH),
        embeddings(geometry, BATCH),
        embeddings(geometry, BATCH, 2),
        weights,
        embeddings(geometry, BATCH),
    )
    calls = count_calls(denoiser)
    found = predict(denoiser, *inputs, condition, PriorOptions(guidance_scale=5.0))
    assert len(calls) == 1
    cond, uncond, null = (
        one_by_one(denoiser, *inputs, rows) for rows in (condition.cond, condition.uncond, condition.null)
    )
    negatives = torch.stack([one_by_one(denoiser, *inputs, condition.negatives[:, i]) for i in range(2)], dim=1)
    close(found.eps_hat, perp_neg(cond, uncond, negatives, weights, 5.0))
    schedule, (z_t, t) = denoiser.schedule, inputs
    close(found.x0_hat, x0_from_eps(z_t, found.eps_hat, schedule.alpha(t), schedule.sigma(t)))
    close(found.eps_null, null)


def test_rescaled_guidance_has_the_conditionals_spread(denoiser, inputs, geometry):
    condition = Condition(embeddings(geometry, BATCH), embeddings(geometry, BATCH))
    found = predict(denoiser, *inputs, condition, PriorOptions(guidance_scale=50.0, guidance_rescale=1.0))
    z_t, t = inputs
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    spread = [((z_t - sigma * eps) / alpha).std(dim=(1, 2, 3)) for eps in (found.eps_hat, found.eps_cond)]
    assert_close(spread[0], spread[1], rtol=1e-3, atol=1e-4)


def test_residuals(denoiser, inputs, geometry):
    z_t, t = inputs
    condition = Condition(embeddings(geometry, BATCH), embeddings(geometry, BATCH), null=embeddings(geometry, BATCH))
    eps = torch.randn_like(z_t)
    options = PriorOptions(guidance_scale=7.5)
    prediction = predict(denoiser, z_t, t, condition, options)
    assert_close(residual(prediction, eps, t, denoiser.schedule, options), prediction.eps_hat - eps)
    csd = residual(prediction, eps, t, denoiser.schedule, PriorOptions(score="csd"))
    assert_close(csd, prediction.eps_cond - prediction.eps_uncond)
    nfsd = residual(prediction, eps, t, denoiser.schedule, PriorOptions(score="nfsd", guidance_scale=7.5))
    expected = 7.5 * (prediction.eps_cond - prediction.eps_null)
    expected = expected + prediction.eps_null
    expected[2] -= prediction.eps_uncond[2]  # the only timestep of 200 or more
    assert_close(nfsd, expected)


def test_rows_of_a_condition(geometry):
    condition = Condition(
        embeddings(geometry, 4), embeddings(geometry, 4), embeddings(geometry, 4, 2), torch.zeros(4, 2), None
    )
    some = condition[1:3]
    assert torch.equal(some.negatives, condition.negatives[1:3])
    assert torch.equal(some.cond, condition.cond[1:3])
    assert some.null is None
