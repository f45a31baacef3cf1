"""Every shipped config trains on the embedded host: two steps at a small size, with the terms that it gives a weight."""

import csv
import math
from pathlib import Path

import pytest
import torch
from latent_prior import host
from latent_prior.runs import experiment
from small_configs import CONFIGS, small, write_inputs

STEPS = 2
GRID = "{otype: HashGrid, n_levels: 2, n_features_per_level: 2, log2_hashmap_size: 8, base_resolution: 4}"


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, tiny_prior) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"), tiny_prior)


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "csv_logs" / "version_0" / "metrics.csv").open(newline="") as file:
        found = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in found if "train/loss" in row]


@pytest.mark.parametrize("name", CONFIGS)
def test_it_trains(name, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {}
    configure = torch.optim.Optimizer.__init__

    def recorded(self, params, defaults):
        configure(self, params, defaults)
        before.update({id(p): p.detach().clone() for group in self.param_groups for p in group["params"]})

    monkeypatch.setattr(torch.optim.Optimizer, "__init__", recorded)
    trainer = {"max_steps": STEPS, "log_every_n_steps": 1, "precision": "32-true"}
    settings = small(name, inputs) | {"trainer": trainer, "exp_root_dir": str(tmp_path)}
    cfg = host.merge_config(str(CONFIGS[name]))
    types = {"geometry": "system.geometry_type", "geometry.field": "system.geometry.field_type"}
    fields = [part for part, key in types.items() if host.select(cfg, key) == "implicit-volume"]
    overrides = [f"system.{field}.pos_encoding_config={GRID}" for field in fields]  # which is replaced as a whole
    run = experiment.run([str(CONFIGS[name])], overrides, ("train",), **settings)

    assert torch.load(run.folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == STEPS
    logged = rows(run.folder)
    assert len(logged) == STEPS and all(math.isfinite(value) for row in logged for value in row.values())
    for key, weight in run.system.cfg.loss.items():
        if host.C(weight, 0, STEPS - 1) > 0 and key.startswith("lambda_") and key != "lambda_mask":  # no mask is given
            # those of the shape end when its mesh stands
            assert any(f"train/loss_{key.removeprefix('lambda_')}" in row for row in logged), key
    moved = [not torch.equal(p, before[id(p)]) for p in run.system.parameters() if id(p) in before]
    assert moved and any(moved)
