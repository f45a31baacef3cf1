"""Promise: no NaN is saved, and no run ends well with one. A table of overflows, in every system and stage.

After each: the exit code is not 0, the line says what is not finite, when and what to change, every number in every
file is finite, and the last good checkpoint resumes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latent_prior import host
from latent_prior.cli import launch, main
from latent_prior.files.pictures import to_picture
from latent_prior.host.embedded import registry
from latent_prior.meshes.files import load_mesh
from latent_prior.runs import experiment
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import Mapping, StyleGAN2, StyleGAN2Config
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

NAN, INF = math.nan, math.inf
STEPS, EVERY = 6, 2  # steps of a run, and between its checkpoints


class Guidance(host.BaseObject):
    """Two terms of any pictures. `fault(name, value, step)` replaces a term's value."""

    fault: Callable[[str, Tensor, int], Tensor] = staticmethod(lambda name, value, step: value)

    @dataclass
    class Config(host.BaseObject.Config):
        guidance_scale: float = 1.0

    def update_step(self, epoch, global_step, on_load_weights=False):
        self.step = global_step

    def __call__(self, rgb, prompt_utils, **batch):
        terms = {"loss_grey": (rgb - 0.5).square().mean(), "loss_edge": rgb.diff(dim=1).square().mean()}
        return {name: self.fault(name, value, self.step) for name, value in terms.items()}

    def decode_latents(self, latents):
        return latents[:, :3].sigmoid()


class Prompts(host.BaseObject):
    @dataclass
    class Config(host.BaseObject.Config):
        prompt: str = "a thing"

    def __call__(self):
        return None


class Backward(torch.autograd.Function):
    """The identity, whose gradient is `factor` times what it should be."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


FIELD = {
    "geometry_type": "volume-grid",
    "geometry": {"radius": 0.9, "grid_size": [6, 6, 6], "n_feature_dims": 3, "isosurface_resolution": 12}
    | {"density_blob_scale": 10.0},
    "material_type": "no-material",
    "material": {"n_output_dims": 3, "color_activation": "sigmoid"},
    "background_type": "solid-color-background",
    "renderer_type": "dense-volume-renderer",
    "renderer": {"radius": 0.9, "num_samples_per_ray": 8},
    "exporter_type": "vertex-color-mesh-exporter",
    "exporter": {"fmt": "obj"},
}
LATENTS = ["system.space=latent", "system.geometry.n_feature_dims=4", "system.material.n_output_dims=4"]
LATENTS += ["system.material.color_activation=none", "system.background.n_output_dims=4"]
LATENTS += ["system.background.color=[0,0,0,0]", "system.exporter.latent_to_rgb=[[1,0,0],[0,1,0],[0,0,1],[0,0,0]]"]
CAMERAS = {"batch_size": 1, "height": 8, "width": 8, "eval_height": 12, "eval_width": 12, "n_test_views": 2}
SYSTEMS: dict[str, dict[str, Any]] = {
    "latent-prior-system": {
        "data_type": "random-camera-datamodule",
        "data": CAMERAS | {"n_val_views": 1, "camera_distance_range": [2.0, 2.0], "eval_camera_distance": 2.0},
        "system": FIELD,
    },
    "stylegan-adaptation-system": {
        "data_type": "latent-codes-datamodule",
        "data": {"batch_size": 2, "z_dim": 8, "n_grid": 2, "n_frames": 2},
        "system": {"pretrained_generator": "GENERATOR"},
    },
    "layered-editing-system": {
        "data_type": "one-picture-datamodule",
        "data": {"image": "PICTURE", "short_side": 16},
        "system": {"short_side": 16, "generator": {"channels": 4}},
    },
}
FIELD_SYSTEM, STYLEGAN, LAYERED = SYSTEMS


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_prior) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        to_picture(torch.rand(3, 20, 24)).save(folder / "photo.png")
        mask = torch.zeros(1, 20, 24)
        mask[:, 6:14, 6:16] = 1
        to_picture(mask).save(folder / "mask.png")
        shape = StyleGAN2Config.of_size(16, z_dim=8, w_dim=8, mapping_layers=2, base=64, most=8)
        save_generator(StyleGAN2(shape), folder / "generator.safetensors")
    names = {"GENERATOR": "generator.safetensors", "PICTURE": "photo.png", "MASK": "mask.png"}
    return {key: str(folder / name) for key, name in names.items()} | {"PRIOR": str(tiny_prior)}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    experiment.load()
    for name, kind in {"stand-in-guidance": Guidance, "stand-in-prompts": Prompts}.items():
        monkeypatch.setitem(registry.__modules__, name, kind)


def config_file(system: str, inputs: dict[str, str], folder: Path) -> str:
    """The YAML of a small run of a system."""
    common = {
        "guidance_type": "stand-in-guidance",
        "prompt_processor_type": "stand-in-prompts",
        "prompt_processor": {"prompt": "a thing"},
        "loss": {"lambda_grey": 1.0, "lambda_edge": 0.5},
        "optimizer": {"name": "Adam", "args": {"lr": 0.01}},
    }
    cfg = {"name": "numbers", "tag": "run", "use_timestamp": False, "exp_root_dir": str(folder)}
    cfg |= {"system_type": system, **SYSTEMS[system]}
    cfg["system"] = common | SYSTEMS[system]["system"]
    cfg["trainer"] = {"max_steps": STEPS, "log_every_n_steps": 1, "num_sanity_val_steps": 0, "val_check_interval": 3}
    cfg["trainer"] |= {"enable_progress_bar": False}
    cfg["checkpoint"] = {"save_last": True, "save_top_k": -1, "every_n_train_steps": EVERY}
    file = folder / "config.yaml"
    text = OmegaConf.to_yaml(OmegaConf.create(cfg))
    for name, value in inputs.items():
        text = text.replace(name, value)
    file.write_text(text)
    return str(file)


def ended(command: Callable[[], int], capsys) -> tuple[int, str]:
    """The exit code that a command gives to the shell, and its last line."""
    try:
        code = command()
    except Exception as error:  # a traceback ends with code 1
        return 1, f"{type(error).__name__}: {error}"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return code, lines[-1] if lines else ""


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers, named."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(entry, f"{name}.{key}")


def not_finite(folder: Path) -> list[str]:
    """Every number in the files of a folder that is not finite."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stored: Any = {}
        if path.suffix == ".ckpt":
            checkpoint = torch.load(path, weights_only=True)
            stored = {key: checkpoint[key] for key in ("state_dict", "optimizer_states")}
        elif path.suffix == ".pt":
            stored = torch.load(path, weights_only=True)
        elif path.suffix == ".safetensors":
            stored = load_file(path)
        elif path.suffix in (".glb", ".obj", ".ply"):
            mesh = load_mesh(path)
            stored = [torch.tensor(np.array(part)) for part in (mesh.vertices, mesh.vertex_normals)]
        elif path.suffix in (".csv", ".json"):
            words = path.read_text().lower().replace(",", " ").replace(":", " ").split()
            stored = {word: torch.tensor(NAN) for word in words if word.lstrip("-") in ("nan", "inf", "infinity")}
        found += [f"{path.name}{name}" for name, value in numbers(stored) if not value.isfinite().all()]
    return found


@dataclass(frozen=True)
class Case:
    """An overflow: what is injected into which system, what the line names, and a file that must not be written."""

    system: str
    inject: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    says: tuple[str, ...] = ()
    overrides: list[str] = field(default_factory=list)
    never: str = ""
    saved: int = 2  # step of the last checkpoint; 0: none
    prior: bool = False  # the real guidance, on a tiny checkpoint


def at(step: int, change: Callable[[Tensor], Tensor], term: str = "loss_edge") -> Callable[[pytest.MonkeyPatch], None]:
    """Change one term in one step."""

    def fault(name: str, value: Tensor, now: int) -> Tensor:
        return change(value) if (name, now) == (term, step) else value

    return lambda patch: patch.setattr(Guidance, "fault", staticmethod(fault))


def gradient(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda value: Backward.apply(value, factor)


def returning(owner: str, name: str, change: Callable[[Any], Any], when=lambda self: True):
    """Change what a method returns."""

    def inject(patch: pytest.MonkeyPatch) -> None:
        import importlib

        module, _, cls = owner.rpartition(".")
        kind = getattr(importlib.import_module(module), cls)
        method = getattr(kind, name)

        def changed(self, *args, **kwargs):
            out = method(self, *args, **kwargs)
            return change(out) if when(self) else out

        patch.setattr(kind, name, changed)

    return inject


RENDERER = "latent_prior.rendering.volume_renderer.DenseVolumeRenderer"
VOLUME = "latent_prior.host.embedded.geometry.volume_grid.VolumeGrid"


def shown_as(value: float, stage: str):
    """The renderer's colours in one stage of the run, in one pixel."""

    def change(out):
        out["comp_rgb"].view(-1)[5] = value
        return out

    def inject(patch: pytest.MonkeyPatch) -> None:
        from latent_prior.systems.text_to_3d import LatentPriorSystem

        forward = LatentPriorSystem.forward

        def changed(self, *args, **kwargs):
            out = forward(self, *args, **kwargs)
            if getattr(self.trainer, stage):
                for key in ("comp_rgb", "decoded_rgb"):
                    out[key].view(-1)[5] = value
            return out

        patch.setattr(LatentPriorSystem, "forward", changed)

    return inject


def layer_of(value: float):
    from latent_prior.editing.layer import Layer

    return returning(
        "latent_prior.editing.layer.LayerGenerator",
        "forward",
        lambda layer: Layer(layer.rgb * value, layer.alpha),
        when=lambda self: not self.training,
    )


def features_of(value: float):
    def change(out):
        return {name: tensor * value if name == "features" else tensor for name, tensor in out.items()}

    return returning(VOLUME, "export", change)


def average_of(value: float):
    def inject(patch: pytest.MonkeyPatch) -> None:
        estimate = Mapping.estimate_average

        def changed(self, *args, **kwargs):
            estimate(self, *args, **kwargs)
            self.w_avg[3] = value

        patch.setattr(Mapping, "estimate_average", changed)

    return inject


def vae_gives(value: float):
    def change(out):
        out.sample[..., 1, 1] = value
        return out

    return returning("diffusers.AutoencoderKL", "decode", change)


LR = "lr in system.optimizer"
CASES = {
    "field, a term is NaN": Case(FIELD_SYSTEM, at(3, lambda v: v * NAN), ("loss_edge", "step 3", "lambda_edge")),
    "field, a gradient is NaN": Case(
        FIELD_SYSTEM, at(3, gradient(NAN)), ("loss_edge", "step 3", "lambda_edge", "geometry.grid")
    ),
    "field, a gradient is infinite in the first step": Case(
        FIELD_SYSTEM, at(0, gradient(INF)), ("loss_edge", "step 0", "lambda_edge"), saved=0
    ),
    "field, a gradient is NaN in the last step": Case(
        FIELD_SYSTEM, at(5, gradient(NAN)), ("loss_edge", "step 5", "lambda_edge"), saved=4
    ),
    "field, a gradient too large for Adam's squares": Case(
        FIELD_SYSTEM, at(3, gradient(1e30)), ("loss_edge", "step 3", "lambda_edge")
    ),
    "field, a learning rate that overflows": Case(
        FIELD_SYSTEM, overrides=["system.optimizer.args.lr=1e38"], says=("geometry.grid", "step 1", LR), saved=0
    ),
    "field, it overflows in the last step": Case(
        FIELD_SYSTEM,
        overrides=[
            "system.optimizer.args.lr=0.01",
            "system.scheduler={name: MultiStepLR, interval: step, args: {milestones: [5], gamma: 1e60}}",
        ],
        says=("step 5", "learning rate", "system.scheduler"),
        saved=4,
    ),
    "field, a huge weight": Case(
        FIELD_SYSTEM,
        overrides=["system.loss.lambda_edge=[3,0.5,1e38,3]"],
        says=("loss_edge", "step 3", "lambda_edge"),
    ),
    "field, an infinite gradient that is clipped": Case(
        FIELD_SYSTEM, at(3, gradient(INF)), ("loss_edge", "step 3"), ["trainer.gradient_clip_val=1.0"]
    ),
    "field, the first of two accumulated gradients": Case(
        FIELD_SYSTEM,
        at(1, gradient(NAN)),
        ("geometry.grid", "step 1", "accumulate"),
        ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=20"],
        saved=0,
    ),
    "field, a picture of the validation": Case(
        FIELD_SYSTEM, shown_as(NAN, "validating"), ("picture", "step 3"), never="save/it3-0.png"
    ),
    "field, a picture of the test": Case(
        FIELD_SYSTEM, shown_as(INF, "testing"), ("picture", "step 6"), never="save/it6-test/0.png", saved=6
    ),
    "field, the colours of the mesh": Case(
        FIELD_SYSTEM, features_of(NAN), ("colours", "step 6"), never="save/it6-export/*", saved=6
    ),
    "field, infinite colours of the mesh": Case(
        FIELD_SYSTEM,
        returning(VOLUME, "export", lambda out: out | {"features": out["features"] * INF}),
        ("colours", "step 6"),
        ["system.material.color_activation=none"],
        never="save/it6-export/*",
        saved=6,
    ),
    "field, its density in the export": Case(
        FIELD_SYSTEM,
        returning(VOLUME, "forward_density", lambda out: out * NAN),
        ("density", "step 6"),
        never="save/it6-export/*",
        saved=6,
    ),
    "latents, a decoder that overflows": Case(
        FIELD_SYSTEM, vae_gives(INF), ("decoded", "step 3"), LATENTS, never="save/it3-0.png", prior=True
    ),
    "latents, a guidance scale that overflows": Case(
        FIELD_SYSTEM,
        overrides=[*LATENTS, "system.guidance.guidance_scale=[3,1.0,3e38,3]"],
        says=("loss_sds", "step 3", "guidance_scale"),
        prior=True,
    ),
    "generator, a term is infinite": Case(STYLEGAN, at(3, lambda v: v * INF), ("loss_edge", "step 3", "lambda_edge")),
    "generator, a gradient is NaN": Case(
        STYLEGAN, at(3, gradient(NAN)), ("loss_edge", "step 3", "lambda_edge", "generator.")
    ),
    "generator, adaptive layers": Case(
        STYLEGAN,
        at(3, gradient(INF)),
        ("loss_edge", "step 3", "lambda_edge", "generator."),
        ["system.adaptive_layers=2", "system.trainable=[synthesis.*.weight]"],
    ),
    "generator, a gradient is infinite in the last step": Case(
        STYLEGAN, at(5, gradient(INF)), ("loss_edge", "step 5", "lambda_edge"), saved=4
    ),
    "generator, the exported weights": Case(
        STYLEGAN, average_of(NAN), ("mapping.w_avg", "step 6"), never="save/generator.*", saved=6
    ),
    "generator, its pictures": Case(
        STYLEGAN,
        returning(
            "latent_prior.systems.stylegan_adaptation.StyleGANAdaptationSystem",
            "_pictures",
            lambda both: (both[0] * INF, both[1]),
            when=lambda self: not self.training,
        ),
        ("picture", "step 3"),
        never="save/it3-before_after.png",
    ),
    "layer, a gradient is NaN": Case(
        LAYERED, at(3, gradient(NAN)), ("screen_loss_edge", "step 3", "lambda_edge", "generator.")
    ),
    "layer, a term of the system's own": Case(
        LAYERED,
        lambda patch: patch.setattr(
            "latent_prior.systems.layered_editing.sparsity",
            lambda alpha: alpha.mean() * (INF if alpha.mean() > 0 else 1),
        ),
        ("loss_sparsity", "step 3", "lambda_sparsity"),
        ["system.loss.lambda_sparsity=[2,0.0,1.0,4]"],
    ),
    "layer, its pictures": Case(LAYERED, layer_of(NAN), ("picture", "step 3"), never="save/*.png"),
    "layer, the edit alone": Case(
        LAYERED, layer_of(INF), ("picture", "step 6"), ["trainer.val_check_interval=20"], "save/*.png", saved=6
    ),
}


def command(case: Case, inputs: dict[str, str], folder: Path) -> list[str]:
    """The arguments of `launch.py` for a case's run, whose folder is `folder`/numbers/run."""
    given = ["--config", config_file(case.system, inputs, folder), *case.overrides]
    if case.prior:
        for part in ("guidance", "prompt_processor"):
            given.append(f"system.{part}_type=latent-prior-{part.replace('_', '-')}")
            given.append(f"system.{part}.pretrained_model_name_or_path={inputs['PRIOR']}")
        given += ["system.prompt_processor.use_cache=false", "system.loss={lambda_sds: 1.0}"]
        given += ["system.guidance.use_fm=false", "system.guidance.use_kl=false"]
    return given


@pytest.mark.parametrize("name", CASES)
def test_it_stops_and_nothing_that_is_not_finite_is_kept(name, inputs, tmp_path, capsys):
    case = CASES[name]
    given = command(case, inputs, tmp_path)
    folder = tmp_path / "numbers" / "run"
    with pytest.MonkeyPatch.context() as patch:
        case.inject(patch)
        code, line = ended(lambda: launch.main(given), capsys)
    assert code != 0, line
    assert not not_finite(tmp_path)
    assert all(words in line for words in case.says), line
    assert "Error:" not in line, line  # one line and no traceback
    assert not (list(folder.glob(case.never)) if case.never else [])
    kept = sorted(int(path.stem.split("step=")[1]) for path in folder.glob("ckpts/*step=*.ckpt"))
    assert (kept or [0])[-1] == case.saved
    if case.saved:
        again = [] if case.system == FIELD_SYSTEM and case.prior else ["system.loss.lambda_edge=0.5"]
        assert main(["resume", str(folder), f"trainer.max_steps={STEPS + 1}", *again, "system.guidance={}"]) == 0
