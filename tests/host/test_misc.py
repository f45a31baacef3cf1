"""Devices, paths, checkpoints, chunks and activations."""

import math

import pytest
import torch
from latent_prior.host.embedded import misc
from latent_prior.host.embedded.misc import chunk_batch, find_last_path, get_activation, load_module_weights


def test_device_follows_the_override(monkeypatch):
    monkeypatch.setenv("LATENT_PRIOR_DEVICE", "meta")
    assert misc.get_device() == torch.device("meta")
    monkeypatch.setenv("LATENT_PRIOR_DEVICE", "toaster")
    with pytest.raises(ValueError, match="LATENT_PRIOR_DEVICE='toaster'"):
        misc.get_device()
    monkeypatch.delenv("LATENT_PRIOR_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert misc.get_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert misc.get_device() == torch.device("cuda:3")


def test_last_is_the_newest_trial(tmp_path):
    for name in ("a_mug@20230101-000000", "a_mug@20240101-000000", "a_cup@20250101-000000"):
        (tmp_path / name / "ckpts").mkdir(parents=True)
        (tmp_path / name / "ckpts" / "last.ckpt").touch()
    asked = str(tmp_path / "a mug@LAST" / "ckpts" / "last.ckpt")
    assert find_last_path(asked) == str(tmp_path / "a_mug@20240101-000000" / "ckpts" / "last.ckpt")
    assert find_last_path(None) is None
    assert find_last_path("plain path/x.ckpt") == "plain path/x.ckpt"


def test_last_without_a_trial_or_file_is_an_error(tmp_path):
    (tmp_path / "mug@1").mkdir()
    with pytest.raises(ValueError, match="no trial"):
        find_last_path(str(tmp_path / "cup@LAST" / "x.ckpt"))
    with pytest.raises(ValueError, match="has no x.ckpt"):
        find_last_path(str(tmp_path / "mug@LAST" / "x.ckpt"))


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run.ckpt"
    state = {"geometry.grid": torch.ones(2), "geometry2.grid": torch.zeros(2), "material.w": torch.full((1,), 3.0)}
    torch.save({"state_dict": state, "epoch": 1, "global_step": 7}, path)
    return str(path)


def test_module_weights_are_picked_by_module(checkpoint):
    state, epoch, step = load_module_weights(checkpoint, module_name="geometry", map_location="cpu")
    assert (list(state), epoch, step) == (["grid"], 1, 7)
    torch.testing.assert_close(state["grid"], torch.ones(2))
    state, *_ = load_module_weights(checkpoint, ignore_modules=["geometry"], map_location="cpu")
    assert sorted(state) == ["geometry2.grid", "material.w"]


def test_bad_checkpoints_are_value_errors(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="no module 'renderer'; it holds geometry, geometry2, material"):
        load_module_weights(checkpoint, module_name="renderer", map_location="cpu")
    with pytest.raises(ValueError, match="no checkpoint at"):
        load_module_weights(str(tmp_path / "none.ckpt"))
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        load_module_weights(str(broken), map_location="cpu")
    torch.save({"weights": torch.ones(1)}, broken)
    with pytest.raises(ValueError, match="has no state_dict, epoch, global_step"):
        load_module_weights(str(broken), map_location="cpu")


class Trap:
    fired = False

    def __reduce__(self):
        return (setattr, (Trap, "fired", True))


def test_checkpoints_run_no_code(tmp_path):
    path = tmp_path / "trap.ckpt"
    torch.save({"state_dict": {"x": Trap()}, "epoch": 0, "global_step": 0}, path)
    with pytest.raises(ValueError, match="no readable checkpoint"):
        load_module_weights(str(path), map_location="cpu")
    assert not Trap.fired


@pytest.mark.parametrize("rows, size", [(10, 3), (9, 3), (2, 5), (0, 4), (7, 0), (7, -1)])
def test_chunks_join_to_the_whole(rows, size):
    x = torch.randn(rows, 2)
    seen = []

    def func(x, offset, scale=None):
        seen.append(x.shape[0])
        return {"y": x * offset, "scaled": x * scale, "none": None}

    scale = torch.randn(rows, 1)
    out = chunk_batch(func, size, x, 3.0, scale=scale)
    torch.testing.assert_close(out["y"], x * 3.0)
    torch.testing.assert_close(out["scaled"], x * scale)
    assert out["none"] is None
    assert sum(seen) == rows and (size <= 0 or max(seen) <= size)


def test_chunks_keep_the_kind_and_the_gradient():
    x = torch.randn(5, requires_grad=True)
    assert isinstance(chunk_batch(lambda x: (x, x + 1), 2, x), tuple)
    assert isinstance(chunk_batch(lambda x: [x], 2, x), list)
    chunk_batch(lambda x: x**2, 2, x).sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
    with torch.no_grad():
        assert not chunk_batch(lambda _: x[:1], 2, x).requires_grad
    assert chunk_batch(lambda x: None, 2, x) is None


def test_chunks_refuse_what_they_cannot_join():
    with pytest.raises(ValueError, match="at least one tensor"):
        chunk_batch(lambda n: n, 2, 5)
    with pytest.raises(ValueError, match="not str"):
        chunk_batch(lambda x: "text", 2, torch.ones(3))


def srgb(x):
    y = 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055
    return min(max(y, 0.0), 1.0)


@pytest.mark.parametrize(
    "name, formula",
    [
        (None, lambda x: x),
        ("none", lambda x: x),
        ("exp", math.exp),
        ("shifted_exp", lambda x: math.exp(x - 1)),
        ("trunc_exp", math.exp),
        ("shifted_trunc_exp", lambda x: math.exp(x - 1)),
        ("Sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("softplus", lambda x: math.log1p(math.exp(x))),
        ("shifted_softplus", lambda x: math.log1p(math.exp(x - 1))),
        ("scale_-11_01", lambda x: (x + 1) / 2),
        ("lin2srgb", srgb),
    ],
)
def test_activations_by_formula(name, formula):
    x = torch.tensor([-2.0, -0.1, 0.0, 0.002, 0.3, 0.9, 3.0], dtype=torch.float64)
    expected = torch.tensor([formula(v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(get_activation(name)(x), expected)


def test_truncated_exponential_bounds_the_gradient_only():
    x = torch.tensor([1.0, 15.0, 20.0], dtype=torch.float64, requires_grad=True)
    y = get_activation("trunc_exp")(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), x.detach().exp())
    torch.testing.assert_close(x.grad, torch.tensor([1.0, 15.0, 15.0], dtype=torch.float64).exp())


def test_unknown_activation_suggests_the_nearest():
    with pytest.raises(ValueError, match="unknown activation 'sigmoidd'; did you mean 'sigmoid'"):
        get_activation("sigmoidd")


def test_checkpoints_below_home_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"state_dict": {}, "epoch": 0, "global_step": 3}, tmp_path / "last.ckpt")
    assert load_module_weights("~/last.ckpt")[2] == 3
    (tmp_path / "out" / "mug@1").mkdir(parents=True)
    assert find_last_path("~/out/mug@LAST") == str(tmp_path / "out" / "mug@1")
