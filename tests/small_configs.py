"""The shipped configs, and what makes a run of each small enough for a test."""

from pathlib import Path

import torch
import trimesh
from latent_prior.files.pictures import to_picture
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from tiny_checkpoints import GEOMETRIES, write_checkpoint
from tiny_transformers import write_sd3

ROOT = Path(__file__).parents[1]
CONFIGS = {
    path.stem: path for path in [ROOT / "custom" / "latent_prior.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]
}


def write_inputs(folder: Path, prior: Path) -> dict[str, Path]:
    """A picture, a mesh, a generator with codes as long as the published ones', and checkpoints of the two layouts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        to_picture(torch.rand(3, 40, 48)).save(folder / "photo.png")
        generator = StyleGAN2(StyleGAN2Config.of_size(16, mapping_layers=1, base=64, most=4))
        save_generator(generator, folder / "generator.pt")
    trimesh.creation.icosphere(1).export(folder / "ball.stl")
    stable = write_checkpoint(folder / "stable", GEOMETRIES["stable"])
    flows = {"sd3": write_sd3(folder / "sd3"), "flow": write_sd3(folder / "flow", t5=False)}
    files = {"picture": "photo.png", "mesh": "ball.stl", "generator": "generator.pt"}
    return {name: folder / file for name, file in files.items()} | {"sd": stable, "pocket": prior, **flows}


def small(name: str, inputs: dict[str, Path]) -> dict:
    """What makes a run of the config small, and what a user has to name; nothing else is changed."""
    is_sd, is_sd3 = name.startswith("sd_"), name.startswith("sd3_")
    prior = "sd" if is_sd else "sd3" if is_sd3 else "flow" if name == "pocket_flow" else "pocket"
    checkpoint = {"pretrained_model_name_or_path": str(inputs[prior])}
    system = {"prompt_processor": {"use_cache": False, **checkpoint}}
    if not name.endswith(("_clip", "_nada")):
        system["guidance"] = checkpoint | ({"input_size": 64} if is_sd3 else {})
    if name.endswith("_refine"):
        system["material"] = checkpoint
    if "layered" in name:
        system["generator"] = {"channels": 4}
        return {"data": {"image": str(inputs["picture"]), "short_side": 64}, "system": system}
    if "stylegan" in name:
        if is_sd:
            system["pretrained_generator"] = str(inputs["generator"])
        return {"data": {"batch_size": 1}, "system": system}
    if "mesh" in name:
        return {"data": {"height": 16, "width": 16}, "system": system | {"geometry": {"mesh": str(inputs["mesh"])}}}
    if "sketch" in name:
        system["guide"] = {"mesh": str(ROOT / "configs" / "sketches" / "swan.obj")}
    return {"data": {"height": 8, "width": 8}, "system": system | {"renderer": {"num_samples_per_ray": 4}}}


def small_job(prior: Path, out: Path, **changes) -> list[str]:
    """Overrides that make the main job take seconds."""
    values = {
        "exp_root_dir": out,
        "use_timestamp": "false",
        "tag": "run",
        "system.prompt_processor.pretrained_model_name_or_path": prior,
        "system.prompt_processor.use_cache": "false",
        "system.guidance.pretrained_model_name_or_path": prior,
        "trainer.max_steps": 6,
        "trainer.val_check_interval": 4,
        "trainer.log_every_n_steps": 1,
        "checkpoint.every_n_train_steps": 2,
        "data.height": 16,
        "data.width": 16,
        "data.eval_height": 24,
        "data.eval_width": 24,
        "data.n_test_views": 2,
        "system.renderer.num_samples_per_ray": 12,
        "system.geometry.levels": "[2,4,8,16]",
        "system.geometry.feature_size": 16,
        "system.geometry.isosurface_resolution": 24,
        "system.exporter.texture_size": 64,
        "system.hollowing.step": "null",
    }
    return [f"{k}={v}" for k, v in (values | changes).items()]
