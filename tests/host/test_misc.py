"""Devices, paths, checkpoints and activations."""

import math

import pytest
import torch
from latent_prior.host.embedded import misc
from latent_prior.host.embedded.activations import get_activation
from latent_prior.host.embedded.misc import find_last_path, load_module_weights


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


def test_a_path_keeps_its_folders_spaces_and_knows_home(tmp_path, monkeypatch):
    run = tmp_path / "my LAST runs" / "a_mug@1"
    run.mkdir(parents=True)
    (run / "last.ckpt").touch()
    assert find_last_path(str(run / "last.ckpt")) == str(run / "last.ckpt")
    (tmp_path / "two words" / "a_mug@1").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_last_path("~/two words/a mug@LAST") == str(tmp_path / "two words" / "a_mug@1")


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


def test_modules_can_be_left_out(checkpoint):
    state, epoch, step = load_module_weights(checkpoint, ignore_modules=["geometry"])
    assert (sorted(state), epoch, step) == (["geometry2.grid", "material.w"], 1, 7)


def test_bad_checkpoints_are_the_users_errors(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        load_module_weights(str(tmp_path / "none.ckpt"))
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_module_weights(str(broken))
    torch.save({"weights": torch.ones(1)}, broken)
    with pytest.raises(ValueError, match="has no state_dict, epoch, global_step"):
        load_module_weights(str(broken))


class Trap:
    fired = False

    def __reduce__(self):
        return (setattr, (Trap, "fired", True))


def test_checkpoints_run_no_code(tmp_path):
    path = tmp_path / "trap.ckpt"
    torch.save({"state_dict": {"x": Trap()}, "epoch": 0, "global_step": 0}, path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_module_weights(str(path))
    assert not Trap.fired


@pytest.mark.parametrize(
    "name, formula",
    [
        (None, lambda x: x),
        ("none", lambda x: x),
        ("trunc_exp", math.exp),
        ("relu", lambda x: max(x, 0.0)),
        ("Sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("softplus", lambda x: math.log1p(math.exp(x))),
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
    with pytest.raises(ValueError, match="color_activation is 'sigmoidd'; expected one of .*; did you mean 'sigmoid'"):
        get_activation("sigmoidd", "color_activation")
    with pytest.raises(ValueError, match="activation is 'interpolate'"):  # a function, but not an activation
        get_activation("interpolate")


def test_checkpoints_below_home_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"state_dict": {}, "epoch": 0, "global_step": 3}, tmp_path / "last.ckpt")
    assert load_module_weights("~/last.ckpt")[2] == 3
    (tmp_path / "out" / "mug@1").mkdir(parents=True)
    assert find_last_path("~/out/mug@LAST") == str(tmp_path / "out" / "mug@1")
