"""A tiny field, its renderer and a system that trains them: enough to exercise the host without a diffusion model."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from latent_prior.host.embedded import registry
from latent_prior.host.embedded.base import BaseModule
from latent_prior.host.embedded.exporters import Exporter, ExporterOutput
from latent_prior.host.embedded.lift3d import BaseLift3DSystem
from omegaconf import OmegaConf
from torch import nn


class ToyGeometry(BaseModule):
    @dataclass
    class Config(BaseModule.Config):
        size: int = 4

    def configure(self):
        self.values = nn.Parameter(torch.zeros(self.cfg.size))


class ToyPart(BaseModule):
    pass


class ToyRenderer(BaseModule):
    def configure(self, geometry, material, background):
        self._geometry = [geometry]  # in a list, so that its parameters stay the system's alone

    def forward(self, rays_d, **batch):
        return torch.sigmoid(rays_d @ self._geometry[0].values[:3] + self._geometry[0].values[3])


class ToyExporter(Exporter):
    def __call__(self):
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name, "values.json")
        path.write_text(json.dumps(self.geometry.values.tolist()))
        return [ExporterOutput(path.name, "file", {"src_path": str(path)})]


class ToySystem(BaseLift3DSystem):
    """Pulls random pixels towards noise, so that every step depends on cameras, noise, optimiser and schedule."""

    def configure(self):
        super().configure()
        self.history = []
        self.crash_at = None

    def training_step(self, batch, batch_idx):
        if self.true_global_step == self.crash_at:
            raise KeyError("killed")
        rendered = self.renderer(**batch)
        loss = ((rendered - torch.rand_like(rendered)) ** 2).mean() * self.C(self.cfg.loss.lambda_toy)
        record = {"step": self.true_global_step, "loss": loss.item(), "azimuth": batch["azimuth"].tolist()}
        self.history.append(record | {"elevation": batch["elevation"].tolist(), "height": batch["height"]})
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        self.renderer(**batch)
        torch.rand(1)  # a view that uses random numbers

    def test_step(self, batch, batch_idx):
        picture = self.renderer(**batch)[0, ..., None].expand(-1, -1, 3)
        self.save_rgb_image(f"it{self.true_global_step}-test/{int(batch['index'][0])}.png", picture)


@pytest.fixture
def toy_types(monkeypatch):
    """Registers the toys for one test."""
    toys = {"toy-geometry": ToyGeometry, "toy-part": ToyPart, "toy-renderer": ToyRenderer, "toy-exporter": ToyExporter}
    monkeypatch.setattr(registry, "__modules__", {**registry.__modules__, **toys})
    monkeypatch.setenv("LATENT_PRIOR_DEVICE", "cpu")


def config_with(**changes):
    return {
        "geometry_type": "toy-geometry",
        "material_type": "toy-part",
        "background_type": "toy-part",
        "renderer_type": "toy-renderer",
        "exporter_type": "toy-exporter",
        "loss": {"lambda_toy": [0, 1.0, 2.0, 10]},
        "optimizer": {"name": "Adam", "args": {"lr": 0.1, "betas": [0.9, 0.99]}, "params": {"geometry": {"lr": 0.05}}},
        "scheduler": {"name": "ExponentialLR", "args": {"gamma": 0.9}, "interval": "step"},
        **changes,
    }


@pytest.fixture
def toy_config():
    """Makes the config of a ToySystem, with some of its keys replaced."""
    return config_with


@pytest.fixture
def toy_system(toy_types):
    """Makes a ToySystem from changes to its config."""

    def make(resumed=False, **changes):
        run = OmegaConf.create(
            {"system": config_with(**changes)}
        )  # under `system`, as in a run, for the error messages
        return ToySystem(run.system, resumed=resumed)

    return make
