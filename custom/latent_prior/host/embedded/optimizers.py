"""Optimisers and learning-rate schedules from config."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn
from torch.optim import lr_scheduler

from latent_prior import OptionError
from latent_prior.host.embedded.arguments import check_arguments, check_range
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.registry import nearest


def _parameters_of(model: nn.Module, name: str, key: str) -> list[nn.Parameter]:
    """The parameters of the module (or the one parameter) at a dotted name such as `geometry.encoding`."""
    target: Any = model
    for part in name.split("."):
        if not hasattr(target, part):
            have = [child for child, _ in target.named_children()] if isinstance(target, nn.Module) else []
            known = ", ".join(have)
            raise OptionError.because(
                f"{key}: there is no {part!r} in {name!r}{nearest(part, have)} (modules: {known})"
            )
        target = getattr(target, part)
    if isinstance(target, nn.Module):
        return list(target.parameters())
    if isinstance(target, nn.Parameter):
        return [target]
    raise OptionError.because(f"{key}: {name!r} is a {type(target).__name__}, expected a module or a parameter")


def _named(library: Any, name: str, base: type, key: str) -> type:
    """The subclass of `base` called `name` in `library`."""
    valid = [entry for entry, value in vars(library).items() if isinstance(value, type) and issubclass(value, base)]
    if name not in valid:
        raise OptionError.because(
            f"{key}: unknown {base.__name__} {name!r}{nearest(name, valid)} (known: {', '.join(valid)})"
        )
    return getattr(library, name)


def _plain(args: Any, key: str) -> dict[str, Any]:
    """Arguments as plain Python: they end up in checkpoints, which must not contain OmegaConf objects."""
    if args is not None and not isinstance(args, DictConfig):
        raise OptionError(key, args, "a mapping of arguments")
    return OmegaConf.to_container(args, resolve=True) if args else {}


@contextmanager
def _reported(key: str) -> Iterator[None]:
    """Whatever torch raises meanwhile, of any type, comes from the arguments under `key`."""
    try:
        yield
    except OptionError:
        raise
    except Exception as error:
        raise OptionError.because(str(error) or type(error).__name__, key) from error


def _try_steps(cls: type[torch.optim.Optimizer], args: dict[str, Any], key: str, device: torch.device) -> None:
    """Take two steps on one weight: torch looks at most arguments only when it uses them."""
    check_arguments(cls, args, key, ours=["params"])
    for option, value in args.items():
        check_range(option, value, f"{key}.{option}")
    weight = nn.Parameter(torch.zeros(1, 1, device=device))
    with _reported(key):
        optimizer = cls([weight], **args)
        for _ in range(2):
            weight.grad = torch.zeros_like(weight)
            optimizer.step(lambda: torch.zeros((), device=device))


def parse_optimizer(config: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser from `config`: {name, args, params}.

    name: a class of torch.optim; args: its arguments; params, optional: {module name: arguments of its own}, e.g.
    {geometry.encoding: {lr: 0.01}}. Without params it optimises all parameters; with it, only the named modules.
    """
    config = config if isinstance(config, DictConfig) else OmegaConf.create(config)
    if not config.get("name"):
        raise OptionError.because(f"{full_key(config, 'name') or 'optimizer.name'}: set it to an optimiser, e.g. Adam")
    cls = _named(torch.optim, config.name, torch.optim.Optimizer, full_key(config, "name"))
    key = full_key(config, "args")
    args = _plain(config.get("args"), key)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    _try_steps(cls, args, key, device)
    groups: Any = model.parameters()
    if "params" in config:
        key = full_key(config, "params")
        if not isinstance(config.params, DictConfig):
            raise OptionError.because(
                f"{key}: expected a mapping from modules to their arguments, got {config.params!r}"
            )
        groups = []
        for name, given in config.params.items():
            own = _plain(given, f"{key}.{name}")
            _try_steps(cls, args | own, f"{key}.{name}", device)
            groups.append({"params": _parameters_of(model, name, key), "name": name, **own})
    with _reported(full_key(config, "params" if "params" in config else "args")):
        return cls(groups, **args)


def parse_scheduler(config: DictConfig, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Build the schedule from `config` in Lightning's form: {"scheduler": ..., "interval": "step" | "epoch"}.

    {name, args, interval}: a class of torch.optim.lr_scheduler. {name: SequentialLR, schedulers: [...], milestones:
    [...], interval} combines others.
    """
    config = config if isinstance(config, DictConfig) else OmegaConf.create(config)
    interval = config.get("interval", "epoch")
    if interval not in ("epoch", "step"):
        raise OptionError(full_key(config, "interval"), interval, "'step' or 'epoch'")
    if not config.get("name"):
        raise OptionError.because(f"{full_key(config, 'name')}: set it to a schedule, e.g. ExponentialLR")
    if config.name == "SequentialLR":
        parts = _list_of(config, "schedulers", DictConfig, "a list of schedules, each with name and args")
        milestones = _list_of(config, "milestones", int | float, "a list of steps")
        if not parts:
            raise OptionError(full_key(config, "schedulers"), config.get("schedulers"), "one schedule or more")
        if len(milestones) != len(parts) - 1 or milestones != sorted(milestones):
            where = f"the {len(parts)} of {full_key(config, 'schedulers')}"
            expected = f"{len(parts) - 1} milestones for {where}, in rising order"
            raise OptionError(full_key(config, "milestones"), milestones, expected)
        built = [parse_scheduler(part, optimizer)["scheduler"] for part in parts]
        scheduler = lr_scheduler.SequentialLR(optimizer, built, milestones=milestones)
    else:
        cls = _named(lr_scheduler, config.name, lr_scheduler.LRScheduler, full_key(config, "name"))
        key = full_key(config, "args")
        args = _plain(config.get("args"), key)
        check_arguments(cls, args, key, ours=["optimizer"])
        with _reported(key):
            _follow(cls(_stand_in(optimizer), **args))
            scheduler = cls(optimizer, **args)
    return {"scheduler": scheduler, "interval": interval}


def _list_of(config: DictConfig, name: str, kind: Any, expected: str) -> list[Any]:
    """The list under a key; empty if there is none."""
    given = config.get(name)
    values = list(given) if isinstance(given, ListConfig) else []
    wrong = [value for value in values if not isinstance(value, kind) or isinstance(value, bool)]
    if wrong or not isinstance(given, ListConfig | None):
        raise OptionError(full_key(config, name), given, expected)
    return values


def _stand_in(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An optimiser with the same settings, whose learning rates may be changed."""
    other = copy.copy(optimizer)
    other.param_groups = [dict(group) for group in optimizer.param_groups]
    return other


def _follow(scheduler: Any, steps: int = 3) -> None:
    """Step a schedule: torch looks at most arguments only when it uses them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about schedule steps without optimiser steps in between
        for _ in range(steps):
            scheduler.step(*([0.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
