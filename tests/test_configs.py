"""Every shipped config trains on the embedded host: two steps at a small size, with the terms that it gives a weight."""

import csv
import math
from pathlib import Path

import pytest
import torch
from latent_prior import host
from latent_prior.files.pictures import to_picture
from latent_prior.runs import experiment
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from tiny_checkpoints import GEOMETRIES, write_checkpoint

ROOT = Path(__file__).parents[1]
CONFIGS = {
    path.stem: path for path in [ROOT / "custom" / "latent_prior.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]
}
STEPS = 2
GRID = "{otype: HashGrid, n_levels: 2, n_features_per_level: 2, log2_hashmap_size: 8, base_resolution: 4}"


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, tiny_prior) -> dict[str, Path]:
    """A picture, a generator with codes as long as the published ones', and checkpoints of the two layouts."""
    folder = tmp_path_factory.mktemp("inputs")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        to_picture(torch.rand(3, 40, 48)).save(folder / "photo.png")
        generator = StyleGAN2(StyleGAN2Config.of_size(16, mapping_layers=1, base=64, most=4))
        save_generator(generator, folder / "generator.pt")
    stable = write_checkpoint(folder / "stable", GEOMETRIES["stable"])
    return {"picture": folder / "photo.png", "generator": folder / "generator.pt", "sd": stable, "pocket": tiny_prior}


def small(name: str, inputs: dict[str, Path]) -> dict:
    """What makes a run of the config small, and what a user has to name; nothing else is changed."""
    is_sd = name.startswith("sd_")
    checkpoint = {"pretrained_model_name_or_path": str(inputs["sd" if is_sd else "pocket"])}
    system = {"prompt_processor": {"use_cache": False, **checkpoint}}
    if not name.endswith(("_clip", "_nada")):
        system["guidance"] = checkpoint
    if name.endswith("_refine"):
        system["material"] = checkpoint
    if "layered" in name:
        system["generator"] = {"channels": 4}
        return {"data": {"image": str(inputs["picture"]), "short_side": 64}, "system": system}
    if "stylegan" in name:
        if is_sd:
            system["pretrained_generator"] = str(inputs["generator"])
        return {"data": {"batch_size": 1}, "system": system}
    return {"data": {"height": 8, "width": 8}, "system": system | {"renderer": {"num_samples_per_ray": 4}}}


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
    hash_grid = "system.geometry.pos_encoding_config=" + GRID  # as an override, since it is replaced as a whole
    cfg = host.load_config(str(CONFIGS[name]), cli_args=[], n_gpus=1)
    overrides = [hash_grid] if cfg.system.get("geometry_type") == "implicit-volume" else []
    run = experiment.run([str(CONFIGS[name])], overrides, ("train",), **settings)

    assert torch.load(run.folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == STEPS
    logged = rows(run.folder)
    assert len(logged) == STEPS and all(math.isfinite(value) for row in logged for value in row.values())
    for key, weight in run.system.cfg.loss.items():
        if host.C(weight, 0, STEPS - 1) > 0 and key.startswith("lambda_") and key != "lambda_mask":  # no mask is given
            assert f"train/loss_{key.removeprefix('lambda_')}" in logged[-1], key
    moved = [not torch.equal(p, before[id(p)]) for p in run.system.parameters() if id(p) in before]
    assert moved and any(moved)
