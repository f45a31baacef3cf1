"""The three systems as runs of a second or two: their configs, and overrides that make them small."""

from pathlib import Path

import torch
from latent_prior.files.pictures import to_picture
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config

ROOT = Path(__file__).parents[2]
STEPS = 6
FIELD = {
    "system.renderer.num_samples_per_ray": 8,
    "system.geometry.levels": "[2,4,8,16]",
    "system.geometry.feature_size": 16,
    "system.geometry.isosurface_resolution": 16,
    "system.exporter.texture_size": 32,
    "data.height": 16,
    "data.width": 16,
    "data.eval_height": 24,
    "data.eval_width": 24,
    "data.n_test_views": 2,
}


def write_inputs(folder: Path) -> None:
    """The picture and the generator that two of the systems start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        to_picture(torch.rand(3, 40, 48)).save(folder / "photo.png")
        save_generator(
            StyleGAN2(StyleGAN2Config.of_size(16, mapping_layers=1, base=64, most=4)), folder / "generator.pt"
        )


def systems(prior: Path, inputs: Path) -> dict[str, tuple[Path, dict]]:
    """{system: (config, overrides)}; inputs: the folder of `write_inputs`."""
    checkpoints = {
        "system.prompt_processor.pretrained_model_name_or_path": prior,
        "system.prompt_processor.use_cache": "false",
        "system.guidance.pretrained_model_name_or_path": prior,
    }
    trainer = {
        "trainer.max_steps": STEPS,
        "trainer.val_check_interval": 4,
        "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false",
        "checkpoint.every_n_train_steps": 2,
    }
    generator = {"system.pretrained_generator": inputs / "generator.pt", "data.z_dim": 512}
    generator |= {"data.batch_size": 1, "data.n_grid": 2, "data.n_frames": 2}
    layer = {"data.image": inputs / "photo.png", "data.short_side": 32, "system.generator.channels": 4}
    layer |= {"system.loss.lambda_structure": 0}
    own = {
        "text_to_3d": ("custom/latent_prior.yaml", FIELD),
        "stylegan_adaptation": ("configs/pocket_stylegan.yaml", generator),
        "layered_editing": ("configs/pocket_layered_editing.yaml", layer),
    }
    return {name: (ROOT / config, trainer | checkpoints | values) for name, (config, values) in own.items()}


def launched(system: tuple[Path, dict], out: Path, *more: str) -> list[str]:
    """The arguments of launch.py for a run in `out`/<config's name>/run."""
    config, overrides = system
    values = overrides | {"exp_root_dir": out, "use_timestamp": "false", "tag": "run", "name": "name"}
    return ["--config", str(config), *(f"{key}={value}" for key, value in values.items()), *more]
