"""Whether training can go on from a checkpoint's state: it is compared with the state that this run has at its start.

torch and Lightning take what a checkpoint says: an optimiser's moment of another size is read beyond its end by fused
kernels, and a schedule is stepped as often as it says. Weights are compared in checkpoint.py.
"""

import copy
import re
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files.pickles import shown
from latent_prior.files.torch_file import read_torch
from latent_prior.runs.resume import KEY, rng_state, set_rng_state

VERSION = "pytorch-lightning_version"


def check_resumable(path: Path, trainer: pl.Trainer, system: pl.LightningModule) -> None:
    """OptionError, naming what is wrong, unless training can resume from the checkpoint."""
    content = read_torch(path)
    wrong = (
        _mismatch(content, {"optimizer_states": [], "lr_schedulers": [], VERSION: ""}, "")
        or ("" if re.fullmatch(r"[0-9]{1,3}(\.[0-9a-z]{1,9}){1,3}([.+][\w.]{1,20})?", content[VERSION]) else VERSION)
        or _in_optimizers(content, system)
        or _in_callbacks(content.get("callbacks", {}), trainer)
        or _in_random_state(content.get(KEY))
    )
    if not wrong and content[VERSION] == pl.__version__:  # Lightning converts those of others
        wrong = _mismatch(content, {"loops": {"fit_loop": trainer.fit_loop.state_dict()}}, "")
    if wrong:
        raise OptionError.because(
            f"{str(path)!r} cannot be resumed from: {shown(wrong, 100)} is not as expected", "resume"
        )


def _mismatch(found: Any, expected: Any, where: str) -> str:
    """The name of the first part of `found` that differs in type or shape from `expected`; empty if there is none.

    Keys that only `found` has, and values where `expected` has None, may be anything; an empty list stands for any.
    """
    if isinstance(expected, dict):
        if not isinstance(found, dict) or not expected.keys() <= found.keys():
            missing = isinstance(found, dict) and next(key for key in expected if key not in found)
            return f"{where}{missing}" if missing else where or "it"
        parts = [(found[key], value, f"{where}{key}.") for key, value in expected.items()]
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or (expected and len(found) != len(expected)):
            return where
        parts = [(*pair, f"{where}{i}.") for i, pair in enumerate(zip(found, expected, strict=False))]
    else:
        return "" if _is_like(found, expected) else where
    return next(filter(None, (_mismatch(*part) for part in parts)), "")


def _is_like(found: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor) and isinstance(found, Tensor):
        return found.shape == expected.shape and found.dtype == expected.dtype
    if isinstance(expected, Tensor):
        return expected.ndim == 0 and type(found) in (int, float)  # as older versions of torch count steps
    if isinstance(expected, float):
        return type(found) in (int, float)
    return expected is None or type(found) is type(expected)


def _in_optimizers(content: dict, system: pl.LightningModule) -> str:
    """What is wrong with the states of the optimiser and its schedule."""
    fresh, states, schedules = system.configure_optimizers(), content["optimizer_states"], content["lr_schedulers"]
    if not isinstance(fresh, dict):
        return ""
    expected = fresh["optimizer"].state_dict()
    groups = [{"params": group["params"]} for group in expected["param_groups"]]
    if wrong := _mismatch(states, [{"param_groups": groups, "state": {}}], "optimizer_states."):
        return wrong
    for i, group in enumerate(states[0]["param_groups"]):
        if group["params"] != groups[i]["params"]:
            return f"optimizer_states.0.param_groups.{i}.params"
    stepped = _stepped(fresh["optimizer"])
    for i, state in states[0]["state"].items():
        if wrong := _mismatch(state, stepped.get(i, ()), f"optimizer_states.0.state.{i}."):
            return wrong
    schedule = fresh.get("lr_scheduler")
    schedule = schedule["scheduler"] if isinstance(schedule, dict) else schedule
    return _in_schedule(schedules[0], schedule, content["global_step"]) if schedule is not None and schedules else ""


def _stepped(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """The states that an optimiser of this kind has after a step, by parameter: of a copy, with gradients of zero."""
    probe = copy.deepcopy(optimizer)
    for group in probe.param_groups:
        group.update({key: False for key in ("fused", "foreach", "capturable") if key in group})  # these need a GPU
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    probe.step(lambda: torch.zeros(()))
    return probe.state_dict()["state"]


def _in_schedule(found: Any, schedule: Any, step: int) -> str:
    """What is wrong with the state of a schedule, which may have parts. It is later stepped as often as it says."""
    where = "lr_schedulers.0."
    if wrong := _mismatch(found, schedule.state_dict(), where):
        return wrong
    for key, value in found.items():
        absurd = key in ("last_epoch", "_step_count") and not -1 <= value <= 2 * step + 10
        if absurd or callable(getattr(type(schedule), key, None)):
            return f"{where}{key}"
    parts = zip(found.get("_schedulers", ()), getattr(schedule, "_schedulers", ()), strict=True)
    return next(filter(None, (_in_schedule(state, part, step) for state, part in parts)), "")


def _in_callbacks(states: Any, trainer: pl.Trainer) -> str:
    """What is wrong with the states of the callbacks that this run has too."""
    if not isinstance(states, dict):
        return "callbacks"
    for callback in trainer.callbacks:
        found = states.get(callback.state_key)
        if found is not None and (wrong := _mismatch(found, callback.state_dict(), f"callbacks.{callback.state_key}.")):
            return wrong
    return ""


def _in_random_state(saved: Any) -> str:
    """What is wrong with our own entry, if there is one."""
    if saved is None:
        return ""
    now = rng_state()
    moment = () if isinstance(saved, dict) and saved.get("updated_at") is None else (0, 0)
    expected = {"rng": now | {"python": [3, now["python"][1], None], "cuda": []}, "waiting": []}
    if wrong := _mismatch(saved, expected | {"updated_at": moment} if moment else expected, f"{KEY}."):
        return wrong
    try:
        set_rng_state(saved["rng"])
    except (ValueError, TypeError, OverflowError, RuntimeError, AttributeError):
        return f"{KEY}.rng"
    finally:
        set_rng_state(now)
    return ""
