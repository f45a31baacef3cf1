"""The scores that find their noise or learn it, against an exact denoiser of Gaussians and closed forms."""

import math

import pytest
import torch
from latent_prior import OptionError
from latent_prior.models.condition import Condition
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from latent_prior.models.sampling import ddim_inversion
from latent_prior.models.scores import score
from latent_prior.prior import DiffusionSchedule, FlowSchedule, NoiseSchedule, weighting
from reference.gaussian_mixture import GaussianMixture
from tiny_checkpoints import GEOMETRIES
from torch.testing import assert_close

SHAPE = (3, 2, 2)
WHOLE = 2  # the prompt of all components


class Exact(Denoiser):
    """The ideal denoiser of a mixture of two Gaussians. A row's prompt is a component, or WHOLE."""

    def __init__(self, mixture: GaussianMixture, schedule: NoiseSchedule):
        self.mixture, self.schedule = mixture, schedule
        self.calls = 0

    def __call__(self, z_t, t, condition):
        self.calls += 1
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        rows = []
        for k, prompt in enumerate(condition.flatten().long().tolist()):
            given = self.mixture if prompt == WHOLE else self.mixture.given(prompt)
            rows.append(given.eps(z_t[k : k + 1], alpha[k : k + 1], sigma[k : k + 1]))
        eps = torch.cat(rows)
        return eps, (z_t - sigma * eps) / alpha


def draws(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


SCHEDULES = {
    "diffusion": DiffusionSchedule.scaled_linear(0.00085, 0.012, 1000).to(dtype=torch.float64),
    "flow": FlowSchedule(shift=3.0, dtype=torch.float64),
}


@pytest.fixture(params=SCHEDULES)
def denoiser(request):
    direction = draws(1)(torch.empty(SHAPE, dtype=torch.float64))
    direction = 2 * direction / direction.norm()
    return Exact(
        GaussianMixture(torch.stack([direction, -direction]), 0.5, torch.tensor([0.5, 0.5]).double()),
        SCHEDULES[request.param],
    )


def prompts(cond: int, uncond: int, count: int = 2) -> Condition:
    return Condition(*(torch.full((count, 1, 1), float(prompt), dtype=torch.float64) for prompt in (cond, uncond)))


def near_the_mode(denoiser) -> torch.Tensor:
    return denoiser.mixture.means[0] + 0.6 * draws(2)(torch.empty(2, *SHAPE, dtype=torch.float64))


T = torch.tensor([300, 800])
NEVER = pytest.fail


def flow(denoiser, v, t):
    """Where the probability flow of one Gaussian takes v: its distance from the mean grows with the spread."""
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    mean, std = denoiser.mixture.means[0], denoiser.mixture.std
    spread = (alpha**2 * std**2 + sigma**2).sqrt()
    return alpha * mean + spread / std * (v - mean)


def test_inversion_follows_the_probability_flow(denoiser):
    v, condition = near_the_mode(denoiser), prompts(0, 0).cond
    expected = flow(denoiser, v, T)
    errors = []
    for stride in (50, 10, 1):
        found = ddim_inversion(lambda z, now: denoiser(z, now, condition), denoiser.schedule, v, T, stride)
        errors.append((found - expected).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01
    clean = ddim_inversion(lambda z, now: NEVER("asked"), denoiser.schedule, v, torch.zeros(2, dtype=torch.long), 10)
    assert torch.equal(clean, v)
    with pytest.raises(ValueError, match="stride is 0"):
        ddim_inversion(lambda z, now: denoiser(z, now, condition), denoiser.schedule, v, T, 0)


def test_noise_added_on_the_way_keeps_the_forward_variance(denoiser):
    """With a denoiser that finds exactly the noise that is there, the way with eta = 1 is the forward process."""
    count, v = 4000, torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    v, t = v.expand(count, 1, 1, 1), torch.full((count,), 500)

    def no_noise(z, now):  # so that all of it is added on the way
        return torch.zeros_like(z), z / denoiser.schedule.alpha(now)

    found = ddim_inversion(no_noise, denoiser.schedule, v, t, 100, eta=1.0, draw=draws())
    alpha_bar, expected = [1.0], 0.0
    for step in range(0, 501, 100):
        alpha_bar.append(denoiser.schedule.alpha_bar(torch.tensor([step])).item()) if step else None
    for before, after in zip(alpha_bar, alpha_bar[1:], strict=False):
        expected = expected * after / before + (1 - before) / (1 - after) * (1 - after / before)
    scale = denoiser.schedule.alpha(t[:1]) ** 2 + denoiser.schedule.sigma(t[:1]) ** 2
    assert (found.var() / scale).item() == pytest.approx(expected, rel=0.1)


def test_sdi_finds_the_noise_and_compares_it(denoiser):
    v, options = near_the_mode(denoiser), {"score": "sdi", "guidance_scale": 1.0, "inversion_guidance_scale": 1.0}
    options = PriorOptions(**options, inversion_n_steps=1000, inversion_eta=0.0)
    found = score(denoiser, v, T, prompts(0, 0), options, lambda like: NEVER("drew noise"))
    alpha, sigma = denoiser.schedule.alpha(T), denoiser.schedule.sigma(T)
    z_t, mean, std = flow(denoiser, v, T), denoiser.mixture.means[0], denoiser.mixture.std
    eps = (z_t - alpha * v) / sigma
    eps_hat = sigma * (z_t - alpha * mean) / (alpha**2 * std**2 + sigma**2)
    assert_close(found.eps, eps, atol=0.02, rtol=0)
    assert_close(found.delta, eps_hat - eps, atol=0.03, rtol=0)
    assert ((eps_hat - eps) * (v - mean)).sum() > 1  # descending it leads to the mean


def test_sdi_leaves_the_mode_where_it_is(denoiser):
    mean = denoiser.mixture.means[:1]
    options = PriorOptions(score="sdi", guidance_scale=7.5, inversion_guidance_scale=-6.5, inversion_eta=0.0)
    assert_close(
        score(denoiser, mean, T[:1], prompts(0, 0, 1), options, draws()).delta,
        torch.zeros_like(mean),
        atol=1e-4,
        rtol=0,
    )
    moved = score(denoiser, mean, T[:1], prompts(0, 0, 1), PriorOptions(score="sdi", guidance_scale=1.0), draws())
    assert moved.delta.norm() > 0.01  # by the noise on the way


def test_sdi_takes_noise_that_is_given(denoiser):
    v, noise = near_the_mode(denoiser), draws(3)(torch.empty(2, *SHAPE, dtype=torch.float64))
    options = {"guidance_scale": 7.5}
    given = score(denoiser, v, T, prompts(0, WHOLE), PriorOptions(score="sdi", **options), draws(), noise)
    plain = score(denoiser, v, T, prompts(0, WHOLE), PriorOptions(**options), draws(), noise)
    assert torch.equal(given.delta, plain.delta) and torch.equal(given.eps, noise)


def test_ism_compares_two_moments_of_the_flow(denoiser):
    v = near_the_mode(denoiser)
    options = PriorOptions(score="ism", guidance_scale=1.0, ism_step_s=1, ism_step_t=100)
    found = score(denoiser, v, T, prompts(0, 0), options, lambda like: NEVER("drew noise"))
    mean, std = denoiser.mixture.means[0], denoiser.mixture.std

    def eps(t):
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        return sigma * (v - mean) / (std * (alpha**2 * std**2 + sigma**2).sqrt())

    # one step of 100 from s to t is not the flow itself; at small steps it is
    near = PriorOptions(score="ism", guidance_scale=1.0, ism_step_s=1, ism_step_t=1)
    small = score(denoiser, v, T, prompts(0, 0), near, draws()).delta
    assert small.abs().max() < 0.01
    assert_close(found.delta, eps(T) - eps(T - 100), atol=0.1, rtol=0)
    assert (found.delta * (eps(T) - eps(T - 100))).sum() > 0.9 * found.delta.square().sum()


def test_ism_asks_as_often_as_its_strides_say(denoiser):
    v, options = near_the_mode(denoiser), PriorOptions(score="ism", guidance_scale=7.5)
    score(denoiser, v, T, prompts(0, WHOLE), options, draws())
    assert denoiser.calls == math.ceil(750 / 200) + 1 + 1  # to s of the noisier, from s to t, and the guided one


def test_the_bridge_leads_from_the_source_to_the_target(denoiser):
    v = torch.zeros(2, *SHAPE, dtype=torch.float64)
    options = PriorOptions(score="bridge", guidance_scale=4.0)
    found = score(denoiser, v, T, prompts(0, 1), options, draws())
    alpha, sigma = denoiser.schedule.alpha(T), denoiser.schedule.sigma(T)
    between = denoiser.mixture.means[1] - denoiser.mixture.means[0]
    expected = 4 * sigma * alpha * between / (alpha**2 * denoiser.mixture.std**2 + sigma**2)
    assert_close(found.delta, expected.expand_as(found.delta))


def test_the_velocitys_residual_vanishes_at_the_mode_and_has_its_closed_form_elsewhere():
    """RFDS under one Gaussian: its mean over noise is (v - mean) sigma / (alpha^2 std^2 + sigma^2), by hand from
    u = (z_t - x0_hat) / sigma and x0_hat = mean + alpha std^2 / (alpha^2 std^2 + sigma^2) (z_t - alpha mean)."""
    mean, std = torch.full((1, *SHAPE), 0.7, dtype=torch.float64), 0.5
    denoiser = Exact(GaussianMixture(mean, std, torch.ones(1).double()), SCHEDULES["flow"])
    t = torch.tensor([100, 400, 800, 990])
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    noise = draws(5)(torch.empty(4, *SHAPE, dtype=torch.float64))
    for off in (0.0, 0.3):
        v = (mean + off).expand(4, -1, -1, -1)
        options = PriorOptions(guidance_scale=1.0)
        # noise and its opposite: all is linear in it, so their mean is the expectation
        deltas = [score(denoiser, v, t, prompts(0, 0, 4), options, draws(), eps).delta for eps in (noise, -noise)]
        gradient = weighting("velocity", denoiser.schedule, t) * sum(deltas) / 2
        expected = off * sigma / (alpha**2 * std**2 + sigma**2)
        assert_close(gradient, expected.expand_as(gradient), atol=1e-12, rtol=1e-9)


# With a network. ------------------------------------------------------------------------------------------------------


@pytest.fixture
def prior(folders):
    return LatentPrior.from_pretrained(str(folders[GEOMETRIES["stable"]]), device="cpu", guidance_scale=1.0)


def test_an_untrained_lora_changes_nothing(prior):
    v = torch.randn(2, 4, 8, 8)
    condition = prior.condition("a mug", "", 2, prior.options)
    plain = score(prior.denoiser, v, T, condition, PriorOptions(guidance_scale=1.0), draws())
    before = prior.denoiser(plain.z_t, T, condition.cond)[0]
    found = score(
        prior.denoiser, v, T, condition, PriorOptions(score="vsd", guidance_scale=1.0), draws(), None, prior.variational
    )
    assert_close(found.delta, torch.zeros_like(v))  # at scale 1 the LoRA says what the checkpoint says
    assert torch.equal(prior.denoiser(plain.z_t, T, condition.cond)[0], before)


def test_the_lora_learns_the_pictures_and_the_checkpoint_stays(prior):
    v, condition = torch.randn(2, 4, 8, 8), prior.condition("a mug", "", 2, prior.options)
    prior.lora_learning_rate = 3e-2
    options = PriorOptions(score="vsd", guidance_scale=1.0)
    before = {name: p.clone() for name, p in prior.denoiser.module.state_dict().items()}
    noises, t = torch.randn(20, 2, 4, 8, 8), torch.arange(50, 1000, 50)[:, None].expand(-1, 2)
    z_t = [prior.denoiser.schedule.add_noise(v, noise, now) for noise, now in zip(noises, t, strict=False)]

    def error():
        with torch.no_grad():
            found = [prior.variational.eps(z, now, condition, options) for z, now in zip(z_t, t, strict=False)]
        return sum((eps - noise).square().mean() for eps, noise in zip(found, noises, strict=False))

    at_first, generator = error(), torch.Generator().manual_seed(0)
    for _ in range(60):
        prior.variational.learn(v, condition, options, generator)
    assert error() < 0.98 * at_first
    after = prior.denoiser.module.state_dict()
    kept = [name.replace(".base_layer", "") for name in after if "lora_" not in name]
    assert sorted(kept) == sorted(before)
    assert all(
        torch.equal(after[name], before[name.replace(".base_layer", "")]) for name in after if "lora_" not in name
    )
    z_t = prior.denoiser.schedule.add_noise(v, torch.randn_like(v), T)
    assert (prior.variational.eps(z_t, T, condition, options) - prior.denoiser(z_t, T, condition.cond)[0]).norm() > 0.1


def test_the_lora_continues_from_its_state(prior, folders):
    v, condition = torch.randn(2, 4, 8, 8), prior.condition("a mug", "", 2, prior.options)
    options = PriorOptions(score="vsd", guidance_scale=1.0)
    for seed in range(3):
        prior.variational.learn(v, condition, options, torch.Generator().manual_seed(seed))
    state = prior.variational.state_dict()
    other = LatentPrior.from_pretrained(str(folders[GEOMETRIES["stable"]]), device="cpu")
    other.variational.load_state_dict(state)
    for part in (prior, other):
        part.variational.learn(v, condition, options, torch.Generator().manual_seed(9))
    here, there = (part.variational.state_dict()["weights"] for part in (prior, other))
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)
    for wrong in ({}, {"weights": 3}, {"weights": {}}, {**state, "optimizer": {}}, {**state, "optimizer": 3}):
        with pytest.raises(OptionError, match="resume: the LoRA in the checkpoint is not one of this denoiser's"):
            other.variational.load_state_dict(wrong)


def test_one_call_scores_and_trains(prior):
    v = torch.randn(2, 4, 8, 8, requires_grad=True)
    given = {"latents": True, "score": "vsd", "guidance_scale": 7.5}
    outs = [prior(v, "a mug", generator=torch.Generator().manual_seed(0), **given) for _ in range(2)]
    assert torch.equal(outs[0].eps_hat, outs[1].eps_hat) and not torch.equal(outs[0].delta, outs[1].delta)
