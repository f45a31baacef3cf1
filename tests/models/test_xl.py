"""Stable Diffusion XL's architecture: two text encoders, a pooled embedding, sizes; against diffusers' own pipeline."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from latent_prior import host, register
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import PriorOptions
from latent_prior.models.packing import packed, unpacked
from tiny_checkpoints import write_xl_checkpoint

PROMPT = "a red mug"
register()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_xl_checkpoint(tmp_path_factory.mktemp("xl") / "prior")


@pytest.fixture(scope="module")
def pipeline(folder):
    return StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def prior(folder):
    return LatentPrior.from_pretrained(str(folder), device="cpu", guidance_scale=3.0)


@pytest.mark.parametrize("pooled_width", [3, 8, 20])
def test_what_is_packed_is_unpacked(pooled_width):
    hidden, pooled = torch.randn(2, 5, 8), torch.randn(2, pooled_width)
    for before, after in zip((hidden, pooled), unpacked(packed(hidden, pooled), pooled_width), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_embeddings_are_the_pipelines(prior, pipeline):
    hidden, _, pooled, _ = pipeline.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=True)
    ours = unpacked(prior.text_encoder([PROMPT]), prior.denoiser.network.pooled_width)
    torch.testing.assert_close(ours[0], hidden)
    torch.testing.assert_close(ours[1], pooled)


@pytest.mark.parametrize("zeros", [True, False, None])
def test_the_empty_prompt_is_the_pipelines(folder, tmp_path, monkeypatch, zeros):
    """In the library, in noise-free distillation's null, and through the prompt processor; None: the key is missing."""
    shutil.copytree(folder, copy := tmp_path / "prior")
    index = json.loads((copy / "model_index.json").read_text()) | {"force_zeros_for_empty_prompt": zeros}
    if zeros is None:
        index.pop("force_zeros_for_empty_prompt")
    (copy / "model_index.json").write_text(json.dumps(index))
    pipeline = StableDiffusionXLPipeline.from_pretrained(copy, torch_dtype=torch.float32)
    encoded = pipeline.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=True)
    expected = packed(encoded[1], encoded[3])
    assert bool((expected == 0).all()) == (zeros is not False)
    prior = LatentPrior.from_pretrained(str(copy), device="cpu")
    torch.testing.assert_close(prior.condition(PROMPT, "", 1, prior.options).uncond, expected)
    nfsd = prior.condition(PROMPT, "ugly", 1, PriorOptions(score="nfsd"))
    torch.testing.assert_close(nfsd.null, expected)
    assert nfsd.uncond.abs().max() > 0
    monkeypatch.chdir(tmp_path)  # where the processor's cache lies
    for _ in range(2):  # the second time from the cache
        settings = {"pretrained_model_name_or_path": str(copy), "prompt": PROMPT}
        utils = host.find("latent-prior-prompt-processor")(settings)()
        torch.testing.assert_close(utils.uncond_text_embeddings, expected)


def test_the_denoiser_is_told_what_the_pipeline_tells_it(prior, pipeline):
    z, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 700])
    hidden, _, pooled, _ = pipeline.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=True)
    sizes = pipeline._get_add_time_ids((64, 64), (0, 0), (64, 64), torch.float32, text_encoder_projection_dim=20)
    with torch.no_grad():
        v = pipeline.unet(
            z,
            t,
            encoder_hidden_states=hidden.expand(2, -1, -1),
            added_cond_kwargs={"text_embeds": pooled.expand(2, -1), "time_ids": sizes.expand(2, -1)},
        ).sample
        ours, _ = prior.denoiser(z, t, prior.text_encoder([PROMPT] * 2))
    schedule = prior.denoiser.schedule
    expected = schedule.alpha(t) * v + schedule.sigma(t) * z  # the tiny checkpoint predicts v
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_whole_objective_is_finite_and_differentiable(prior):
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    out = prior(images, prompt=PROMPT, generator=torch.Generator().manual_seed(0))
    out.total({"sds": 1.0, "fm": 1.0, "kl": 1.0}).backward()
    assert torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "part, key, value, message",
    [
        ("text_encoder_2", "hidden_size", 24, "text encoders .* together 56 wide"),
        ("text_encoder_2", "projection_dim", 12, "pools to 12"),
        ("unet", "addition_embed_type", "image", "added conditions of type 'image'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, part, key, value, message):
    folder = write_xl_checkpoint(tmp_path / "prior")
    config = folder / part / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=message):
        LatentPrior.from_pretrained(str(folder), device="cpu")
