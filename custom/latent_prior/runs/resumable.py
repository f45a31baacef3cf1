"""Whether a run can go on from a checkpoint: what the file holds, against this run's own objects.

Lightning copies what it finds into its objects, and a fused optimiser reads and writes as many numbers as a parameter
has, whatever the size of the tensor that it was given. So everything is compared before either of them sees it, and
before anything is written. A checkpoint of another version may have other entries, if they are plain.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.migration import migrate_checkpoint
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.torch_file import read_torch
from latent_prior.runs.checkpoint import Saved
from latent_prior.runs.resume import KEY, require_rng_state

LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
COUNT = 1 << 40  # more than the steps of any run
DEPTH = 8  # of containers in entries that this version does not know
OF_SCHEDULES = {*dir(LRScheduler), "optimizer"}  # names that a schedule's state would replace


def check(saved: Saved, system: Any, trainer: pl.Trainer, trains: bool) -> None:
    """OptionError unless `trainer` can restore the checkpoint.

    trains: False leaves out what only training restores. No more of the file's values is shown than their beginning.
    """
    try:
        whole = read_torch(saved.path)
        try:
            migrate_checkpoint(whole)  # as Lightning will
        except Exception as error:  # depends on what else it is
            raise OptionError.because(f"it is not of a known version of Lightning ({type(error).__name__})") from error
        _require_alike(whole["state_dict"], dict(system.state_dict()), "state_dict")
        _check_loops(whole.get("loops"), trainer, trains)
        _check_callbacks(whole.get("callbacks"), trainer)
        if trains:
            if (counted := _steps(whole["loops"]["fit_loop"], system)) != saved.step:
                raise OptionError.because(
                    f"its loops are at step {_described(counted)}, its global_step is {saved.step}"
                )
            most = max(saved.epoch, saved.step)
            _check_optimizers(whole.get("optimizer_states"), whole.get("lr_schedulers"), system, most)
            if KEY in whole:
                for state in _states(whole[KEY]):
                    _check_ours(state, most)
    except OptionError as error:
        raise OptionError.because(f"{str(saved.path)!r} cannot be resumed from: {error}", "resume") from error


def _check_loops(loops: Any, trainer: pl.Trainer, trains: bool) -> None:
    if loops is None and not trains:
        return
    _require_alike(loops, {name: getattr(trainer, name).state_dict() for name in LOOPS}, "loops", needed=LOOPS)
    _require_counts(loops, "loops")


def _require_counts(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            _require_counts(entry, f"{where}.{key}")
    elif isinstance(value, int) and value < 0:
        raise _unlike(value, where, "a count")


def _steps(fit_loop: dict[str, Any], system: Any) -> Any:
    """The number of optimiser steps in the state of a training loop, as Lightning counts them."""
    try:
        if not system.automatic_optimization:
            return fit_loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
        return fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    except KeyError as error:
        raise OptionError.because(f"its loops.fit_loop has no {error.args[0]}") from error


def _check_callbacks(states: Any, trainer: pl.Trainer) -> None:
    if not _is_named(states):
        raise _unlike(states, "callbacks", "a dictionary")
    for callback in trainer.callbacks:
        name, mine = callback.state_key, callback.state_dict()
        if mine and name in states:
            where = f"callbacks.{type(callback).__name__}"
            _require_alike(states[name], mine, where, needed=tuple(mine))
            _require_straight_paths(states[name], where)


def _require_straight_paths(value: Any, where: str) -> None:
    """Lightning removes checkpoints named here if their path begins with the folder's; `..` would lead out of it."""
    if isinstance(value, dict):
        for key, entry in value.items():
            _require_straight_paths(key, where)
            _require_straight_paths(entry, where)
    elif isinstance(value, str) and ".." in Path(value).parts:
        raise _unlike(value, where, "a path without ..")


def _check_optimizers(states: Any, rates: Any, system: Any, most: int) -> None:
    """most: the number of steps that a schedule may have gone."""
    optimizers, schedules = _configured(system)
    if not isinstance(states, list) or len(states) != len(optimizers):
        raise _unlike(states, "optimizer_states", f"a list of {len(optimizers)}")
    if not isinstance(rates, list):
        raise _unlike(rates, "lr_schedulers", "a list")
    for i, (state, optimizer) in enumerate(zip(states, optimizers, strict=True)):
        _check_optimizer(state, optimizer, f"optimizer_states[{i}]")
    for i, (state, schedule) in enumerate(zip(rates, schedules, strict=False)):  # a config may drop its schedule
        _check_schedule(state, schedule, f"lr_schedulers[{i}]", most)


def _configured(system: Any) -> tuple[Sequence[Optimizer], Sequence[Any]]:
    """The system's optimisers and schedules, from the forms that Lightning allows."""
    fresh = system.configure_optimizers()
    if isinstance(fresh, tuple) and len(fresh) == 2 and all(isinstance(part, list) for part in fresh):
        optimizers, schedules = fresh
    else:
        parts = fresh if isinstance(fresh, list | tuple) else [] if fresh is None else [fresh]
        named = [part if isinstance(part, Mapping) else {"optimizer": part} for part in parts]
        optimizers = [part["optimizer"] for part in named]
        schedules = [part["lr_scheduler"] for part in named if part.get("lr_scheduler") is not None]
    return optimizers, [part["scheduler"] if isinstance(part, Mapping) else part for part in schedules]


def _check_optimizer(state: Any, optimizer: Optimizer, where: str) -> None:
    _require_entries(state, ("state", "param_groups"), where)
    _require_entries(state["state"], (), f"{where}.state")
    mine = optimizer.state_dict()["param_groups"]
    _require_alike(state["param_groups"], mine, f"{where}.param_groups")
    parameters: list[tuple[Tensor, dict[str, Any]]] = []
    for found, model, group in zip(state["param_groups"], mine, optimizer.param_groups, strict=True):
        if found.get("params") != model["params"]:
            raise OptionError.because(f"its {where} groups the parameters in another way than this config")
        parameters += [(parameter, group) for parameter in group["params"]]
    for index, moments in state["state"].items():
        if not _is_count(index, len(parameters) - 1):
            raise OptionError.because(f"its {where}.state has an entry for a parameter that this config does not have")
        _check_moments(moments, *parameters[index], type(optimizer), f"{where}.state[{index}]")


def _check_moments(moments: Any, parameter: Tensor, group: dict[str, Any], kind: type[Optimizer], where: str) -> None:
    """What an optimiser remembers of a parameter, against what it would remember after a step."""
    twin = torch.nn.Parameter(torch.zeros_like(parameter))
    twin.grad = torch.zeros_like(twin)
    optimizer = kind([{**group, "params": [twin]}])
    try:
        optimizer.step()
    except (TypeError, RuntimeError):  # it needs a closure, or sparse gradients
        _require_entries(moments, (), where)
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.numel() > 1 and not _is_like(value, parameter):
                raise _unlike(value, f"{where}.{name}", _described(parameter)) from None
        return
    model = dict(optimizer.state[twin])
    _require_alike(moments, model, where, needed=tuple(model))
    if "step" in model and not 0 <= float(moments["step"]) <= COUNT:  # false for NaN
        raise _unlike(float(moments["step"]), f"{where}.step", "a count")


def _check_schedule(state: Any, schedule: Any, where: str, most: int) -> None:
    model = schedule.state_dict()
    parts, own = getattr(schedule, "_schedulers", []), {key for key in model if not key.startswith("_")}
    if not _is_named(state):
        raise _unlike(state, where, "a dictionary")
    if taken := state.keys() & OF_SCHEDULES - model.keys():
        raise OptionError.because(f"its {where} has an unknown entry {min(taken)}")
    _require_alike(state, {**model, "_schedulers": []} if parts else model, where, needed=tuple(own))
    last = state.get("last_epoch")
    if "last_epoch" in model and last != model["last_epoch"] and not _is_count(last, most):  # -1: not begun
        raise _unlike(last, f"{where}.last_epoch", f"a count up to {most}, the step")
    found = state.get("_schedulers", [])
    if len(found) != len(parts):
        raise _unlike(found, f"{where}._schedulers", f"a list of {len(parts)}")
    for i, (part, of) in enumerate(zip(found, parts, strict=True)):
        _check_schedule(part, of, f"{where}._schedulers[{i}]", most)


def _states(ours: Any) -> list[Any]:
    """The entry of `ExactResume` by processes."""
    _require_entries(ours, (), KEY)
    states = ours.get("ranks", [ours])
    if not isinstance(states, list) or not states:
        raise _unlike(states, f"{KEY}.ranks", "a list of the processes' states")
    return states


def _check_ours(ours: Any, most: int) -> None:
    """The state of one process. Batches are compared with others once there are some."""
    _require_entries(ours, ("rng", "waiting", "updated_at"), KEY)
    try:
        require_rng_state(ours["rng"])
    except Exception as error:  # by four libraries, of anything that is not a state of theirs
        raise OptionError.because(
            f"its {KEY}.rng is not what their generators accept ({type(error).__name__})"
        ) from error
    updated = ours["updated_at"]
    if updated is not None and not _are_counts(updated, 2, most):
        raise _unlike(updated, f"{KEY}.updated_at", "an epoch and a step")
    waiting = ours["waiting"]
    if not isinstance(waiting, list) or not all(
        isinstance(part, tuple) and _are_counts(part[1:], 2) for part in waiting
    ):
        raise _unlike(waiting, f"{KEY}.waiting", "a list of batches and their numbers")


def _require_entries(value: Any, needed: Sequence[str], where: str) -> None:
    """OptionError unless `value` is a dictionary with these entries."""
    if not isinstance(value, dict):
        raise _unlike(value, where, "a dictionary")
    for key in needed:
        if key not in value:
            raise OptionError.because(f"its {shown(where, 80)} has no {key}")


def _require_alike(value: Any, model: Any, where: str, needed: Sequence[str] = ()) -> None:
    """OptionError unless `value` is made like `model`, has the entries `needed`, and is plain besides."""
    if isinstance(model, dict):
        _require_entries(value, needed, where)
        for key, entry in value.items():
            if key in model:
                _require_alike(entry, model[key], f"{where}.{key}")
            else:
                _require_plain(entry, where)
    elif isinstance(model, list | tuple):
        if not isinstance(value, list | tuple) or (model and len(value) != len(model)):
            raise _unlike(value, where, f"a list of {len(model)}" if model else "a list")
        for i, entry in enumerate(value):
            if model:
                _require_alike(entry, model[i], f"{where}[{i}]")
            else:
                _require_plain(entry, f"{where}[{i}]")
    elif not _is_like(value, model):
        raise _unlike(value, where, _described(model))


def _is_like(value: Any, model: Any) -> bool:
    """Whether a value may stand for the model: of a tensor's shape and kind, a number for a number, text for text."""
    if isinstance(model, Tensor) and isinstance(value, Tensor):
        whole = value.layout == torch.strided and (value.is_contiguous() or value.stride() == model.stride())
        kind = value.is_floating_point() and model.is_floating_point() or value.dtype == model.dtype
        return whole and kind and value.shape == model.shape
    if isinstance(model, Tensor):
        return model.ndim == 0 and isinstance(value, int | float)
    if isinstance(model, str):
        return isinstance(value, str)
    if model is None:
        return _is_plain(value)
    if isinstance(value, float):
        return math.isfinite(value) or not math.isfinite(model)
    return value is None or (isinstance(value, int) and abs(value) <= COUNT)


def _require_plain(value: Any, where: str) -> None:
    if not _is_plain(value):
        raise _unlike(value, where, "a plain value")


def _is_plain(value: Any, depth: int = 0) -> bool:
    """A number, text, nothing, a tensor of one number, or a container of such."""
    if isinstance(value, Tensor):
        return value.numel() == 1
    if isinstance(value, dict | list | tuple):
        entries = value.values() if isinstance(value, dict) else value
        return depth < DEPTH and all(_is_plain(entry, depth + 1) for entry in entries)
    return value is None or isinstance(value, int | float | str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_count(value: Any, most: int = COUNT) -> bool:
    return type(value) is int and 0 <= value <= most


def _are_counts(value: Any, length: int, most: int = COUNT) -> bool:
    return isinstance(value, list | tuple) and len(value) == length and all(_is_count(entry, most) for entry in value)


def _unlike(value: Any, where: str, expected: str) -> OptionError:
    return OptionError.because(f"its {shown(where, 80)} is {_described(value)}; expected {expected}")


def _described(value: Any) -> str:
    """A foreign value in a few words; its own text may be endless."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, str):
        return f"the text '{shown(value, 20)}'"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > COUNT:
        return "an integer of more than 12 digits"
    return repr(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"
