"""Every option of Efficiency on and off: the same numbers, from pictures and from latents."""

import sys
from types import SimpleNamespace

import pytest
import torch
from latent_prior import OptionError
from latent_prior.models.efficiency import Efficiency
from latent_prior.models.latent_prior import LatentPrior
from torch.testing import assert_close


def seeded():
    return torch.Generator().manual_seed(0)


def outcome(folder, latents, **options):
    """Terms and the gradient of their sum on the input."""
    prior = LatentPrior.from_pretrained(str(folder), device="cpu", efficiency=Efficiency(**options), guidance_scale=3.0)
    shape = (2, 4, 16, 16) if latents else (2, 3, 64, 64)
    x = torch.rand(shape, generator=seeded()).requires_grad_()
    out = prior(x, "a red mug", latents=latents, generator=seeded())
    out.total({"sds": 0.1, "fm": 1.0, "kl": 1.0}).backward()
    return {**{name: term.detach() for name, term in out.terms().items()}, "gradient": x.grad}


@pytest.fixture(scope="module")
def plain(pocket_like):
    return {latents: outcome(pocket_like, latents) for latents in (True, False)}


@pytest.mark.parametrize("latents", [True, False], ids=["latents", "pictures"])
@pytest.mark.parametrize(
    ("option", "tolerance"),
    [
        ("enable_gradient_checkpointing", 0),
        ("enable_channels_last_format", 1e-3),  # convolutions sum in another order: measured 1e-5
        ("enable_attention_slicing", 1e-3),  # another kernel, whose rounding turns signs of L1: measured 3e-5
    ],
)
def test_numbers_are_the_same(plain, pocket_like, latents, option, tolerance):
    found = outcome(pocket_like, latents, **{option: True})
    for name, value in plain[latents].items():
        assert_close(found[name], value, rtol=tolerance, atol=tolerance * 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("latents", [True, False], ids=["latents", "pictures"])
def test_compiled_numbers_are_the_same(plain, pocket_like, latents, monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: compiled(*args, **options, backend="eager"))
    found = outcome(pocket_like, latents, enable_compile=True)
    torch._dynamo.reset()
    for name, value in plain[latents].items():
        assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("latents", [True, False], ids=["latents", "pictures"])
def test_checkpointing_runs_each_level_once_more(pocket_like, latents):
    """The decoder's levels that feature matching walks back, and the encoder's."""
    runs = []
    prior = LatentPrior.from_pretrained(
        str(pocket_like), device="cpu", efficiency=Efficiency(enable_gradient_checkpointing=True), fm_layers=["up_0"]
    )
    levels = [prior.autoencoder.vae.decoder.up_blocks[0]] + (
        [] if latents else [prior.autoencoder.vae.encoder.mid_block]
    )
    for level in levels:
        level.register_forward_pre_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    x = torch.rand((1, 4, 16, 16) if latents else (1, 3, 64, 64), requires_grad=True)
    prior(x, "a red mug", latents=latents).fm.backward()
    # of the decoder: the fixed maps without graph, the moving ones, and those again; of the encoder: two
    assert sorted(runs) == [False, True, True] + ([] if latents else [True, True])


@pytest.mark.parametrize("latents", [True, False], ids=["latents", "pictures"])
def test_token_merging_is_tomesds(plain, pocket_like, latents, monkeypatch):
    patched = []
    stand_in = SimpleNamespace(apply_patch=lambda model, **parameters: patched.append((model, parameters)))
    monkeypatch.setitem(sys.modules, "tomesd", stand_in)
    found = outcome(pocket_like, latents, token_merging=True, token_merging_params={"ratio": 0.3, "max_downsample": 2})
    ((unet, parameters),) = patched
    assert type(unet).__name__ == "UNet2DConditionModel" and parameters == {"ratio": 0.3, "max_downsample": 2}
    assert_close(found["gradient"], plain[latents]["gradient"])  # the stand-in merges nothing


def test_token_merging_without_tomesd(pocket_like, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomesd", None)
    with pytest.raises(OptionError, match="^token_merging: needs tomesd: pip install tomesd$"):
        outcome(pocket_like, True, token_merging=True)


def test_every_option_is_tested():
    assert set(Efficiency.__annotations__) == {
        "enable_channels_last_format",
        "enable_attention_slicing",
        "enable_gradient_checkpointing",
        "token_merging",
        "token_merging_params",
        "enable_compile",
    }
