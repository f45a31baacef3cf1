"""threestudio's own mesh systems on a machine without CUDA, rasterised by us: magic3d's fine stage, fantasia3d, export.

All stages run in one process, from threestudio's own configs at small size, with our guidance and the pocket prior.
"""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from omegaconf import OmegaConf
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("THREESTUDIO_ROOT"), reason="THREESTUDIO_ROOT names no checkout"),
]

PACKAGE_ROOT = Path(__file__).parents[2] / "custom"
STEPS = 4

# Trains the stages one after the other.
SCRIPT = """
import json, sys
import torch
from latent_prior import host
from latent_prior.runs import experiment

found = {}
for name, overrides, modes in json.loads(sys.argv[1]):
    run = experiment.run([f"{name}.yaml"], [*overrides, "exp_root_dir=.", "tag=run", "use_timestamp=false"], modes=modes)
    if name == "magic3d-refine-sd":  # colours that vary, so that a wrong place in the texture shows
        system = run.system
        with torch.no_grad():
            for parameter in system.geometry.encoding.parameters():
                parameter.normal_(std=4.0, generator=torch.Generator().manual_seed(0))
        options = {"texture_size": 512, "texture_format": "png"}
        parts = {"geometry": system.geometry, "material": system.material, "background": system.background}
        for out in host.find("mesh-exporter")(options, **parts)():
            system.save_obj(f"varied/{out.save_name}", **out.params)
        mesh = system.geometry.isosurface()
        points = mesh.v_pos[mesh.t_pos_idx].mean(1)
        albedo = system.material.export(points=points, **system.geometry.export(points=points))["albedo"]
        torch.save({"points": points.detach(), "albedo": albedo.detach()}, "varied.pt")
print(host.NAME)
"""

GRID = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 14}
OURS = {
    "data": {"height": 64, "width": 64, "eval_height": 64, "eval_width": 64, "n_val_views": 1},
    "system": {
        "geometry": {"isosurface_resolution": 32, "pos_encoding_config": GRID},
        "guidance_type": "latent-prior-guidance",
        "prompt_processor_type": "latent-prior-prompt-processor",
        "loss": {"lambda_fm": 0.1, "lambda_kl": 0.01},
    },
    "trainer": {"max_steps": STEPS, "log_every_n_steps": 1, "val_check_interval": 1000, "precision": "32-true"},
    "checkpoint": {"every_n_train_steps": 1},
}
POCKET = {
    "guidance": {"pretrained_model_name_or_path": "pocket", "guidance_scale": 4.0},
    "prompt_processor": {"pretrained_model_name_or_path": "pocket", "prompt": "a red mug", "use_cache": False},
}
STAGES = {
    # the coarse stage's own renderer is CUDA's alone, and its field is only what the fine one begins with
    "magic3d-coarse-sd": {
        "data": {"height": 16, "width": 16},
        "system": {"renderer_type": "dense-volume-renderer", "renderer": {"radius": 2.0, "num_samples_per_ray": 16}},
        "trainer": {"max_steps": 1},
    },
    "magic3d-refine-sd": {"system": {"geometry_convert_from": "magic3d-coarse-sd/run/ckpts/last.ckpt"}},
    # the config's other way to a sphere, without a thousand steps
    "fantasia3d": {"system": {"geometry": {"shape_init": None, "sdf_bias": "sphere", "sdf_bias_params": 0.5}}},
    "fantasia3d-texture": {
        "system": {
            "geometry_convert_from": "fantasia3d/run/ckpts/last.ckpt",
            "exporter": {"texture_size": 128},
        }
    },
}
EXPORTED = "fantasia3d-texture"
MOVED = {  # parts that learn, and those that stay
    "magic3d-refine-sd": (("sdf", "deformation", "encoding", "feature_network"), ()),
    "fantasia3d": (("encoding", "sdf_network", "deformation_network"), ()),
    "fantasia3d-texture": (("encoding", "feature_network"), ("sdf", "deformation")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where all stages have run."""
    root, folder = Path(os.environ["THREESTUDIO_ROOT"]).resolve(), tmp_path_factory.mktemp("stages")
    (folder / "load").symlink_to(root / "load")
    for name, changes in STAGES.items():
        cfg = OmegaConf.load(root / "configs" / f"{name}.yaml")
        cfg.system.update(POCKET)
        if "renderer" in changes["system"]:
            del cfg.system.renderer
        OmegaConf.save(OmegaConf.merge(cfg, OURS, changes), folder / f"{name}.yaml")
    runs = [(name, [], ["train", "export"] if name == EXPORTED else ["train"]) for name in STAGES]
    env = os.environ | {"PYTHONPATH": str(PACKAGE_ROOT), "LATENT_PRIOR_HOST": "threestudio", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(runs)], env=env, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0 and done.stdout.endswith("threestudio\n"), done.stderr[-3000:]
    return folder


def weights(folder: Path, name: str, step: int) -> dict[str, torch.Tensor]:
    path = next((folder / name / "run" / "ckpts").glob(f"*step={step}.ckpt"))
    return torch.load(path, weights_only=False)["state_dict"]


@pytest.mark.parametrize("name", MOVED)
def test_losses_are_finite_and_geometry_and_colours_learn(folder, name):
    with open(folder / name / "run" / "csv_logs" / "version_0" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss_sds"]]
    assert len(rows) == STEPS
    for key in ("train/loss_sds", "train/loss_fm", "train/loss_kl"):
        values = [float(row[key]) for row in rows]
        assert all(map(math.isfinite, values)) and len(set(values)) == STEPS, (key, values)
    first, last = weights(folder, name, 1), weights(folder, name, STEPS)
    rate = OmegaConf.load(folder / f"{name}.yaml").system.optimizer.args.lr
    learning, fixed = MOVED[name]
    for part in (*learning, *fixed):
        keys = [key for key in first if key.split(".")[:2] == ["geometry", part]]
        moved = max((last[key] - first[key]).abs().max().item() for key in keys)
        # Adam moves what has a gradient by about its rate in each step; weight decay alone would be a hundredth of it
        assert moved > rate / 2 if part in learning else moved == 0, (part, moved)


def test_a_sphere_is_as_large_in_a_picture_as_it_should_be(folder):
    """Radius 0.5, seen from a distance of 3 under 45 degrees."""
    picture = np.asarray(Image.open(folder / "fantasia3d" / "run" / "save" / "it0-0.png").convert("L")) / 255
    opacity = picture[:, :64]
    radius = 32 * math.tan(math.asin(0.5 / 3)) / math.tan(math.radians(22.5))
    assert opacity.sum() == pytest.approx(math.pi * radius**2, rel=0.03)
    rows, columns = np.nonzero(opacity > 0.5)
    assert abs(rows.mean() - 31.5) < 0.5 and abs(columns.mean() - 31.5) < 0.5


def test_the_exported_texture_holds_the_colours_of_the_surface(folder):
    path = folder / "magic3d-refine-sd" / "run" / "save" / "varied" / "model.obj"
    mesh = trimesh.load(path, process=False)
    kept = torch.load(folder / "varied.pt")
    np.testing.assert_allclose(mesh.triangles_center, kept["points"].numpy(), atol=1e-4)
    uv = mesh.visual.uv[mesh.faces].mean(1)
    colours = mesh.visual.material.to_color(uv)[:, :3] / 255
    albedo = kept["albedo"].numpy()
    assert albedo.std(0).min() > 0.1
    assert np.abs(colours - albedo).mean() < 0.1 * albedo.std()  # 0.03 was found


def test_a_run_writes_all_maps_of_its_material(folder):
    written = folder / EXPORTED / "run" / "save" / f"it{STEPS}-export"
    mesh = trimesh.load(written / "model.obj", process=False)
    assert mesh.visual.material.image.size == (128, 128)
    assert mesh.visual.uv.min() >= 0 and mesh.visual.uv.max() <= 1
    assert {path.stem for path in written.glob("*.jpg")} == {
        f"texture_{k}" for k in ("kd", "metallic", "roughness", "nrm")
    }
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.5, abs=0.05)
