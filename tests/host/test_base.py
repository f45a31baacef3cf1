"""Base classes: the round of updates and the arguments of parts."""

from dataclasses import dataclass

import pytest
import torch
from latent_prior.host.embedded.base import BaseModule, BaseObject, Updateable, update_if_possible
from torch import nn


class Recorder(Updateable):
    def __init__(self, name, log):
        self.name, self.log = name, log

    def update_step(self, epoch, global_step, on_load_weights=False):
        self.log.append((self.name, epoch, global_step, on_load_weights))

    def update_step_end(self, epoch, global_step):
        self.log.append((self.name, "end", global_step))


class Grid(BaseModule):
    @dataclass
    class Config(BaseModule.Config):
        size: int = 2

    def configure(self):
        self.values = nn.Parameter(torch.zeros(self.cfg.size))
        self.updates = []

    def update_step(self, epoch, global_step, on_load_weights=False):
        self.updates.append((epoch, global_step, on_load_weights))


def test_updates_reach_children_first_and_skip_private_ones():
    log = []
    parent = Recorder("parent", log)
    parent.child = Recorder("child", log)
    parent._hidden = Recorder("hidden", log)
    parent.other = object()
    update_if_possible(parent, 1, 20)
    update_if_possible(object(), 1, 20)
    assert log == [("child", 1, 20, False), ("parent", 1, 20, False)]
    log.clear()
    parent.do_update_step_end(1, 21)
    assert log == [("child", "end", 21), ("parent", "end", 21)]


def test_updates_reach_submodules_of_modules():
    outer = Grid()
    outer.inner = Grid()
    outer.do_update_step(0, 3)
    assert outer.updates == outer.inner.updates == [(0, 3, False)]


def test_arguments_of_configure_pass_through_and_misspelt_ones_fail():
    class Thing(BaseObject):
        def configure(self, size):
            self.size = size

    assert Thing({}, size=4).size == 4
    with pytest.raises(TypeError):
        Thing({}, sise=4)
