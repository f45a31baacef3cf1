"""Optimisers and learning-rate schedules from config."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import lr_scheduler

from latent_prior import OptionError
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


def _plain(args: DictConfig | None, key: str) -> dict[str, Any]:
    """Arguments as plain Python: they end up in checkpoints, which must not contain OmegaConf objects."""
    if args is not None and not isinstance(args, DictConfig):
        raise OptionError(key, args, "a mapping of arguments")
    return OmegaConf.to_container(args, resolve=True) if args else {}


def _build(cls: type, first: Any, config: DictConfig) -> Any:
    """cls(first, **args), with a wrong argument reported under its config key."""
    key = full_key(config, "args")
    args = _plain(config.get("args"), key)
    try:
        return cls(first, **args)
    except (TypeError, ValueError) as error:
        raise OptionError.because(f"{key}: {error}") from error


def parse_optimizer(config: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser from `config`: {name, args, params}.

    name: a class of torch.optim; args: its arguments; params, optional: {module name: arguments of its own}, e.g.
    {geometry.encoding: {lr: 0.01}}. Without params it optimises all parameters; with it, only the named modules.
    """
    config = config if isinstance(config, DictConfig) else OmegaConf.create(config)
    if not config.get("name"):
        raise OptionError.because(f"{full_key(config, 'name') or 'optimizer.name'}: set it to an optimiser, e.g. Adam")
    cls = _named(torch.optim, config.name, torch.optim.Optimizer, full_key(config, "name"))
    groups: Any = model.parameters()
    if "params" in config:
        key = full_key(config, "params")
        if not isinstance(config.params, DictConfig):
            raise OptionError.because(
                f"{key}: expected a mapping from modules to their arguments, got {config.params!r}"
            )
        groups = [
            {"params": _parameters_of(model, name, key), "name": name, **_plain(args, f"{key}.{name}")}
            for name, args in config.params.items()
        ]
    return _build(cls, groups, config)


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
        parts = [parse_scheduler(part, optimizer)["scheduler"] for part in config.get("schedulers") or ()]
        milestones = list(config.get("milestones") or ())
        if not parts or len(milestones) != len(parts) - 1:
            expected = f"{max(len(parts), 1) - 1} milestones for its {len(parts)} schedulers, of which it needs some"
            raise OptionError(full_key(config, "milestones"), milestones, expected)
        scheduler = lr_scheduler.SequentialLR(optimizer, parts, milestones=milestones)
    else:
        cls = _named(lr_scheduler, config.name, lr_scheduler.LRScheduler, full_key(config, "name"))
        scheduler = _build(cls, optimizer, config)
    return {"scheduler": scheduler, "interval": interval}
