"""The pocket flow prior: its model, its batches, and one command from pictures to a checkpoint."""

import json

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from latent_prior.cli import main
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.models.families import SD3
from latent_prior.models.joint_attention import RepeatedLastToken
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.pocket import pictures
from latent_prior.pocket.training import everything
from latent_prior.pocket.training.assemble import projecting
from latent_prior.pocket.training.clip import tokens_of
from latent_prior.pocket.training.flow import build, scheduler
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer


@pytest.fixture(scope="module")
def first():
    text = CLIPTextModel.from_pretrained(POCKET_FOLDER / "text_encoder", torch_dtype=torch.float32)
    clip = CLIPModel.from_pretrained(POCKET_FOLDER / "clip", torch_dtype=torch.float32)
    return projecting(text, clip).eval()


def shaken(model):
    """The model with weights everywhere; at the start its velocity is zero."""
    g = torch.Generator().manual_seed(0)
    for parameter in model.transformer.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=g)
    return model.eval()


def test_at_the_start_the_velocity_is_zero(first):
    ids = tokens_of(CLIPTokenizer.from_pretrained(POCKET_FOLDER / "tokenizer"), ["a red mug"])
    z = torch.randn(1, 4, 16, 16)
    assert torch.equal(build(first)(z, torch.tensor([0.5]), ids, first), torch.zeros_like(z))


def test_one_token_of_zeros_is_as_good_as_all(first):
    ids = tokens_of(CLIPTokenizer.from_pretrained(POCKET_FOLDER / "tokenizer"), ["a red mug", ""])
    model, sigma, z = shaken(build(first)), torch.tensor([0.3, 0.9]), torch.randn(2, 4, 16, 16)
    outputs = [encoder(ids, output_hidden_states=True) for encoder in (first, model.second)]
    hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    zeros = hidden.new_zeros(2, SD3.t5_tokens, hidden.shape[-1])
    pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
    with torch.no_grad():
        expected = model.transformer(z, torch.cat([hidden, zeros], dim=1), pooled, sigma * 1000).sample
        other = model(z, sigma, ids, first)
        model.transformer.set_attn_processor(RepeatedLastToken(SD3.t5_tokens))
        found = model(z, sigma, ids, first)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other, expected, rtol=1e-2, atol=1e-2)  # where it stands for itself


def test_it_is_small(first):
    model = build(first)
    others = sum(file.stat().st_size for file in (POCKET_FOLDER / "vae").iterdir())
    assert 2 * sum(p.numel() for module in (model, first) for p in module.parameters()) + others < 16e6


def test_the_levels_of_training_are_the_schedulers():
    sigmas = scheduler().sigmas
    t = torch.arange(1000) / 1000
    torch.testing.assert_close(sigmas.flip(0)[:-1], 3 * t[1:] / (1 + 2 * t[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_one_command_trains_it_and_others_load_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "SHARD", 12)
    out, work = tmp_path / "weights", tmp_path / "work"
    argv = ["train-pocket", "--prior", "flow", "--quick", "--work", str(work), "--out", str(out)]
    assert main(argv) == 0
    figures = json.loads((out / "quality.json").read_text())
    assert set(figures) == {"training pairs", "held-out pairs"}
    assert sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) < 16e6
    without = {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(out, torch_dtype=torch.float32, **without)
    seen = []
    pipeline.transformer.register_forward_hook(lambda *given: seen.append(given), with_kwargs=True)
    pipeline("a red mug", num_inference_steps=2, guidance_scale=1.0, output_type="latent")
    _, _, given, (velocity,) = seen[0]
    prior = LatentPrior.from_pretrained(str(out), device="cpu")
    assert prior.guidance_scale == 3.0 and prior.image_size == (64, 64)
    with torch.no_grad():
        found = prior.denoiser.network(given["hidden_states"], given["timestep"], prior.text_encoder(["a red mug"]))
    torch.testing.assert_close(found, velocity, rtol=1e-4, atol=1e-5)
    state = torch.load(work / "flow" / "state.pt", weights_only=True)
    assert main(argv) == 0  # nothing is left to do but to write it again
    again = torch.load(work / "flow" / "state.pt", weights_only=True)
    assert state["step"] == again["step"] == 2 and torch.equal(state["rng"], again["rng"])


def test_wrong_flags_are_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert main(["train-pocket", "--prior", "flow", "--out", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert "holds 'thesis.tex'" in capsys.readouterr().err
    assert main(["train-pocket", "--prior", "flow", "--start-from", "pocket", "--only-unet"]) == 2
    assert "--only-unet" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--start-from.*no vae"):
        everything.train_flow_prior(tmp_path / "w", tmp_path / "o", start_from=tmp_path / "nothing")
