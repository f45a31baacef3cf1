"""Stable Diffusion 3's and Flux's architectures, against diffusers' own pipelines on the same random checkpoints."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from latent_prior import OptionError
from latent_prior.guidance.evaluation import guidance_pictures
from latent_prior.models import loading
from latent_prior.models.checkpoint import resolve
from latent_prior.models.efficiency import Efficiency
from latent_prior.models.families import FLUX, SD3
from latent_prior.models.latent_colours import LatentColours
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.models.options import SCORES
from latent_prior.models.packing import unpacked
from latent_prior.models.text_encoder import TextEncoder
from latent_prior.prior import x0_from_eps
from safetensors.torch import save_file
from tiny_transformers import write_flux, write_flux_single_file, write_sd3, write_sd3_single_file
from torch.testing import assert_close

PROMPT, NEGATIVE = "a red mug", "ugly, blurry"
CPU = torch.device("cpu")
WRITERS = {
    "sd3": write_sd3,
    "sd3 without T5": lambda folder: write_sd3(folder, t5=False),
    "flux": write_flux,
    "flux without guidance inside": lambda folder: write_flux(folder, distilled=False),
}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request, tmp_path_factory):
    return WRITERS[request.param](tmp_path_factory.mktemp("checkpoint") / "prior")


@pytest.fixture(scope="module")
def pipeline(folder):
    checkpoint = resolve(str(folder))
    cls = StableDiffusion3Pipeline if checkpoint.family is SD3 else FluxPipeline
    without = {} if checkpoint.has_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = cls.from_pretrained(folder, torch_dtype=torch.float32, **without)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def prior(folder):
    return LatentPrior.from_pretrained(str(folder), device="cpu", guidance_scale=3.0)


def latents(count=2, side=16):
    return torch.randn(count, 16, side, side, generator=torch.Generator().manual_seed(0))


def encoded(pipeline, prompt):
    """(hidden states, pooled embedding) of diffusers' pipeline."""
    if isinstance(pipeline, FluxPipeline):
        return pipeline.encode_prompt(prompt, None, device="cpu")[:2]
    found = pipeline.encode_prompt(prompt, None, None, device="cpu", do_classifier_free_guidance=False)
    return found[0], found[2]


@pytest.mark.parametrize("prompt", [PROMPT, NEGATIVE, "", "a mug that is " + "very " * 100 + "red"])
def test_embeddings_are_the_pipelines(folder, prior, pipeline, prompt):
    hidden, pooled = unpacked(prior.text_encoder([prompt]), prior.denoiser.network.pooled_width)
    if resolve(str(folder)).family is SD3 and not resolve(str(folder)).has_t5:
        hidden = torch.cat([hidden, hidden[:, -1:].expand(-1, SD3.t5_tokens - 1, -1)], dim=1)  # of one row of zeros
    expected = encoded(pipeline, prompt)
    assert_close(hidden, expected[0], rtol=1e-5, atol=1e-5)
    assert_close(pooled, expected[1], rtol=1e-5, atol=1e-5)


def seen_in_the_loop(pipeline):
    """The latents, times and velocities of the rows of the pipeline's denoising loop, and their prompts, in order."""
    seen = []

    def note(module, args, given, output):
        z, velocity = given["hidden_states"], output[0]
        if isinstance(pipeline, FluxPipeline):
            z, velocity = (pipeline._unpack_latents(x, 64, 64, 4) for x in (z, velocity))
        seen.append((z, given["timestep"] * (1000 if isinstance(pipeline, FluxPipeline) else 1), velocity))

    handle = pipeline.transformer.register_forward_hook(note, with_kwargs=True)
    common = {"height": 64, "width": 64, "num_inference_steps": 4, "output_type": "latent", "negative_prompt": NEGATIVE}
    generator = torch.Generator().manual_seed(0)
    if isinstance(pipeline, FluxPipeline):  # which calls once for each prompt
        pipeline(PROMPT, true_cfg_scale=3.0, guidance_scale=3.5, generator=generator, **common)
    else:
        pipeline(PROMPT, guidance_scale=3.0, generator=generator, **common)
    handle.remove()
    z, time, velocity = (torch.cat(rows) for rows in zip(*seen, strict=True))
    prompts = [PROMPT, NEGATIVE] if isinstance(pipeline, FluxPipeline) else [NEGATIVE, PROMPT]
    return z, time, velocity, prompts * (len(z) // 2)


def test_the_contract_gives_what_the_pipelines_loop_sees(prior, pipeline):
    z, time, velocity, prompts = seen_in_the_loop(pipeline)
    assert len(z) == 8 and len(time.unique()) == 4
    sigma, shift = time.double() / 1000, prior.denoiser.schedule.shift
    t = sigma / (shift - (shift - 1) * sigma) * 1000 - 1  # where our schedule has this level
    assert_close(prior.denoiser.schedule.network_time(t), time, rtol=1e-6, atol=1e-3)
    with torch.no_grad():
        found = prior.denoiser.network(z, time, prior.text_encoder(prompts))
        eps_hat, x0_hat = prior.denoiser(z, t, prior.text_encoder(prompts))
    sigma = sigma.view(-1, 1, 1, 1).float()
    assert_close(found, velocity, rtol=1e-5, atol=1e-5)
    assert_close(eps_hat, z + (1 - sigma) * velocity, rtol=1e-5, atol=1e-5)
    assert_close(x0_hat, z - sigma * velocity, rtol=1e-5, atol=1e-5)


def test_latents_are_the_pipelines(prior, pipeline):
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    vae = pipeline.vae
    v = prior.autoencoder.encode(pictures)
    mode = vae.encode(pictures * 2 - 1).latent_dist.mode()
    assert_close(v, (mode - vae.config.shift_factor) * vae.config.scaling_factor)
    decoded = pipeline.image_processor.postprocess(vae.decode(mode).sample, output_type="pt")
    assert_close(prior.autoencoder.decode(v), decoded, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_finite_and_differentiable(prior, score):
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    given = {"score": score, "weighting_strategy": "velocity", "timestep_sampling": "logit_normal"}
    out = prior(images, PROMPT, NEGATIVE, generator=generator, inversion_n_steps=3, ism_step_s=400, **given)
    out.total({"sds": 1.0, "fm": 1.0, "kl": 1.0}).backward()
    assert torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


@pytest.mark.parametrize("target", ["residual", "paper", "denoised", "pixels", "pixel_step"])
@pytest.mark.parametrize("annealing", ["linear", "sqrt", "dreamtime"])
def test_targets_and_annealings(prior, target, annealing):
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    given = {
        "fm_target": target,
        "timestep_annealing": annealing,
        "fm_step": "sigma_over_alpha",
        "guidance_rescale": 0.5,
    }
    out = prior(images, PROMPT, progress=0.3, generator=torch.Generator().manual_seed(0), **given)
    out.total({"sds": 1.0, "fm": 1.0, "kl": 1.0}).backward()
    assert torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


def test_at_pure_noise_both_estimates_are_known(prior):
    z, t = latents(), torch.tensor([999, 999])
    with torch.no_grad():
        eps_hat, x0_hat = prior.denoiser(z, t, prior.text_encoder([PROMPT] * 2))
    assert_close(eps_hat, z)
    assert x0_hat.isfinite().all() and prior.denoiser.last_timestep == 999
    t = torch.tensor([500, 990])
    with torch.no_grad():
        eps_hat, x0_hat = prior.denoiser(z, t, prior.text_encoder([PROMPT] * 2))
    schedule = prior.denoiser.schedule
    assert_close(x0_from_eps(z, eps_hat, schedule.alpha(t), schedule.sigma(t)), x0_hat, rtol=1e-3, atol=1e-3)


def test_pictures_of_what_the_guidance_sees(prior):
    out = prior(latents(), PROMPT, latents=True, generator=torch.Generator().manual_seed(0))
    condition = prior.condition(PROMPT, "", 2, prior.options)
    pictures = guidance_pictures(prior, out, condition, prior.options, [torch.zeros(2)] * 3, 2)
    for name in ("noisy", "1step", "1orig", "final"):
        assert pictures[f"imgs_{name}"].shape == (2, 64, 64, 3) and pictures[f"imgs_{name}"].isfinite().all()


def test_sixteen_channels_have_colours(prior):
    colours = LatentColours.fit(prior.autoencoder)
    assert colours.matrix.shape == (16, 3) and colours(torch.randn(5, 16)).shape == (5, 3)


def test_sizes(prior):
    assert prior.image_size == (64, 64)
    with pytest.raises(OptionError, match="latents of 15x16; the denoiser takes multiples of 2: .*data.height"):
        prior(torch.randn(1, 16, 15, 16), PROMPT, latents=True, resize_input=False, use_fm=False)
    out = prior(torch.randn(1, 16, 8, 12), PROMPT, latents=True, resize_input=False, use_fm=False)
    assert out.z_t.shape == (1, 16, 8, 12)


def test_pictures_are_resized_to_the_size_that_is_asked_for(prior):
    out = prior(torch.rand(1, 3, 40, 40), PROMPT, input_size=32, use_fm=False)
    assert out.v.shape == (1, 16, 8, 8)
    out = prior(torch.rand(1, 16, 10, 10), PROMPT, latents=True, input_size=32, use_fm=False)
    assert out.v.shape == (1, 16, 8, 8)
    with pytest.raises(OptionError, match="^input_size is 36; expected a multiple of 8"):
        prior.check_fit(replace(prior.options, input_size=36))


def test_a_seed_gives_the_same(prior):
    first, second = (
        prior(latents(), PROMPT, latents=True, generator=torch.Generator().manual_seed(4)).delta for _ in range(2)
    )
    assert torch.equal(first, second)


# Without diffusers' pipeline. -----------------------------------------------------------------------------------------


def test_sd3_takes_pictures_up_to_its_positions(tmp_path):
    prior = LatentPrior.from_pretrained(str(write_sd3(tmp_path / "prior", t5=False)), device="cpu")
    with pytest.raises(OptionError, match="latents of 26x16; the denoiser takes at most 24x24"):
        prior(torch.randn(1, 16, 26, 16), PROMPT, latents=True, resize_input=False, use_fm=False)


def test_the_embedded_guidance_scale_is_told(tmp_path):
    folder, z, t = write_flux(tmp_path / "prior"), latents(), torch.tensor([300, 700])
    outputs = []
    for scale in (3.5, 3.5, 7.0):
        prior = LatentPrior.from_pretrained(str(folder), device="cpu", embedded_guidance_scale=scale)
        with torch.no_grad():
            outputs.append(prior.denoiser(z, t, prior.text_encoder([PROMPT] * 2))[0])
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])


def test_the_shift_of_a_schedule_that_depends_on_the_size(tmp_path):
    """That of diffusers' pipeline at the size that the checkpoint was trained on, here 8x8 tokens."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    folder, s = write_flux(tmp_path / "prior"), torch.arange(1, 1001) / 1000
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    file = folder / "transformer" / "config.json"
    for tokens, change in ((64, {}), (4096, {"sample_size": 128})):
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        schedule, _ = loading.load_schedule(resolve(str(folder)))
        expected = scheduler.time_shift(calculate_shift(tokens, max_shift=1.15), 1.0, s)
        assert_close(schedule.sigma(torch.arange(1000)).flatten(), expected)
    config = json.loads(file.read_text())
    del config["sample_size"]  # as in the real one's
    file.write_text(json.dumps(config))
    assert loading.load_schedule(resolve(str(folder)))[0] == schedule


@pytest.mark.parametrize(
    ("writer", "part", "changes", "match"),
    [
        (write_sd3, "transformer", {"joint_attention_dim": 40}, "CLIPs .* together 48 wide.*joint_attention_dim 40"),
        (write_sd3, "text_encoder_3", {"d_model": 40}, "T5 .* is 40 wide.*joint_attention_dim 48"),
        (write_sd3, "transformer", {"pooled_projection_dim": 30}, "pool to 52.*pooled_projection_dim 30"),
        (write_sd3, "transformer", {"in_channels": 4}, "does not fit its autoencoder: .*'transformer in': 4"),
        (write_sd3, "transformer", {"sample_size": 15}, "sample_size of 15, which is not a multiple"),
        (write_sd3, "transformer", {"sample_size": 26}, "sample_size of 26.* up to 24"),
        (write_sd3, "transformer", {"_class_name": "SanaTransformer2DModel"}, "class SanaTransformer2DModel"),
        (write_sd3, "scheduler", {"_class_name": "DDIMScheduler"}, "flow-matching model, but its scheduler is DDIM"),
        (write_sd3, "scheduler", {"shift": -1.0}, "shift of a flow is -1"),
        (write_sd3, "vae", {"shift_factor": float("nan")}, "scaling_factor or shift_factor of no use"),
        (
            write_flux,
            "transformer",
            {"in_channels": 384, "out_channels": 64},
            "takes 384 channels and gives 64.*filling",
        ),
        (write_flux, "transformer", {"in_channels": 62}, "62 channels; expected a multiple of 4"),
        (write_flux, "transformer", {"pooled_projection_dim": 30}, "pool to 32.*pooled_projection_dim 30"),
        (write_flux, "text_encoder_2", {"d_model": 40}, "T5 .* is 40 wide"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_line(tmp_path, writer, part, changes, match):
    folder = writer(tmp_path / "prior")
    config = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(OptionError, match=match) as error:
        LatentPrior.from_pretrained(str(folder), device="cpu")
    assert str(error.value).startswith("pretrained_model_name_or_path: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["transformer", "vae", "text_encoder", "tokenizer_2", "text_encoder_2", "scheduler"])
@pytest.mark.parametrize("writer", [write_sd3, write_flux])
def test_a_missing_part_is_named(tmp_path, writer, lost):
    folder = writer(tmp_path / "prior")
    shutil.rmtree(folder / lost)
    with pytest.raises(OptionError, match=f"{'denoiser|checkpoint' if lost == 'transformer' else lost}"):
        LatentPrior.from_pretrained(str(folder), device="cpu").text_encoder([PROMPT])


@pytest.mark.parametrize("writer", [write_sd3, write_flux])
def test_what_a_transformer_does_not_take_is_refused(tmp_path, writer):
    folder = str(writer(tmp_path / "prior"))
    for name, efficiency in {
        "enable_attention_slicing": Efficiency(enable_attention_slicing=True),
        "token_merging": Efficiency(token_merging=True),
    }.items():
        with pytest.raises(OptionError, match=f"^{name} is True; expected false"):
            LatentPrior.from_pretrained(folder, device="cpu", efficiency=efficiency)
    with pytest.raises(OptionError, match="^prediction_type is 'epsilon'; expected null for a flow"):
        LatentPrior.from_pretrained(folder, device="cpu", prediction_type="epsilon")


def test_the_cache_knows_whether_there_is_a_t5(tmp_path):
    folder = write_sd3(tmp_path / "prior")
    whole = TextEncoder(resolve(str(folder)), CPU, cache_dir=tmp_path / "cache")
    with_t5 = whole([PROMPT])
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    without = TextEncoder(resolve(str(folder)), CPU, cache_dir=tmp_path / "cache")([PROMPT])
    assert with_t5.shape[1] - without.shape[1] == SD3.t5_tokens - 1


def test_bfloat16_is_the_half_precision():
    assert {SD3.half, FLUX.half} == {torch.bfloat16}


@pytest.mark.parametrize("writer", [write_sd3, write_flux])
def test_in_bfloat16_the_objective_is_about_the_same(tmp_path, writer):
    prior = LatentPrior.from_pretrained(str(writer(tmp_path / "prior")), device="cpu", guidance_scale=1.0)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        prior.denoiser.module.to(dtype)
        prior.autoencoder.vae.to(dtype)
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        prior(images, PROMPT, generator=torch.Generator().manual_seed(0)).total({"sds": 1, "fm": 1, "kl": 1}).backward()
        gradients.append(images.grad.flatten())
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


# Single files and LoRAs. ----------------------------------------------------------------------------------------------


def configs_beside(file, folder, keep=()):
    """The folder's configs beside a single file, with the weights of the parts that are kept."""
    shutil.copytree(folder, beside := file.with_suffix(""))
    for weights in beside.glob("*/*.safetensors"):
        if weights.parent.name not in keep:
            weights.unlink()
    return resolve(str(file))


def assert_same_weights(found, expected, parts):
    for part in parts:
        load = {"vae": loading.load_vae, "transformer": loading.load_denoiser}.get(
            part, lambda *where, part=part: loading.load_text_encoder(*where, part)[1]
        )
        ours, theirs = load(found, torch.float32).state_dict(), load(expected, torch.float32).state_dict()
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(tensor, ours[name]), name


@pytest.mark.parametrize("t5", [True, False])
def test_a_single_file_of_sd3(tmp_path, t5):
    folder = write_sd3(tmp_path / "whole", t5)
    found = configs_beside(write_sd3_single_file(tmp_path / "one.safetensors", folder), folder)
    assert (found.kind, found.family, found.has_t5) == ("single_file", SD3, t5)
    assert_same_weights(found, resolve(str(folder)), ["transformer", "vae", *found.towers])


def test_what_a_single_file_of_sd3_lacks_comes_from_the_folder_beside_it(tmp_path):
    """As the published files, which have no text encoders; the T5 is not missed where there is none."""
    folder = write_sd3(tmp_path / "whole", t5=False)
    file = write_sd3_single_file(tmp_path / "one.safetensors", folder, without=("text_encoders.", "first_stage_model."))
    found = configs_beside(file, folder, keep=("vae", "text_encoder", "text_encoder_2"))
    assert_same_weights(found, resolve(str(folder)), ["transformer", "vae", "text_encoder", "text_encoder_2"])
    (file.with_suffix("") / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(OptionError, match="no diffusion_pytorch_model.safetensors in"):
        loading.load_vae(found, torch.float32)


def test_a_single_file_of_flux(tmp_path, monkeypatch):
    """diffusers' converter knows the width of the real one alone, so it is given ours."""
    from types import FunctionType

    from diffusers.loaders import single_file_model

    entry = single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    convert = entry["checkpoint_mapping_fn"]
    code = convert.__code__.replace(
        co_consts=tuple(16 if value == 3072 else value for value in convert.__code__.co_consts)
    )
    narrow = FunctionType(code, convert.__globals__, closure=convert.__closure__)
    monkeypatch.setitem(entry, "checkpoint_mapping_fn", narrow)
    folder = write_flux(tmp_path / "whole")
    file = write_flux_single_file(tmp_path / "one.safetensors", folder)
    found = configs_beside(file, folder, keep=("vae", "text_encoder", "text_encoder_2"))
    assert (found.kind, found.family) == ("single_file", FLUX)
    assert_same_weights(found, resolve(str(folder)), ["transformer", "vae", "text_encoder", "text_encoder_2"])


@pytest.mark.parametrize("writer", [write_sd3, write_flux])
def test_a_lora_is_merged(tmp_path, writer):
    folder, layer = writer(tmp_path / "prior"), "transformer_blocks.0.attn.to_q"
    g = torch.Generator().manual_seed(0)
    plain = dict(loading.load_denoiser(resolve(str(folder)), torch.float32).named_modules())[layer].weight
    down, up = torch.randn(2, plain.shape[1], generator=g), torch.randn(plain.shape[0], 2, generator=g)
    text = loading.load_text_encoder(resolve(str(folder)), torch.float32)[1]
    text_layer = "text_model.encoder.layers.0.self_attn.q_proj"
    by_name = dict(text.named_modules())
    before = by_name[text_layer if text_layer in by_name else text_layer.removeprefix("text_model.")].weight
    text_down, text_up = torch.randn(2, before.shape[1], generator=g), torch.randn(before.shape[0], 2, generator=g)
    save_file(
        {
            f"transformer.{layer}.lora_A.weight": down,
            f"transformer.{layer}.lora_B.weight": up,
            f"text_encoder.{text_layer}.lora_linear_layer.down.weight": text_down,
            f"text_encoder.{text_layer}.lora_linear_layer.up.weight": text_up,
        },
        tmp_path / "lora.safetensors",
    )
    changed = resolve(str(folder), lora=[f"{tmp_path / 'lora.safetensors'}:0.5"])
    merged = dict(loading.load_denoiser(changed, torch.float32).named_modules())[layer].weight
    assert_close(merged, plain + 0.5 * up @ down)
    by_name = dict(loading.load_text_encoder(changed, torch.float32)[1].named_modules())
    after = by_name[text_layer if text_layer in by_name else text_layer.removeprefix("text_model.")].weight
    assert_close(after, before + 0.5 * text_up @ text_down)


@pytest.mark.parametrize("writer", [write_sd3, write_flux])
def test_adapters_of_other_models_are_refused(tmp_path, writer):
    folder = str(writer(tmp_path / "prior"))
    save_file(
        {"transformer.transformer_blocks.9.attn.to_q.lora_A.weight": torch.zeros(2, 16)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(OptionError, match="1 of its 1 weights do not fit the checkpoint"):
        loading.load_denoiser(resolve(folder, lora=[str(tmp_path / "a.safetensors")]), torch.float32)
    save_file({"<word>": torch.zeros(32)}, tmp_path / "b.safetensors")
    with pytest.raises(OptionError, match="takes no added words"):
        loading.load_text_encoder(resolve(folder, [str(tmp_path / "b.safetensors")]), torch.float32)
