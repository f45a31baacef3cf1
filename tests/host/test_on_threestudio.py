"""The plugin on threestudio itself: the embedded host's trajectories, its stock systems, and the shipped configs.

Every run is a process of its own, since a process has one host.
"""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latent_prior.cli.link import link
from latent_prior.pocket import edits
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from omegaconf import OmegaConf
from tiny_checkpoints import GEOMETRIES, write_checkpoint
from tiny_transformers import write_sd3

pytestmark = pytest.mark.skipif(
    not os.environ.get("THREESTUDIO_ROOT"), reason="THREESTUDIO_ROOT names no checkout of threestudio"
)

REPOSITORY = Path(__file__).parents[2]
CONFIGS = {
    path.stem: path for path in [REPOSITORY / "custom" / "latent_prior.yaml", *(REPOSITORY / "configs").glob("*.yaml")]
}
POCKET = [name for name in CONFIGS if not name.startswith(("sd_", "sd3_"))]
STEPS = 20

RUN = """
import json, sys
from latent_prior import host
from latent_prior.runs import experiment

config, out, overrides = sys.argv[1], sys.argv[2], sys.argv[3:]
run = experiment.run([config], [*overrides, f"exp_root_dir={out}"], modes=("train",))
prompts = run.system.prompt_processor.prompts_vd
print("@@" + json.dumps({"host": host.NAME, "folder": str(run.folder), "prompts": prompts}))
"""


def launched(host: str, config: Path, out: Path, *overrides: str) -> dict:
    """Train a config on a host; returns what RUN prints."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "custom"), "LATENT_PRIOR_HOST": host, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(config), str(out), *overrides]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("@@"))
    found = json.loads(line[2:])
    assert found["host"] == host
    return found


def logged(folder: str) -> list[dict[str, float]]:
    """The rows of the CSV log: one a step."""
    with open(Path(folder) / "csv_logs" / "version_0" / "metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def with_input(name: str, folder: Path) -> list[str]:
    """The override that names the picture or mesh that a config needs, if any."""
    if "layered" in name:
        return [f"data.image={edits.write(edits.EDITS[0], folder)[0]}"]
    key = "system.geometry.mesh" if name.endswith("mesh_texture") else None
    key = "system.guide.mesh" if name == "pocket_sketch_shape" else key
    return [f"{key}={REPOSITORY / 'configs' / 'sketches' / 'swan.obj'}"] if key else []


@pytest.mark.parametrize("name", POCKET)
def test_the_same_seed_gives_the_same_trajectory_on_either_host(name, tmp_path):
    found = {}
    for host in ("embedded", "threestudio"):
        (tmp_path / host).mkdir()
        found[host] = launched(
            host,
            CONFIGS[name],
            tmp_path / host,
            f"trainer.max_steps={STEPS}",
            "trainer.log_every_n_steps=1",
            "trainer.val_check_interval=1000",
            "system.prompt_processor.use_cache=false",
            *with_input(name, tmp_path),
        )
    ours, theirs = found["embedded"], found["threestudio"]
    assert ours["prompts"] == theirs["prompts"]
    mine, its = logged(ours["folder"]), logged(theirs["folder"])
    assert len(mine) == len(its)
    losses = 0
    for a, b in zip(mine, its, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-12), (key, a.get("step"))
        losses += "train/loss" in a or "train/loss_sds" in a
    assert losses == STEPS
    parsed = [(Path(f["folder"]) / "configs" / "parsed.yaml").read_text() for f in (ours, theirs)]
    kept = [[line for line in text.splitlines() if str(tmp_path) not in line and "@20" not in line] for text in parsed]
    assert kept[0] == kept[1]


@pytest.fixture(scope="module")
def stable(tmp_path_factory) -> Path:
    """A random checkpoint of Stable Diffusion's layout: 512x512 pictures, 64x64 latents."""
    return write_checkpoint(tmp_path_factory.mktemp("sd") / "prior", GEOMETRIES["sd"])


# what a CPU needs: threestudio's own renderer is CUDA's alone, and its sizes are a GPU's
SMALL = {
    "data": {"height": 32, "width": 32, "n_val_views": 1},
    "system": {
        "renderer_type": "dense-volume-renderer",
        "renderer": {"radius": 1.0, "num_samples_per_ray": 16},
        "geometry": {"isosurface_resolution": 16},
    },
    "trainer": {"max_steps": STEPS, "log_every_n_steps": 1, "val_check_interval": 1000, "precision": "32-true"},
}
GRID = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 12}
STOCK = {
    "sjc": {"geometry": {"grid_size": [24, 24, 24]}},
    "latentnerf": {"geometry": {"pos_encoding_config": GRID}},
    "dreamfusion-sd": {
        "geometry": {"pos_encoding_config": GRID | {"otype": "ProgressiveBandHashGrid", "start_level": 2}},
        "renderer": {"radius": 2.0},
    },
    "magic3d-coarse-sd": {"geometry": {"pos_encoding_config": GRID}, "renderer": {"radius": 2.0}},
}


@pytest.mark.parametrize("name", STOCK)
def test_stock_systems_train_with_our_guidance_in_place_of_theirs(name, stable, tmp_path):
    cfg = OmegaConf.load(Path(os.environ["THREESTUDIO_ROOT"]) / "configs" / f"{name}.yaml")
    cfg.system.guidance_type = "latent-prior-guidance"
    cfg.system.guidance = {"pretrained_model_name_or_path": str(stable), "guidance_scale": [7.0, 8.0, STEPS]}
    cfg.system.loss.lambda_fm, cfg.system.loss.lambda_kl = 0.1, 0.01
    cfg.system.prompt_processor.pretrained_model_name_or_path = str(stable)
    del cfg.system.renderer
    cfg = OmegaConf.merge(cfg, SMALL, {"system": STOCK[name]})
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    overrides = ["system.prompt_processor.prompt=a red mug", "system.prompt_processor.spawn=false"]
    rows = logged(launched("threestudio", tmp_path / "config.yaml", tmp_path, *overrides)["folder"])
    steps = [row for row in rows if "train/loss_sds" in row]
    assert len(steps) == STEPS
    for key in ("train/loss_sds", "train/loss_fm", "train/loss_kl"):
        values = [row[key] for row in steps]
        assert all(math.isfinite(value) for value in values), (key, values)
        # stable or falling: the timestep is drawn anew each step, so the mean of the second half is compared
        assert sum(values[STEPS // 2 :]) < 3 * sum(values[: STEPS // 2]), (key, values)


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Path:
    """A random StyleGAN2 generator in rosinality's format, with z and w as wide as the published ones'."""
    path = tmp_path_factory.mktemp("stylegan") / "generator.pt"
    save_generator(StyleGAN2(StyleGAN2Config.of_size(32, mapping_layers=2, base=256, most=16)), path)
    return path


@pytest.mark.parametrize("name", sorted(name for name in CONFIGS if name.startswith(("sd_", "sd3_"))))
@pytest.mark.parametrize("host", ["embedded", "threestudio"])
def test_stable_diffusion_configs_run_at_small_size(host, name, stable, generator, tmp_path):
    if name.startswith("sd3_"):
        stable = write_sd3(tmp_path / "sd3")
    overrides = [
        f"system.prompt_processor.pretrained_model_name_or_path={stable}",
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
        "trainer.precision=32-true",
    ]
    if name.startswith("sd3_"):
        overrides.append("system.guidance.input_size=64")
    if "stylegan" in name or "layered" in name:
        overrides.append(f"system.guidance.pretrained_model_name_or_path={stable}")
    elif "mesh_texture" not in name:
        overrides.append("system.renderer.num_samples_per_ray=8")
    if "stylegan" in name:
        overrides.append(f"system.pretrained_generator={generator}")
    elif "layered" in name:
        overrides += [*with_input(name, tmp_path), "data.short_side=64", "system.generator.channels=8"]
    elif "jacobian" in name:
        overrides.append("system.geometry.grid_size=[16,16,16]")
    else:
        field = "system.geometry.field" if "mesh_texture" in name else "system.geometry"
        overrides += with_input(name, tmp_path)
        sizes = "n_levels: 4, n_features_per_level: 2, log2_hashmap_size: 10, base_resolution: 16, per_level_scale: 1.5"
        overrides.append(f"{field}.pos_encoding_config={{otype: HashGrid, {sizes}}}")  # replaced as a whole
    found = launched(host, CONFIGS[name], tmp_path, *overrides)
    assert all(math.isfinite(value) for row in logged(found["folder"]) for value in row.values())


INVERSION = """
import sys
import torch
from latent_prior import host
import latent_prior
latent_prior.register()
import threestudio
import threestudio.models.guidance.stable_diffusion_sdi_guidance
from latent_prior.models.condition import Condition
from latent_prior.models.latent_prior import LatentPrior

folder, size = sys.argv[1], 512
keys = {"half_precision_weights": False, "guidance_scale": 7.5}
theirs = threestudio.find("stable-diffusion-sdi-guidance")({"pretrained_model_name_or_path": folder, **keys})
options = {"score": "sdi", "weighting_strategy": "sigma_over_alpha", "use_fm": False, "use_kl": False}
ours = LatentPrior.from_pretrained(folder, device="cpu", guidance_scale=8.5, sample_latents=True, **options)


class Prompts:
    use_perp_neg = False
    embeddings = ours.text_encoder(["a red mug", ""])

    def get_text_embeddings(self, *cameras):
        return self.embeddings


rgb, noise = torch.rand(1, size, size, 3), torch.randn(1, 4, size // 8, size // 8)
camera, found = torch.zeros(1), []
for name in ("theirs", "ours"):
    torch.manual_seed(3)
    picture = rgb.clone().requires_grad_()
    if name == "theirs":
        out = theirs(picture, Prompts(), camera, camera, camera, call_with_defined_noise=noise)
        loss = out["loss_sdi"] * noise.numel()  # a mean over the entries, where ours is a sum
    else:
        v = ours.to_latents(picture.permute(0, 3, 1, 2), latents=False, options=ours.options)
        loss = ours.score(v, Condition(*Prompts.embeddings.chunk(2)), (20, 980), noise=noise).lsd
    found.append(torch.autograd.grad(loss, picture)[0])
difference = (found[0] - found[1]).norm() / found[0].norm()
assert found[0].norm() > 0 and difference < 1e-4, difference
print(f"relative difference {difference:.1e}")
print(host.NAME)
"""


def test_threestudios_sdi_guidance_gives_the_same_update(stable):
    """On one random checkpoint, with the noise given."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "custom"), "LATENT_PRIOR_HOST": "threestudio"}
    done = subprocess.run([sys.executable, "-c", INVERSION, str(stable)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "threestudio"


EXPORT = """
import sys
from latent_prior import host
import latent_prior
latent_prior.register()
keys = {"isosurface_threshold": 120.0, "isosurface_resolution": 24}
geometry = host.find("volume-grid")({"grid_size": [24, 24, 24], "density_blob_scale": 300.0, **keys})
parts = {"geometry": geometry, "material": host.find("no-material")({}), "background": None}
make = host.find("vertex-color-mesh-exporter")
assert make({}, **parts).extract().threshold == 120.0
assert make({"isosurface_threshold": 60.0}, **parts).extract().threshold == 60.0
assert make({"isosurface_threshold": "auto"}, **parts).extract().threshold not in (60.0, 120.0)
assert make({"isosurface_resolution": 48}, **parts).extract().step < 0.7 * make({}, **parts).extract().step
print(host.NAME)
"""


def test_an_export_takes_threestudios_isosurface_keys():
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "custom"), "LATENT_PRIOR_HOST": "threestudio"}
    done = subprocess.run([sys.executable, "-c", EXPORT], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("threestudio\n"), done.stderr[-2000:]


LOADER = """
from latent_prior.host.threestudio import bring_in
bring_in()
import importlib.util, threestudio
spec = importlib.util.spec_from_file_location("their_launch", "launch.py")
their_launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(their_launch)
their_launch.load_custom_modules()
once = dict(threestudio.__modules__)
assert {"latent-prior-guidance", "latent-prior-system", "another-system"} <= once.keys(), sorted(once)
their_launch.load_custom_modules()
assert threestudio.__modules__.keys() == once.keys()
cfg = threestudio.utils.config.load_config("custom/latent_prior.yaml", cli_args=[], n_gpus=1)
assert threestudio.find(cfg.system_type).__module__ == "latent_prior.systems.text_to_3d"
"""


def test_linked_beside_another_extension_threestudios_own_loader_takes_us(tmp_path):
    root = Path(os.environ["THREESTUDIO_ROOT"])
    for name in ("launch.py", "threestudio", "extern"):
        (tmp_path / name).symlink_to(root / name)
    link(tmp_path)
    (tmp_path / "custom" / "another").mkdir()
    (tmp_path / "custom" / "another" / "__init__.py").write_text(
        "import threestudio\n\n\n@threestudio.register('another-system')\nclass Another:\n    pass\n"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "custom"), "LATENT_PRIOR_HOST": "threestudio"}
    env["THREESTUDIO_ROOT"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", LOADER], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_misspelt_key_is_refused_in_one_line(tmp_path):
    env = {**os.environ, "LATENT_PRIOR_HOST": "auto"}
    command = [
        sys.executable,
        str(REPOSITORY / "launch.py"),
        "--host",
        "threestudio",
        "--config",
        str(CONFIGS["latent_prior"]),
    ]
    for wrong in ("system.geometry.levles=3", "sytem_type=x"):
        done = subprocess.run(
            [*command, wrong, f"exp_root_dir={tmp_path}"], env=env, capture_output=True, text=True, cwd=tmp_path
        )
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 2 and len(said) == 1, done.stderr[-2000:]
        assert wrong.split("=")[0].split(".")[-1] in said[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_is_resumed_longer_and_its_folder_is_its_own(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "custom"), "LATENT_PRIOR_DEVICE": "cpu"}
    small = ["data.height=16", "data.width=16", "system.geometry.levels=[2,4,8,16]", "data.n_test_views=1"]
    small += ["system.renderer.num_samples_per_ray=8", "system.prompt_processor.use_cache=false"]
    small += [f"exp_root_dir={tmp_path}", "use_timestamp=false", "tag=run", "trainer.max_steps=2"]
    start = [sys.executable, "-m", "latent_prior", "generate", "a red mug", "--host", "threestudio", *small]
    folder = tmp_path / "latent_prior" / "run"
    resume = [sys.executable, "-m", "latent_prior", "resume", str(folder), "--host", "threestudio"]
    for command, code in ((start, 0), (start, 2), ([*resume, "trainer.max_steps=4"], 0)):
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stderr[-2000:]
    assert torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["global_step"] == 4
