"""`latent-prior app` with tiny systems: the command itself, with configs whose runs take seconds.

usage: python tiny_app.py FOLDER [flags of the command]     FOLDER: of `write`
"""

import dataclasses
import json
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "custom")]

STEPS = 6
TEXTURE = {
    "data.height": 16,
    "data.width": 16,
    "data.eval_height": 24,
    "data.eval_width": 24,
    "data.n_test_views": 4,
    "system.exporter.texture_size": 64,
    "system.guidance.n_noises": 1,
}


def write(folder: Path, prior: Path) -> None:
    """The configs, and what is uploaded: ball.glb, photo.png, generator.pt."""
    import trimesh
    from omegaconf import OmegaConf
    from reliability import tiny_systems

    tiny_systems.write_inputs(folder)
    trimesh.creation.icosphere(1).export(folder / "ball.glb")
    tiny = tiny_systems.systems(prior, folder)
    config, common = tiny["text_to_3d"]
    shared = {key: value for key, value in common.items() if key not in tiny_systems.FIELD}
    tiny["texture"] = (tiny_systems.ROOT / "configs" / "pocket_mesh_texture.yaml", shared | TEXTURE)
    for config, overrides in tiny.values():
        cfg = OmegaConf.load(config)
        for key, value in overrides.items():
            if key != "data.image":
                OmegaConf.update(cfg, key, OmegaConf.create(f"x: {value}").x, force_add=True)
        cfg.trainer.enable_progress_bar = True
        OmegaConf.save(cfg, folder / config.name)
    (folder / "prior.json").write_text(json.dumps(str(prior)))


def main() -> int:
    folder = Path(sys.argv[1])
    from latent_prior import cli
    from latent_prior.app import tabs

    tabs.TABS = tuple(
        dataclasses.replace(tab, config=str(folder / f"{Path(tab.config).stem}.yaml"), steps=STEPS) for tab in tabs.TABS
    )
    return cli.main(["app", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
