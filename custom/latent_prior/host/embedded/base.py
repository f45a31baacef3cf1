"""Base classes of everything configurable: a config dataclass, a device, and the update calls.

`update_step` runs before each batch and `update_step_end` after it, for every Updateable reachable from the system
through public attributes, children before their parent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from latent_prior.host.embedded.config import parse_structured
from latent_prior.host.embedded.misc import get_device


class Updateable:
    """An object that is updated as training progresses."""

    def _updateable_children(self) -> Iterator["Updateable"]:
        attributes = {**vars(self), **vars(self).get("_modules", {})}
        for name, child in attributes.items():
            if not name.startswith("_") and isinstance(child, Updateable):
                yield child

    def do_update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Call `update_step` on the children, then on this object."""
        for child in self._updateable_children():
            child.do_update_step(epoch, global_step, on_load_weights=on_load_weights)
        self.update_step(epoch, global_step, on_load_weights=on_load_weights)

    def do_update_step_end(self, epoch: int, global_step: int) -> None:
        """Call `update_step_end` on the children, then on this object."""
        for child in self._updateable_children():
            child.do_update_step_end(epoch, global_step)
        self.update_step_end(epoch, global_step)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Override: prepare for a batch. With `on_load_weights` the tensors may not be on their device yet."""

    def update_step_end(self, epoch: int, global_step: int) -> None:
        """Override: act after a batch."""


def update_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """`do_update_step` on an Updateable; does nothing for other objects."""
    if isinstance(module, Updateable):
        module.do_update_step(epoch, global_step)


def update_end_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """`do_update_step_end` on an Updateable; does nothing for other objects."""
    if isinstance(module, Updateable):
        module.do_update_step_end(epoch, global_step)


class BaseObject(Updateable):
    """A configurable object without parameters of its own (guidance, prompt processor, exporter)."""

    @dataclass
    class Config:
        pass

    cfg: Config

    def __init__(self, cfg: dict | DictConfig | None = None, *args, **kwargs) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self.device = get_device()
        self.configure(*args, **kwargs)

    def configure(self) -> None:
        """Override: build what the config asks for. Takes what the constructor got after the config."""


class BaseModule(nn.Module, Updateable):
    """A configurable nn.Module (geometry, material, background, renderer)."""

    @dataclass
    class Config:
        pass

    cfg: Config

    def __init__(self, cfg: dict | DictConfig | None = None, *args, **kwargs) -> None:
        super().__init__()
        self.cfg = parse_structured(self.Config, cfg)
        self.device = get_device()
        self.configure(*args, **kwargs)
        # threestudio's modules have this buffer; with it `.to(device)` always has something to move
        self.register_buffer("_dummy", torch.zeros(0), persistent=False)

    def configure(self) -> None:
        """Override: build what the config asks for. Takes what the constructor got after the config."""
