import pytest
import torch
from latent_prior.models.directional import directional_regulariser
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from torch.testing import assert_close

OPTIONS = PriorOptions(guidance_scale=7.0, use_fm=False, use_kl=False)


@pytest.fixture
def prior(pocket_like):
    return LatentPrior.from_pretrained(str(pocket_like), device="cpu")


@pytest.fixture
def scored(prior):
    """Latents, their source, the condition, and what the prior says of the latents."""
    generator = torch.Generator().manual_seed(0)
    v, v_frozen = torch.randn(2, 2, 4, *prior.denoiser.sample_size, generator=generator)
    condition = prior.condition(["a red mug", "a cat"], "blurry", 2, OPTIONS)
    return v.requires_grad_(), v_frozen, condition, prior.score(v, condition, (20, 980), OPTIONS, generator)


def gradient(loss, v):
    return torch.autograd.grad(loss, v)[0]


def guided(prior, v, condition, losses):
    """Row by row, from scratch."""
    rows = []
    for b in range(len(v)):
        alpha_bar = prior.denoiser.schedule.alphas_cumprod[losses.t[b]]
        z_t = alpha_bar.sqrt() * v[[b]] + (1 - alpha_bar).sqrt() * losses.eps[[b]]
        with torch.no_grad():
            cond, uncond = (prior.denoiser(z_t, losses.t[[b]], c[[b]])[0] for c in (condition.cond, condition.uncond))
        rows.append(uncond + 7.0 * (cond - uncond))
    return torch.cat(rows)


@pytest.mark.parametrize("name", ["sds", "uniform"])
def test_gradient_by_hand(prior, scored, name):
    v, v_frozen, condition, losses = scored
    options = PriorOptions(guidance_scale=7.0, weighting_strategy=name)
    found = gradient(directional_regulariser(prior, v, v_frozen, condition, losses, options), v)
    difference = guided(prior, v.detach(), condition, losses) - guided(prior, v_frozen, condition, losses)
    w = 1 - prior.denoiser.schedule.alpha_bar(losses.t) if name == "sds" else torch.ones(2, 1, 1, 1)
    expected = w * difference / 2
    assert expected.norm() > 0.1
    # rows of one batch against single rows: float32 convolutions sum in another order
    assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_several_noises_for_a_picture(prior, scored):
    v, v_frozen, condition, _ = scored
    options = PriorOptions(guidance_scale=7.0, use_fm=False, use_kl=False, n_noises=2)
    losses = prior.score(v, condition, (20, 980), options, torch.Generator().manual_seed(1))
    found = gradient(directional_regulariser(prior, v, v_frozen, condition, losses, options), v)
    twice = [rows.detach().repeat(2, 1, 1, 1) for rows in (v, v_frozen)]
    difference = torch.sub(*(guided(prior, rows, condition.repeat(2), losses) for rows in twice))
    expected = ((1 - prior.denoiser.schedule.alpha_bar(losses.t)) * difference).view(2, *v.shape).sum(0) / 4
    assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_source_that_is_the_latents_asks_for_nothing(prior, scored):
    v, _, condition, losses = scored
    loss = directional_regulariser(prior, v, v.detach(), condition, losses, OPTIONS)
    assert float(loss.detach()) == 0.0
    assert torch.equal(gradient(loss, v), torch.zeros_like(v))


def test_it_costs_one_call_of_the_denoiser_without_graph(prior, scored):
    v, v_frozen, condition, losses = scored
    calls = []
    prior.denoiser.module.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    directional_regulariser(prior, v, v_frozen.requires_grad_(), condition, losses, OPTIONS).backward()
    assert calls == [False]
    assert v_frozen.grad is None


def test_a_source_of_another_size_is_refused(prior, scored):
    v, v_frozen, condition, losses = scored
    with pytest.raises(ValueError, match="the source's latents have shape") as error:
        directional_regulariser(prior, v, v_frozen[:, :, :8], condition, losses, OPTIONS)
    assert "\n" not in str(error.value)
