import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from latent_prior import OptionError, host
from latent_prior.guidance.latent_prior import SCHEDULED, SWITCHES, LatentPriorGuidance
from latent_prior.models.efficiency import Efficiency
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from omegaconf import ListConfig
from torch.testing import assert_close


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def call(guidance, processor, batch, *, latents=True, seed=0, **changes):
    torch.manual_seed(seed)
    rgb = batch.latents if latents else batch.rgb
    return guidance(rgb, processor(), **batch.cameras, rgb_as_latents=latents, **changes)


@pytest.fixture
def guidance(make_guidance):
    return make_guidance()


@pytest.fixture
def processor(make_processor):
    return make_processor()


def test_it_is_registered():
    assert host.find("latent-prior-guidance") is LatentPriorGuidance


@pytest.mark.parametrize("latents", [True, False])
def test_what_comes_back(guidance, processor, batch, latents):
    out = call(guidance, processor, batch, latents=latents)
    losses = {"loss_sds", "loss_fm", "loss_kl"}
    norms = {"grad_norm", "grad_norm_sds", "grad_norm_fm", "grad_norm_kl"}
    assert set(out) == losses | norms | {"min_step", "max_step"}
    assert all(torch.as_tensor(value).ndim == 0 for value in out.values())
    assert (out["min_step"], out["max_step"]) == (20, 980)
    assert all(out[name].requires_grad for name in losses)
    assert not any(out[name].requires_grad for name in norms)


def test_losses_and_norms_by_hand(guidance, processor, batch):
    """Everything from scratch: threestudio's order of random numbers, the plain formulas, autograd."""
    out = call(guidance, processor, batch)
    torch.manual_seed(0)
    t = torch.randint(20, 981, (3,))
    v = batch.latents.detach().permute(0, 3, 1, 2).contiguous().requires_grad_()
    eps = torch.randn_like(v)
    alpha_bar = guidance.prior.denoiser.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
    z_t = (alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * eps).detach()
    cameras = [batch.cameras[name] for name in ("elevation", "azimuth", "camera_distances")]
    cond, uncond = processor().get_text_embeddings(*cameras, True).chunk(2)
    with torch.no_grad():
        eps_cond, eps_uncond = (guidance.prior.denoiser(z_t, t, rows)[0] for rows in (cond, uncond))
    delta = eps_uncond + 7.0 * (eps_cond - eps_uncond) - eps
    grad = (1 - alpha_bar) * delta
    features = guidance.prior.autoencoder.features
    fm = sum((a - b).abs().mean() for a, b in zip(features(v), features((v - delta).detach()), strict=True))
    mean, variance = v.mean((2, 3)), v.var((2, 3), unbiased=False)
    kl = (0.5 * (mean**2 + variance - variance.log() - 1)).mean()
    close = {"rtol": 1e-3, "atol": 1e-4}  # single denoiser calls here, one batched call there
    assert_close(out["loss_sds"].detach(), 0.5 * grad.square().sum() / 3, **close)
    assert_close(out["loss_fm"], fm, **close)
    assert_close(out["loss_kl"], kl, **close)
    assert_close(out["grad_norm"], grad.norm(), **close)
    assert_close(out["grad_norm_sds"], grad.norm() / 3, **close)
    assert_close(out["grad_norm_fm"], torch.autograd.grad(fm, v)[0].norm(), **close)
    assert_close(out["grad_norm_kl"], torch.autograd.grad(kl, v)[0].norm(), **close)
    loss = out["loss_sds"] + 0.3 * out["loss_fm"] + 0.1 * out["loss_kl"]
    expected = (grad * v).sum() / 3 + 0.3 * fm_again(features, v, delta) + 0.1 * kl_again(v)
    (found,) = torch.autograd.grad(loss, batch.latents)
    assert_close(found.permute(0, 3, 1, 2), torch.autograd.grad(expected, v)[0], **close)


def fm_again(features, v, delta):
    return sum((a - b).abs().mean() for a, b in zip(features(v), features((v - delta).detach()), strict=True))


def kl_again(v):
    mean, variance = v.mean((2, 3)), v.var((2, 3), unbiased=False)
    return (0.5 * (mean**2 + variance - variance.log() - 1)).mean()


def test_runs_are_reproducible(guidance, processor, batch):
    first, again, other = (call(guidance, processor, batch, latents=False, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first["loss_sds"], again["loss_sds"])
    assert not torch.equal(first["loss_sds"], other["loss_sds"])


def test_a_generator_of_its_own(guidance, processor, batch):
    guidance.generator = torch.Generator().manual_seed(9)
    first = call(guidance, processor, batch, seed=1)
    guidance.generator.manual_seed(9)
    assert torch.equal(call(guidance, processor, batch, seed=2)["loss_sds"], first["loss_sds"])


def test_pictures_of_other_sizes(guidance, processor, batch, geometry):
    small = F.interpolate(batch.rgb.detach().permute(0, 3, 1, 2), scale_factor=0.5).permute(0, 2, 3, 1)
    batch.rgb = small.requires_grad_()
    out = call(guidance, processor, batch, latents=False)
    out["loss_sds"].backward()
    assert batch.rgb.grad.norm() > 0
    odd = torch.rand(3, geometry.image_size + 1, geometry.image_size, 3)
    with pytest.raises(ValueError, match=r"data\.height.*resize_input"):
        batch.rgb = odd
        guidance.cfg.resize_input = False
        guidance.update_step(0, 0)
        call(guidance, processor, batch, latents=False)


def test_half_precision_input(guidance, processor, batch):
    batch.latents = batch.latents.detach().half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(guidance, processor, batch)
    assert out["loss_fm"].dtype == torch.float32
    assert torch.autograd.grad(out["loss_fm"], batch.latents)[0].dtype == torch.float16


def test_terms_left_out(make_guidance, processor, batch, monkeypatch):
    guidance = make_guidance(use_fm=False, use_kl=False)
    monkeypatch.setattr(guidance.prior.autoencoder.vae.decoder.mid_block, "forward", lambda *_: pytest.fail("decoded"))
    out = call(guidance, processor, batch)
    assert {name for name in out if name.startswith("loss_")} == {"loss_sds"}


def test_terms_follow_their_weights(make_guidance, processor, batch):
    guidance = make_guidance(use_fm=[10, 0.0, 0.05, 20], use_kl=0.0)
    always, computed = make_guidance(), {}
    for step in (0, 10, 11, 20):
        guidance.update_step(0, step)
        computed[step] = call(guidance, processor, batch)
    expected = call(always, processor, batch)
    assert [step for step, out in computed.items() if "loss_fm" in out] == [11, 20]
    assert not any("loss_kl" in out for out in computed.values())
    assert_close(computed[11]["loss_fm"], expected["loss_fm"])
    for out in computed.values():  # what is left out changes nothing else
        assert_close(out["loss_sds"], expected["loss_sds"], rtol=0, atol=0)


def test_without_a_gradient(guidance, processor, batch):
    with torch.no_grad():
        out = call(guidance, processor, batch)
    expected = call(guidance, processor, batch)
    assert not any(name.startswith("grad_norm_") for name in out)
    assert_close(out["grad_norm"], expected["grad_norm"])


def test_schedules(make_guidance):
    guidance = make_guidance(
        guidance_scale=[100.0, 10.0, 100],
        grad_clip=[0, 0.5, 2.0, 1000],
        min_step_percent=0.02,
        max_step_percent=[0, 0.98, 0.5, 200],
        guidance_rescale=[0.0, 0.5, 100],
    )
    assert (guidance.options.guidance_scale, guidance.options.grad_clip) == (100.0, 0.5)
    assert (guidance.min_step, guidance.max_step) == (20, 980)
    guidance.update_step(0, 50)
    assert_close(guidance.options.guidance_scale, 55.0)
    assert_close(guidance.options.guidance_rescale, 0.25)
    guidance.update_step(epoch=0, global_step=1000)
    assert (guidance.options.guidance_scale, guidance.options.grad_clip) == (10.0, 2.0)
    assert (guidance.min_step, guidance.max_step) == (20, 500)


def test_schedules_reach_the_host_as_its_config_nodes(make_guidance, monkeypatch):
    """threestudio's C takes numbers and OmegaConf's lists alone."""
    given, ours = [], host.C
    monkeypatch.setattr(host, "C", lambda value, *moment: given.append(value) or ours(value, *moment))
    make_guidance(guidance_scale=[2.0, 4.0, 100], use_fm=[10, 0.0, 0.05, 20], use_directional=[0.0, 0.0, 10])
    assert {type(value) for value in given} == {float, ListConfig}


def test_annealing_follows_the_steps(make_guidance):
    guidance = make_guidance(timestep_annealing="sqrt", trainer_max_steps=100)
    guidance.update_step(0, 25)
    assert guidance.min_step == guidance.max_step == 500
    guidance.update_step(0, 1000)
    assert guidance.min_step == guidance.max_step == 20


def test_clipping(make_guidance, processor, batch):
    out = call(make_guidance(grad_clip=0.01), processor, batch)
    (gradient,) = torch.autograd.grad(out["loss_sds"], batch.latents)
    assert gradient.abs().max() <= 0.01 / 3 + 1e-8
    assert_close(out["grad_norm"], 3 * gradient.norm())


def test_views_ask_for_their_own_prompts(make_guidance, processor, batch, monkeypatch):
    asked = []
    for view_dependent in (True, False):
        guidance = make_guidance(view_dependent_prompting=view_dependent)
        forward = guidance.prior.denoiser.module.forward

        def watched(*args, forward=forward, encoder_hidden_states, **kwargs):
            asked.append(encoder_hidden_states)
            return forward(*args, encoder_hidden_states=encoder_hidden_states, **kwargs)

        monkeypatch.setattr(guidance.prior.denoiser.module, "forward", watched)
        call(guidance, processor, batch)
    by_view, plain = asked
    prompts = processor()
    # azimuth 0 is the front, 170 the back, elevation 80 overhead; rows are conditional first
    assert_close(by_view[:3], prompts.text_embeddings_vd[[1, 2, 3]])
    assert_close(plain[:3], prompts.text_embeddings.expand(3, -1, -1))
    assert_close(by_view[3:], prompts.uncond_text_embeddings.expand(3, -1, -1))


def test_perp_neg(guidance, make_processor, batch):
    calls = []
    guidance.prior.denoiser.module.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    out = call(guidance, make_processor(use_perp_neg=True), batch)
    assert calls == [4 * 3]
    assert out["loss_sds"].isfinite()


@pytest.mark.parametrize("score", ["csd", "nfsd"])
def test_score_variants(make_guidance, make_processor, batch, score):
    guidance = make_guidance(score=score)
    out = call(guidance, make_processor(negative_prompt="blurry"), batch)
    assert not torch.equal(out["loss_sds"], call(make_guidance(), make_processor(), batch)["loss_sds"])
    with pytest.raises(ValueError, match="perp-neg"):
        call(guidance, make_processor(use_perp_neg=True), batch)


def test_prompts_of_another_checkpoint(guidance, make_processor, batch, folders, geometry):
    other = next(path for shape, path in folders.items() if shape.text_width != geometry.text_width)
    with pytest.raises(ValueError, match=r"system\.prompt_processor\.pretrained_model_name_or_path"):
        call(guidance, make_processor(pretrained_model_name_or_path=str(other)), batch)


@pytest.mark.parametrize("latents", [True, False])
def test_wrong_channels(guidance, processor, batch, latents):
    batch.rgb, batch.latents = batch.latents, batch.rgb
    with pytest.raises(ValueError, match="n_feature_dims"):
        call(guidance, processor, batch, latents=latents)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(guidance, processor, batch, bad):
    batch.latents.data[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="loss_sds = .*loss_fm = .*loss_kl") as error:
        call(guidance, processor, batch)
    assert "\n" not in str(error.value)


def test_only_the_culprit_is_named(guidance, processor, batch, monkeypatch):
    features = guidance.prior.autoencoder.features
    monkeypatch.setattr(guidance.prior.autoencoder, "features", lambda v, layers: [f * torch.inf for f in features(v)])
    with pytest.raises(ValueError, match="diverged: loss_fm = nan") as error:
        call(guidance, processor, batch)
    assert "loss_sds" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"fm_layers": ["up_9"]}, "fm_layers.*up_9.*mid, up_0"),
        ({"fm_layers": []}, r"system\.guidance\.fm_layers is \[\].*mid, up_0"),
        ({"weighting_strategy": "sdss"}, r"system\.guidance\.weighting_strategy.*did you mean"),
        ({"max_step_percent": [0.98, 0.5, 100], "min_step_percent": 0.99}, "max_step_percent"),
        ({"max_step_percent": [0, 0.98, 0.01, 5000]}, "max_step_percent is 0.01"),  # found now, not at step 4948
        ({"guidance_scale": [100, 50, -1, 200, -5, 300]}, r"guidance_scale is -\d"),
        ({"use_kl": [0.1, 0.2]}, r"system\.guidance\.use_kl is \[0.1, 0.2\]"),
        ({"use_directional": [0.1]}, r"system\.guidance\.use_directional is \[0.1\]"),
        ({"trainer_max_steps": 0}, "trainer_max_steps"),
        ({"pretrained_model_name_or_path": "./missing"}, "pretrained_model_name_or_path.*does not exist"),
    ],
)
def test_bad_config(make_guidance, wrong, match):
    with pytest.raises(ValueError, match=match) as error:
        make_guidance(**wrong)
    assert "\n" not in str(error.value)


BACK_AGAIN = [0, 0.98, 0.01, 500, 0.98, 1000]  # right at both ends, wrong in the middle


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"max_step_percent": BACK_AGAIN}, r"system\.guidance\.max_step_percent is 0\.01"),
        ({"max_step_percent": [0, 0.98, 0.01, 5.0, 0.98, 10.0]}, "max_step_percent is 0.01"),  # counted in epochs
        ({"min_step_percent": [0, 0.02, 0.6, 300], "max_step_percent": [200, 0.98, 0.5, 400, 0.98, 500]}, "max_step"),
        ({"min_step_percent": [0, 0.02, 0.3, 50, 0.02, 100], "anneal_end_percent": 0.2}, "anneal_end_percent is 0.2"),
        ({"guidance_rescale": [0, 0.0, 0.5, 100, 2.0, 100, 0.5, 200]}, "guidance_rescale is 2.0"),  # a jump
        ({"guidance_scale": [0, 5.0, -5.0, 100, 5.0, 200]}, "guidance_scale is -"),
    ],
)
def test_schedules_are_checked_at_every_knot_before_a_model_is_loaded(make_guidance, wrong, match, monkeypatch):
    monkeypatch.setattr(LatentPrior, "from_pretrained", lambda *_, **__: pytest.fail("loaded the model"))
    with pytest.raises(OptionError, match=match):
        make_guidance(**wrong)


def test_unknown_key(make_guidance):
    with pytest.raises((ValueError, TypeError), match="guidence_scale"):
        make_guidance(guidence_scale=3)


def test_decode_latents(guidance, batch, geometry):
    v = batch.latents.detach().permute(0, 3, 1, 2)
    size = geometry.image_size
    decoded = guidance.decode_latents(v)
    assert decoded.shape == (3, 3, size, size)
    assert_close(decoded, guidance.prior.autoencoder.decode(v))
    assert guidance.decode_latents(v, 4, 8).shape == (3, 3, 4 * geometry.downscale, 8 * geometry.downscale)
    coarse = F.avg_pool2d(v, 2)
    expected = F.interpolate(coarse, (geometry.latent_size,) * 2, mode="bilinear", align_corners=False)
    assert_close(guidance.decode_latents(coarse), guidance.prior.autoencoder.decode(expected))


def test_it_is_no_module_and_has_nothing_to_train(guidance):
    assert not isinstance(guidance, torch.nn.Module)
    assert not any(p.requires_grad for p in guidance.prior.denoiser.module.parameters())


def test_pixels_of_latents_are_refused_in_the_first_step(make_guidance, processor, batch):
    """Also where feature matching starts late; and pictures have them."""
    guidance = make_guidance(fm_target="pixels", use_fm=[10, 0.0, 1.0, 20])
    with pytest.raises(OptionError, match=r"system\.guidance\.fm_target is 'pixels'"):
        call(guidance, processor, batch)
    guidance.update_step(0, 20)
    assert call(guidance, processor, batch, latents=False)["loss_fm"] > 0
    assert set(call(make_guidance(fm_target="pixels", use_fm=0.0), processor, batch)) >= {"loss_sds", "loss_kl"}


@pytest.mark.parametrize("perp_neg", [False, True])
def test_guidance_eval(guidance, make_processor, batch, geometry, perp_neg):
    processor = make_processor(use_perp_neg=perp_neg)
    guidance.cfg.max_items_eval = 2
    guidance.min_step, guidance.max_step = 100, 140  # short sampling runs
    plain = call(guidance, processor, batch, latents=False)
    after = torch.rand(1)
    out = call(guidance, processor, batch, latents=False, guidance_eval=True)
    assert torch.equal(torch.rand(1), after)  # looking draws no random numbers
    assert torch.equal(out["loss_sds"], plain["loss_sds"])
    pictures = out["eval"]
    for name in ("imgs_noisy", "imgs_1step", "imgs_1orig", "imgs_final"):
        assert pictures[name].shape == (2, geometry.image_size, geometry.image_size, 3)
        assert 0 <= pictures[name].min() <= pictures[name].max() <= 1
        assert not pictures[name].requires_grad
    assert (pictures["bs"], len(pictures["texts"]), len(pictures["noise_levels"])) == (2, 2, 2)
    assert all(0.1 <= level <= 0.14 for level in pictures["noise_levels"])
    assert pictures["texts"][1].endswith("e20.0\na170.0\nc2.00")


def test_noise_lies_on_the_places_that_are_seen(make_guidance, processor, batch):
    """At one timestep nothing is left to chance, and a picture of the same places gets the same noise."""
    settings = {"min_step_percent": 0.5, "max_step_percent": 0.5, "n_noises": 2, "max_items_eval": 3}
    size = batch.rgb.shape[1]
    place = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(1)).expand(3, -1, -1, -1)
    seen = {"points": place, "opacity": torch.ones(3, size, size, 1)}
    noises = {}
    for name, changes in {"a": {}, "b": {}, "other": {"noise_seed": 1}, "drawn": {"noise_cell": None}}.items():
        guidance = make_guidance(**settings | {"noise_cell": 0.05} | changes)
        heard, score = [], guidance.prior.score
        guidance.prior.score = lambda *args, score=score, heard=heard: heard.append(score(*args)) or heard[0]
        call(guidance, processor, batch, seed=len(noises), **seen)
        noises[name] = heard[0].eps
    assert torch.equal(noises["a"], noises["b"])
    assert (noises["a"] == noises["a"][0]).all() and len(noises["a"]) == 6
    assert noises["a"].var().item() == pytest.approx(1, abs=0.2)
    assert not torch.equal(noises["a"], noises["other"])
    assert not torch.equal(noises["drawn"][0], noises["drawn"][1])


def test_noise_on_places_needs_places(make_guidance, processor, batch):
    guidance = make_guidance(noise_cell=0.05)
    with pytest.raises(
        OptionError, match=r"system.guidance.noise_cell is 0.05; expected null: this system does not say"
    ):
        call(guidance, processor, batch)
    with pytest.raises(OptionError, match=r"system.guidance.noise_cell is 0.0; expected a length above 0, or null"):
        make_guidance(noise_cell=0.0)


def test_guidance_eval_of_a_nearly_clean_latent(make_guidance, processor, batch):
    guidance = make_guidance(min_step_percent=0.0, max_step_percent=0.0, max_items_eval=-1, n_noises=2)
    pictures = call(guidance, processor, batch, guidance_eval=True)["eval"]
    decoded = guidance.decode_latents(batch.latents.detach().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert pictures["bs"] == 3
    # sigma is 0.03 at t = 0
    assert (pictures["imgs_noisy"] - decoded).abs().mean() < 0.05
    assert_close(pictures["imgs_final"], pictures["imgs_1orig"])


def test_guidance_eval_of_nothing(make_guidance, processor, batch):
    guidance = make_guidance(max_items_eval=0)
    out = call(guidance, processor, batch, guidance_eval=True)
    assert "eval" not in out
    assert torch.equal(out["loss_sds"], call(guidance, processor, batch)["loss_sds"])


def test_noise_free_distillation_needs_a_negative_prompt(make_guidance, processor, make_processor, batch):
    guidance = make_guidance(score="nfsd")
    with pytest.raises(
        OptionError, match=r"system\.prompt_processor\.negative_prompt is ''; expected one that names flaws"
    ):
        call(guidance, processor, batch)
    assert call(guidance, make_processor(negative_prompt="blurry"), batch)["loss_sds"].isfinite()


def test_without_a_scale_of_its_own_it_takes_the_checkpoints(make_guidance, processor, batch):
    guidance, explicit = make_guidance(guidance_scale=None), make_guidance(guidance_scale=100.0)
    assert guidance.options.guidance_scale == 100.0  # the tiny checkpoints say nothing
    assert torch.equal(call(guidance, processor, batch)["loss_sds"], call(explicit, processor, batch)["loss_sds"])
    pocket = make_guidance(guidance_scale=None, pretrained_model_name_or_path="pocket")
    pocket.update_step(0, 5)
    assert pocket.options.guidance_scale == 3.0


def test_an_option_is_written_once():
    """The config is that of the models' options; what may be a schedule is typed so, and resolved."""
    assert issubclass(LatentPriorGuidance.Config, PriorOptions) and issubclass(LatentPriorGuidance.Config, Efficiency)
    assert {name for name, kind in PriorOptions.__annotations__.items() if kind is Any} == {*SCHEDULED, *SWITCHES}


def test_a_score_that_changes_at_a_step(make_guidance, processor, batch):
    changing, plain, other = make_guidance(score=["sds", 5, "csd"]), make_guidance(), make_guidance(score="csd")
    for step, same in ((4, plain), (5, other)):
        changing.update_step(0, step)
        assert torch.equal(call(changing, processor, batch)["loss_sds"], call(same, processor, batch)["loss_sds"])
    with pytest.raises(OptionError, match=r"system\.guidance\.score is 'sdss'"):
        make_guidance(score=["sds", 5, "sdss"])  # before a model is loaded


def test_the_bridges_prompts_are_the_target_and_the_source(make_guidance, make_processor, batch):
    """In the words of each view, so that only the modifiers differ."""
    guidance = make_guidance(score="bridge")
    processor = make_processor(
        prompt="a", src_modifier="b", tgt_modifier="s", prompt_back="c"
    )  # short: a tiny tokenizer
    out = processor()
    cameras = tuple(batch.cameras[name] for name in ("elevation", "azimuth", "camera_distances"))
    condition = guidance._condition(out, cameras)
    views = [processor.prompts_vd[k] for k in out.direction_index(*cameras)]
    encoder = guidance.prior.text_encoder
    assert_close(condition.cond, encoder([f"{view}s" for view in views]))
    assert_close(condition.uncond, encoder([f"{view}b" for view in views]))
    found = call(guidance, processor, batch)
    difference = guidance.prior.score(
        batch.latents.permute(0, 3, 1, 2), condition, (20, 980), guidance.options, seeded(0)
    ).delta
    assert found["loss_sds"] > 0 and difference.isfinite().all()
    with pytest.raises(OptionError, match=r"score is bridge, which needs .*system\.prompt_processor\.src_modifier"):
        call(guidance, make_processor(), batch)


def test_rewards_are_clips_for_the_prompt(make_guidance, processor, batch):
    plain, rewarded = (make_guidance(n_noises=3, reward_strategy=name) for name in ("none", "weighted"))
    found = call(rewarded, processor, batch, latents=False)["loss_sds"]
    assert found.isfinite() and found != call(plain, processor, batch, latents=False)["loss_sds"]
    with pytest.raises(OptionError, match=r"system\.guidance\.reward_clip: '/nowhere' does not exist"):
        make_guidance(n_noises=3, reward_strategy="best", reward_clip="/nowhere")


def test_noise_on_the_surface_is_not_for_scores_that_find_theirs(make_guidance):
    with pytest.raises(OptionError, match=r"system\.guidance\.noise_cell is 0\.1; expected null: the score 'sdi'"):
        make_guidance(noise_cell=0.1, score=["sds", 5, "sdi"])


@pytest.mark.parametrize("directional", [True, False])
def test_the_encoder_has_a_way_back_only_for_a_term_on_the_latents(make_guidance, processor, batch, directional):
    guidance = make_guidance(use_sds=False, use_kl=False, fm_target="pixel_step", use_directional=directional)
    out = call(guidance, processor, batch, latents=False, source_rgb=batch.rgb.detach().flip(1))
    assert "grad_norm" not in out and out["loss_fm"].requires_grad
    assert ("loss_directional" in out and out["loss_directional"].requires_grad) == directional
    assert guidance._to_latents(batch.rgb, False).requires_grad == directional


def test_a_lora_that_is_trained_along_needs_peft(make_guidance, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(OptionError, match=r"system\.guidance\.score: 'vsd' needs peft"):
        make_guidance(score=["sds", 100, "vsd"])
    assert make_guidance()
