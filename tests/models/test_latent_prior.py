import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from latent_prior import OptionError
from latent_prior.guidance.evaluation import guidance_pictures
from latent_prior.models.condition import predict
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from latent_prior.prior import fm_loss, kl_loss
from tiny_checkpoints import GEOMETRIES, write_checkpoint
from torch.testing import assert_close

PROMPT = "a red mug"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def prior(folder):
    return LatentPrior.from_pretrained(str(folder), device="cpu", guidance_scale=7.0)


@pytest.fixture
def images(geometry):
    return torch.rand(2, 3, geometry.image_size, geometry.image_size, generator=seeded(1), requires_grad=True)


@pytest.fixture
def latents(geometry):
    return torch.randn(2, 4, geometry.latent_size, geometry.latent_size, generator=seeded(2), requires_grad=True)


def refuse_decoder(prior, monkeypatch):
    for part in (prior.autoencoder.vae.decoder.mid_block, prior.autoencoder.vae.decoder.conv_in):
        monkeypatch.setattr(part, "forward", lambda *_: pytest.fail("ran the decoder"))


def test_the_three_terms(prior, images):
    out = prior(images, PROMPT, generator=seeded())
    assert set(out.terms()) == {"sds", "fm", "kl"}
    for term in (out.lsd, out.fm, out.kl):
        assert term.shape == ()
        assert term > 0
    total = out.total({"sds": 1.0, "fm": 0.3, "kl": 0.1})
    assert_close(total, out.lsd + 0.3 * out.fm + 0.1 * out.kl)


def test_distillation_gradient_is_the_weighted_residual(prior, latents):
    out = prior(latents, PROMPT, latents=True, generator=seeded())
    (found,) = torch.autograd.grad(out.lsd, latents)
    w = (1 - prior.denoiser.schedule.alphas_cumprod[out.t]).view(-1, 1, 1, 1)
    expected = w * (out.eps_hat - out.eps)
    assert_close(found, expected / 2)
    assert_close(out.lsd.detach(), expected.square().sum() / 4)


@pytest.mark.parametrize("target", ["residual", "paper", "denoised"])
def test_feature_matching_gradient_is_autograds(prior, latents, target):
    out = prior(latents, PROMPT, latents=True, generator=seeded(), fm_target=target)
    v = latents.detach().clone().requires_grad_()
    expected = fm_loss(prior.autoencoder.features, v, out.delta, out.x0_hat, target)
    assert_close(out.fm.detach(), expected.detach())
    found, wanted = torch.autograd.grad(out.fm, latents)[0], torch.autograd.grad(expected, v)[0]
    assert wanted.norm() > 0
    assert_close(found, wanted)


def test_matching_of_pixels_by_hand(prior, images):
    """The gradient is on the pictures alone, and does not pass through the encoder."""
    out = prior(images, PROMPT, generator=seeded(), fm_target="pixels", n_noises=2)
    target = prior.autoencoder.decode(out.x0_hat)
    alpha_bar = prior.denoiser.schedule.alphas_cumprod[out.t]
    off = images.detach().repeat(2, 1, 1, 1) - target
    expected = sum(a * row.abs().mean() for a, row in zip(alpha_bar, off, strict=True)) / 4
    assert_close(out.fm.detach(), expected)
    signs = (alpha_bar.view(-1, 1, 1, 1) * off.sign()).view(2, *images.shape).sum(0) / off.numel()
    assert_close(torch.autograd.grad(out.fm, images, retain_graph=True)[0], signs)
    assert set(out.gradient_norms()) == {"sds", "kl"}


def test_latents_have_no_pixels(prior, latents):
    with pytest.raises(OptionError, match="fm_target is 'pixels'; expected residual, paper or denoised where latents"):
        prior(latents, PROMPT, latents=True, fm_target="pixels")


def test_pixels_are_matched_at_the_checkpoints_size(prior, geometry):
    large = torch.rand(1, 3, 2 * geometry.image_size, 2 * geometry.image_size, generator=seeded(), requires_grad=True)
    out = prior(large, PROMPT, generator=seeded(), fm_target="pixels")
    assert torch.autograd.grad(out.fm, large)[0].abs().sum() > 0


def test_total_gradient_through_the_encoder(prior, images):
    weights = {"sds": 0.7, "fm": 0.3, "kl": 0.1}
    out = prior(images, PROMPT, generator=seeded())
    (found,) = torch.autograd.grad(out.total(weights), images)
    v = prior.autoencoder.encode(images)
    w = 1 - prior.denoiser.schedule.alpha_bar(out.t)
    expected = (
        0.7 * (v * (w * out.delta)).sum() / 2
        + 0.3 * fm_loss(prior.autoencoder.features, v, out.delta)
        + 0.1 * kl_loss(v)
    )
    assert_close(found, torch.autograd.grad(expected, images)[0], rtol=1e-4, atol=1e-6)


def test_gradient_norms_walk_the_decoder_back_once(prior, latents):
    walks = []
    prior.autoencoder.vae.decoder.conv_in.register_full_backward_hook(lambda *_: walks.append(1))
    out = prior(latents, PROMPT, latents=True, generator=seeded())
    norms = out.gradient_norms()
    out.total({"sds": 1.0, "fm": 1.0, "kl": 1.0}).backward()
    assert len(walks) == 1
    assert set(norms) == {"sds", "fm", "kl"}


@pytest.mark.parametrize("as_latents", [True, False])
def test_distillation_alone_never_decodes(prior, images, latents, as_latents, monkeypatch):
    refuse_decoder(prior, monkeypatch)
    out = prior(latents if as_latents else images, PROMPT, latents=as_latents, use_fm=False, use_kl=False)
    assert set(out.terms()) == {"sds"}
    out.total({"sds": 1.0}).backward()
    with pytest.raises(pytest.fail.Exception):
        prior(images, PROMPT)


def test_several_noises_for_a_picture_are_the_mean_of_one_after_another(prior, latents):
    """The same draws, by three noises for each of two latents, and by one noise for each, three times."""
    out = prior(latents, PROMPT, latents=True, generator=seeded(), n_noises=3)
    assert (out.t.shape, out.eps.shape, out.v.shape) == ((6,), (6, *latents.shape[1:]), latents.shape)
    assert len(set(out.t.tolist())) > 2  # each noise has a timestep of its own
    v = latents.detach().clone().requires_grad_()
    condition = prior.condition(PROMPT, "", 2, prior.options)
    expected = {"sds": 0.0, "fm": 0.0, "kl": kl_loss(v)}
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        t, eps = out.t[rows], out.eps[rows]
        delta = predict(prior.denoiser, out.z_t[rows], t, condition, prior.options).eps_hat.detach() - eps
        w = 1 - prior.denoiser.schedule.alpha_bar(t)
        expected["sds"] += (v * w * delta).sum() / 2 / 3  # has LSD's gradient, not its value
        expected["fm"] += fm_loss(prior.autoencoder.features, v, delta) / 3
    for name, term in out.terms().items():
        wanted = torch.autograd.grad(expected[name], v, retain_graph=True)[0]
        assert wanted.norm() > 0
        found = torch.autograd.grad(term, latents, retain_graph=True)[0]
        assert_close(found, wanted, rtol=1e-3, atol=1e-5, msg=name)
    assert_close(out.fm.detach(), expected["fm"].detach())
    assert_close(out.kl.detach(), expected["kl"].detach())


def test_one_call_of_the_denoiser_without_graph(prior, latents):
    grad = []
    prior.denoiser.module.register_forward_hook(lambda *_: grad.append(torch.is_grad_enabled()))
    prior(latents, PROMPT, latents=True)
    assert grad == [False]


def test_random_numbers_come_timesteps_first_then_noise(prior, latents):
    out = prior(latents, PROMPT, latents=True, generator=seeded(5))
    generator = seeded(5)
    assert torch.equal(out.t, torch.randint(20, 981, (2,), generator=generator))
    assert torch.equal(out.eps, torch.randn(latents.shape, generator=generator))
    torch.manual_seed(5)
    assert torch.equal(prior(latents, PROMPT, latents=True).eps, out.eps)


def test_a_generator_leaves_the_global_one_alone(prior, images):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = prior(images, PROMPT, generator=seeded(), sample_latents=True)
    assert torch.equal(torch.get_rng_state(), state)
    again = prior(images, PROMPT, generator=seeded(), sample_latents=True)
    assert torch.equal(first.lsd, again.lsd)
    assert torch.equal(first.v, again.v)
    assert not torch.equal(first.v, prior(images, PROMPT, generator=seeded()).v)


def test_prompts_matter(prior, latents):
    def score(*prompts):
        return prior(latents, *prompts, latents=True, generator=seeded(), use_fm=False).eps_hat

    assert not torch.equal(score("red"), score("blue"))
    assert not torch.equal(score("red"), score("red", "ugly"))
    one_each = score(["red", "blue"])
    assert_close(one_each[:1], score("red")[:1], rtol=1e-3, atol=1e-4)
    assert_close(one_each[1:], score("blue")[1:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prompt", ["", "  ", ["a mug", ""], ["one", "two", "three"]])
def test_bad_prompts(prior, latents, prompt):
    with pytest.raises(ValueError, match="prompt"):
        prior(latents, prompt, latents=True)


@pytest.mark.parametrize("score", ["sds", "csd", "nfsd"])
@pytest.mark.parametrize("target", ["residual", "denoised"])
def test_variants_run(prior, latents, score, target):
    out = prior(latents, PROMPT, "ugly", latents=True, score=score, fm_target=target, generator=seeded())
    (gradient,) = torch.autograd.grad(out.total({"sds": 1.0, "fm": 1.0, "kl": 1.0}), latents)
    assert gradient.isfinite().all()


def test_csd_has_no_noise_in_it(prior, latents):
    a = prior(latents, PROMPT, latents=True, score="csd", generator=seeded(), guidance_scale=1.0)
    b = prior(latents, PROMPT, latents=True, score="csd", generator=seeded(), guidance_scale=50.0)
    assert_close(a.delta, b.delta)


def test_clipping_bounds_the_gradient(prior, latents):
    free = prior(latents, PROMPT, latents=True, generator=seeded())
    clipped = prior(latents, PROMPT, latents=True, generator=seeded(), grad_clip=0.05)
    expected = torch.autograd.grad(free.lsd, latents)[0].clamp(-0.05 / 2, 0.05 / 2)
    assert_close(torch.autograd.grad(clipped.lsd, latents)[0], expected)


def test_other_sizes_are_resized(prior, geometry):
    size = geometry.image_size
    small = torch.rand(1, 3, size // 2 + 1, size // 2 + 3)
    out = prior(small, PROMPT, generator=seeded())
    expected = F.interpolate(small, (size, size), mode="bilinear", align_corners=False)
    assert torch.equal(out.v, prior.autoencoder.encode(expected))
    wide = prior(torch.randn(1, 4, 5, 7), PROMPT, latents=True, use_fm=False)
    assert wide.v.shape[-2:] == prior.denoiser.sample_size


def test_other_sizes_are_kept(prior, geometry):
    size = 2 * geometry.image_size
    out = prior(torch.rand(1, 3, size, size), PROMPT, resize_input=False, use_fm=False)
    assert out.v.shape[-1] == 2 * geometry.latent_size
    with pytest.raises(ValueError, match="multiples of"):
        prior(torch.rand(1, 3, size, size + 1), PROMPT, resize_input=False)


@pytest.mark.parametrize(("shape", "as_latents"), [((1, 4, 8, 8), False), ((1, 3, 8, 8), True)])
def test_wrong_channels(prior, shape, as_latents):
    with pytest.raises(ValueError, match="expected B [34] H W"):
        prior(torch.rand(shape), PROMPT, latents=as_latents)


def test_unknown_option(prior, images):
    with pytest.raises(TypeError, match="guidence_scale"):
        prior(images, PROMPT, guidence_scale=3)


def test_unknown_layer_is_found_on_loading(folder):
    with pytest.raises(ValueError, match="fm_layers.*up_7.*mid, up_0"):
        LatentPrior.from_pretrained(str(folder), device="cpu", fm_layers=["up_7"])


def test_timesteps_narrow_with_progress(prior, latents):
    def drawn(progress, **changes):
        many = latents.detach()[:1].expand(20, -1, -1, -1)
        out = prior(many, PROMPT, latents=True, progress=progress, use_fm=False, generator=seeded(), **changes)
        return out.t.min().item(), out.t.max().item()

    low, high = drawn(1.0, timestep_annealing="linear", anneal_end_percent=0.1)
    assert 20 <= low <= high <= 100
    assert drawn(0.0, timestep_annealing="linear", anneal_end_percent=0.1)[1] > 800
    assert drawn(0.25, timestep_annealing="sqrt") == (500, 500)


def test_without_a_gradient_there_are_only_values(prior, images):
    with torch.no_grad():
        out = prior(images, PROMPT, generator=seeded())
    with_gradient = prior(images, PROMPT, generator=seeded())
    assert not any(term.requires_grad for term in out.terms().values())
    assert_close(out.fm, with_gradient.fm.detach())


def test_weights_are_float32_on_a_cpu(folder):
    prior = LatentPrior.from_pretrained(str(folder), device="cpu", half_precision_weights=True)
    assert prior.denoiser.module.dtype == prior.autoencoder.vae.dtype == torch.float32


def test_half_precision_weights(prior, images):
    """On a CPU by hand: what CUDA does by default. float16 keeps three digits, the networks lose one more."""
    exact = prior(images, PROMPT, generator=seeded(), guidance_scale=1.0)
    gradient = torch.autograd.grad(exact.fm, images)[0]
    prior.denoiser.module.half()
    prior.autoencoder.vae.half()
    half = prior(images, PROMPT, generator=seeded(), guidance_scale=1.0)
    assert half.v.dtype == half.eps_hat.dtype == half.fm.dtype == torch.float32
    assert_close(half.lsd, exact.lsd, rtol=2e-2, atol=1e-2)
    assert_close(half.fm, exact.fm, rtol=2e-2, atol=1e-2)
    similarity = F.cosine_similarity(torch.autograd.grad(half.fm, images)[0].flatten(), gradient.flatten(), dim=0)
    assert similarity > 0.95


def test_single_file_scores_as_its_folder_does(single_file):
    file, folder = single_file
    outs = []
    for name in (file, folder):
        prior = LatentPrior.from_pretrained(str(name), device="cpu")
        outs.append(prior(torch.full((1, 3, 64, 64), 0.4), PROMPT, generator=seeded()))
    for name, term in outs[0].terms().items():
        assert_close(term, outs[1].terms()[name])


def test_text_encoder_that_does_not_fit(tmp_path):
    folder = write_checkpoint(tmp_path / "odd", GEOMETRIES["pocket"], cross_attention_dim=40)
    with pytest.raises(ValueError, match="pretrained_model_name_or_path.*32 wide"):
        LatentPrior.from_pretrained(str(folder), device="cpu")


def test_annealing_that_ends_where_it_began_is_allowed(prior):
    """anneal_end_percent = max_step_percent = 1: the last timestep, not one past it."""
    options = PriorOptions(max_step_percent=1.0, timestep_annealing="linear", anneal_end_percent=1.0)
    last = prior.denoiser.schedule.num_timesteps - 1
    assert prior.timestep_bounds(options, 0.0)[1] == prior.timestep_bounds(options, 1.0)[1] == last


def test_the_checkpoints_guidance_scale(tmp_path, pocket_like):
    folder = tmp_path / "prior"
    shutil.copytree(pocket_like, folder)
    assert LatentPrior.from_pretrained(str(folder), device="cpu").options.guidance_scale == 100.0
    (folder / "latent_prior.json").write_text('{"guidance_scale": 2.5}')
    prior = LatentPrior.from_pretrained(str(folder), device="cpu")
    assert prior.options.guidance_scale == prior.complete(PriorOptions()).guidance_scale == 2.5
    assert LatentPrior.from_pretrained(str(folder), device="cpu", guidance_scale=7.0).options.guidance_scale == 7.0
    x = torch.rand(1, 4, 16, 16)
    scores = [prior(x, PROMPT, latents=True, generator=seeded(), guidance_scale=s).delta for s in (None, 2.5, 7.0)]
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])
    StableDiffusionPipeline.from_pretrained(folder)  # which takes no notice of the file


@pytest.mark.parametrize("wrong", ['"high"', "-1", "NaN", "null"])
def test_a_guidance_scale_that_is_none(tmp_path, pocket_like, wrong):
    folder = tmp_path / "prior"
    shutil.copytree(pocket_like, folder)
    (folder / "latent_prior.json").write_text(f'{{"guidance_scale": {wrong}}}')
    with pytest.raises(OptionError, match=r"guidance_scale in the latent_prior\.json"):
        LatentPrior.from_pretrained(str(folder), device="cpu")


def test_the_readmes_example_has_the_pockets_scale():
    """The noise residual of the pocket prior: rms 1.1 at its own scale of 3, 20.9 at Stable Diffusion's 100."""
    prior = LatentPrior.from_pretrained("pocket", device="cpu")
    images = torch.rand(2, 3, 64, 64, generator=seeded(), requires_grad=True)
    out = prior(images, prompt="a red mug", generator=seeded())
    out.total({"sds": 0.01, "fm": 0.3, "kl": 0.01}).backward()
    assert out.delta.square().mean().sqrt() < 2.0


def test_noise_free_distillation_needs_a_negative_prompt(pocket_like):
    prior = LatentPrior.from_pretrained(str(pocket_like), device="cpu", score="nfsd")
    with pytest.raises(OptionError, match="^negative_prompt is ''; expected one that names flaws"):
        prior(torch.rand(1, 4, 16, 16), PROMPT, latents=True)


@pytest.fixture
def without_signal(tmp_path):
    """Builds checkpoints of zero terminal SNR: at the last timestep there is nothing but noise."""

    def build(geometry):
        folder = write_checkpoint(tmp_path / geometry, GEOMETRIES[geometry])
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_betas_zero_snr": True}))
        return LatentPrior.from_pretrained(str(folder), device="cpu", max_step_percent=1.0, min_step_percent=1.0)

    return build


@pytest.mark.parametrize("geometry", ["pocket", "single_level"])  # which predict v and the clean latent
@pytest.mark.parametrize("changes", [{}, {"guidance_rescale": 0.7}, {"fm_target": "denoised"}])
def test_zero_terminal_snr_is_scored_by_what_the_model_knows(without_signal, geometry, changes):
    prior = without_signal(geometry)
    shape = (1, 4, *prior.denoiser.sample_size)
    v = torch.randn(shape, generator=seeded(), requires_grad=True)
    out = prior(v, PROMPT, latents=True, generator=seeded(), guidance_scale=4.0, **changes)
    assert out.t.item() == 999 and prior.denoiser.schedule.alpha(out.t) == 0
    assert_close(out.z_t, out.eps, rtol=0, atol=0)
    with torch.no_grad():
        x0 = []
        for text in (PROMPT, ""):
            condition = prior.text_encoder([text])
            output = prior.denoiser.module(out.z_t, out.t, encoder_hidden_states=condition).sample
            x0.append(-output if geometry == "pocket" else output)
    expected = x0[1] + 4.0 * (x0[0] - x0[1])
    if phi := changes.get("guidance_rescale"):
        expected = expected * (phi * x0[0].std() / expected.std() + 1 - phi)
    assert_close(out.x0_hat, expected, rtol=1e-4, atol=1e-5)
    assert_close(out.delta, torch.zeros_like(out.delta))  # all is noise, and is taken for it
    out.total({"sds": 1.0, "fm": 1.0, "kl": 1.0}).backward()
    assert v.grad.isfinite().all()


def test_a_model_of_noise_is_refused_where_there_is_nothing_else(without_signal):
    prior = without_signal("stable")
    with pytest.raises(
        OptionError, match=r"max_step_percent is 1\.0; expected less than 0\.999: .* predicts the noise"
    ):
        prior(torch.rand(1, 4, 8, 8), PROMPT, latents=True)
    options = replace(prior.options, min_step_percent=0.02, max_step_percent=0.998)
    assert prior.timestep_bounds(options) == (20, 998)


def test_sampling_from_pure_noise(without_signal):
    prior = without_signal("pocket")
    out = prior(torch.rand(1, 4, 16, 16), PROMPT, latents=True, use_fm=False, generator=seeded(), guidance_scale=2.0)
    condition = prior.condition(PROMPT, "", 1, prior.options)
    pictures = guidance_pictures(prior, out, condition, prior.options, [torch.zeros(1)] * 3, 1)
    assert all(pictures[f"imgs_{name}"].isfinite().all() for name in ("noisy", "1step", "1orig", "final"))


def test_denoising_error_is_that_of_each_level_on_its_own(prior, latents):
    condition = prior.condition(PROMPT, "", 2, prior.options)
    draw, errors = seeded(3), []
    for step in (400, 550, 700):  # of Stable Diffusion's schedule
        t = torch.full((2,), step)
        noise = torch.randn(latents.shape, generator=draw)
        with torch.no_grad():
            x0_hat = prior.denoiser(prior.denoiser.schedule.add_noise(latents, noise, t), t, condition.cond)[1]
        errors.append((x0_hat - latents).square().mean(dim=(1, 2, 3)))
    with torch.no_grad():
        assert_close(prior.denoising_error(latents, condition, seed=3), torch.stack(errors).mean(dim=0))


def test_feature_matching_of_low_noise_alone(prior, latents):
    """The rows above count as zero in the mean; none below leaves a term of zero."""
    given = {"latents": True, "n_noises": 8, "use_sds": False, "use_kl": False}
    out = prior(latents, PROMPT, generator=seeded(), fm_max_step_percent=0.5, **given)
    low = out.t <= 500
    assert 0 < low.sum() < 16 and out.lsd is None and out.kl is None
    rows = latents.repeat(8, 1, 1, 1)[low]
    expected = fm_loss(prior.autoencoder.features, rows, out.delta[low]) * low.sum() / 16
    assert_close(out.fm, expected)
    found, wanted = (torch.autograd.grad(term, latents, retain_graph=True)[0] for term in (out.fm, expected))
    assert_close(found, wanted)
    none = prior(latents, PROMPT, generator=seeded(), fm_max_step_percent=0.5, min_step_percent=0.6, **given)
    assert none.fm == 0 and not torch.autograd.grad(none.fm, latents)[0].any()


def test_feature_matching_at_a_guidance_scale_of_its_own(prior, latents):
    given = {"latents": True, "generator": seeded(), "fm_guidance_scale": 2.0, "guidance_scale": 50.0}
    out = prior(latents, PROMPT, **given)
    condition = prior.condition(PROMPT, "", 2, prior.options)
    lower = predict(prior.denoiser, out.z_t, out.t, condition, PriorOptions(guidance_scale=2.0))
    assert_close(out.fm, fm_loss(prior.autoencoder.features, latents, lower.eps_hat - out.eps), rtol=1e-3, atol=1e-4)
    assert_close(out.delta, out.eps_hat - out.eps)  # the score keeps its own


def test_level_weights_must_be_as_many_as_layers(folder):
    with pytest.raises(OptionError, match=r"fm_level_weights is \[1.0, 1.0\]; expected 1 weights, for mid"):
        LatentPrior.from_pretrained(str(folder), device="cpu", fm_layers=["mid"], fm_level_weights=[1.0, 1.0])


@pytest.mark.parametrize("target", ["pixels", "pixel_step"])
def test_without_a_term_on_the_latents_the_encoder_has_no_way_back(prior, images, target):
    out = prior(images, PROMPT, generator=seeded(), fm_target=target, use_sds=False, use_kl=False)
    assert not out.v.requires_grad and out.terms().keys() == {"fm"}
    (found,) = torch.autograd.grad(out.fm, images)
    assert found.any() and out.gradient_norms() == {}
    decode = prior.autoencoder.decode
    if target == "pixel_step":
        step = decode(out.v - out.delta) - decode(out.v)
        assert_close(out.fm, step.abs().mean())
        clear = step.abs() > 1e-5  # one rounded to zero in one order of sums may have a sign in another
        assert_close(found[clear], -step[clear].sign() / step.numel())


def test_rewarded_noise_is_weighed_by_its_clean_estimates(prior, latents):
    given = {"latents": True, "n_noises": 3, "use_fm": False, "use_kl": False}
    rewards = []

    def reward(pictures):
        rewards.append(pictures.mean(dim=(1, 2, 3)))
        return rewards[-1]

    out = prior(latents, PROMPT, generator=seeded(), reward=reward, reward_strategy="best", **given)
    assert torch.equal(out.t.view(3, 2), out.t[:2].expand(3, 2))  # the noises of a picture are compared at one level
    best = torch.stack(rewards).argmax(dim=0)
    w = 1 - prior.denoiser.schedule.alpha_bar(out.t)
    residuals = (w * out.delta).view(3, 2, *out.delta.shape[1:])
    expected = torch.stack([residuals[best[b], b] for b in range(2)]) / 2
    assert_close(torch.autograd.grad(out.lsd, latents)[0], expected)
    with pytest.raises(OptionError, match="reward_strategy: 'best' needs a reward: pass one"):
        prior(latents, PROMPT, reward_strategy="best", **given)


def test_each_pixels_gradient_is_clipped_to_a_multiple_of_the_mean(prior, images):
    def found(bound):
        out = prior(images, PROMPT, generator=seeded(), use_fm=False, use_kl=False, pixel_grad_clip=bound)
        return torch.autograd.grad(out.lsd, images)[0]

    free, clipped = found(None), found(1.2)
    norm = free.norm(dim=1, keepdim=True)
    bound = 1.2 * norm.mean(dim=(2, 3), keepdim=True)
    assert 0 < (norm > bound).float().mean() < 1
    assert_close(clipped, torch.where(norm > bound, free * bound / norm, free))
    assert_close(found(1e6), free)
