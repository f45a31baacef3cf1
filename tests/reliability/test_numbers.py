"""Promise: no NaN is saved, and no run ends well with one. A table of overflows, in every system and stage.

After each: the exit code is not 0, the line says what is not finite, when and what to change, every number in every
file is finite, and the last good checkpoint resumes.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latent_prior import Diverged, host
from latent_prior.cli import launch, main
from latent_prior.files.pictures import to_picture
from latent_prior.host.embedded import registry
from latent_prior.meshes.files import load_mesh
from latent_prior.pocket.training import loop
from latent_prior.prior import kl_loss
from latent_prior.runs import experiment
from latent_prior.runs.folder import config_path, last_checkpoint
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import Mapping, StyleGAN2, StyleGAN2Config
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

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


FIELD: dict[str, Any] = {
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
PRIOR = {"pretrained_model_name_or_path": "PRIOR"}
LATENTS = {  # instead of colours, with the real guidance on a tiny checkpoint
    "space": "latent",
    "geometry": FIELD["geometry"] | {"n_feature_dims": 4},
    "material": {"n_output_dims": 4, "color_activation": "none"},
    "background": {"n_output_dims": 4, "color": [0.0] * 4},
    "exporter": {"fmt": "obj", "latent_to_rgb": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]},
    "guidance_type": "latent-prior-guidance",
    "guidance": PRIOR | {"use_fm": False, "use_kl": False},
    "prompt_processor_type": "latent-prior-prompt-processor",
    "prompt_processor": PRIOR | {"prompt": "a mug", "use_cache": False},
    "loss": {"lambda_sds": 1.0},
}
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


def config_file(case: "Case", inputs: dict[str, str], folder: Path) -> str:
    """The YAML of a small run of a case's system, without its overrides."""
    common = {
        "guidance_type": "stand-in-guidance",
        "prompt_processor_type": "stand-in-prompts",
        "prompt_processor": {"prompt": "a thing"},
        "loss": {"lambda_grey": 1.0, "lambda_edge": 0.5},
        "optimizer": {"name": "Adam", "args": {"lr": 0.01}},
    }
    cfg = {"name": "numbers", "tag": "run", "use_timestamp": False, "exp_root_dir": str(folder)}
    cfg |= {"system_type": case.system, **SYSTEMS[case.system]}
    cfg["system"] = common | SYSTEMS[case.system]["system"] | (LATENTS if case.latents else {})
    if case.latents:
        cfg["data"] = cfg["data"] | {"eval_height": 64, "eval_width": 64}
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
    latents: bool = False


def at(step: int, change: Callable[[Tensor], Tensor], term: str = "loss_edge") -> Callable[[pytest.MonkeyPatch], None]:
    """Change one term in one step."""

    def fault(name: str, value: Tensor, now: int) -> Tensor:
        return change(value) if (name, now) == (term, step) else value

    return lambda patch: patch.setattr(Guidance, "fault", staticmethod(fault))


def gradient(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda value: Backward.apply(value, factor)


def once(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    left = [change]
    return lambda value: left.pop()(value) if left else value


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


VOLUME = "latent_prior.host.embedded.geometry.volume_grid.VolumeGrid"


def shown_as(value: float, stage: str):
    """The renderer's colours in one stage of the run, in one pixel."""

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
    return returning(VOLUME, "export", lambda out: out | {"features": out["features"] * value})


def exporting_a_grid_of(value: float):
    def inject(patch: pytest.MonkeyPatch) -> None:
        from latent_prior.meshes.exporter import VertexColorMeshExporter

        extract = VertexColorMeshExporter.extract

        def changed(self):
            self.geometry.grid.data[0, 0, 2, 2, 2] = value
            return extract(self)

        patch.setattr(VertexColorMeshExporter, "extract", changed)

    return inject


def stepping(step: int, value: float):
    """The optimiser's own step makes a parameter `value`."""

    def inject(patch: pytest.MonkeyPatch) -> None:
        adam = torch.optim.Adam.step

        def changed(self, closure=None):
            loss = adam(self, closure)
            parameter = self.param_groups[0]["params"][0]
            if self.state[parameter]["step"] == step + 1:
                parameter.data.view(-1)[7] = value
            return loss

        patch.setattr(torch.optim.Adam, "step", changed)

    return inject


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
    "field, a step too far": Case(
        FIELD_SYSTEM,
        at(1, gradient(1e18)),
        ("geometry.grid", "step 2", LR),
        ["system.optimizer={name: SGD, args: {lr: 1e6}}", "checkpoint.every_n_train_steps=4"],
        saved=0,
    ),
    "field, a step to infinity in the last step": Case(
        FIELD_SYSTEM,
        stepping(5, INF),
        ("geometry.grid", "step 6", LR),
        saved=4,
    ),
    "field, a schedule to the sky": Case(
        FIELD_SYSTEM,
        overrides=[
            "system.optimizer.args.lr=0.01",
            "system.scheduler={name: MultiStepLR, interval: step, args: {milestones: [5], gamma: 1e30}}",
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
        at(1, once(gradient(NAN))),
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
        features_of(INF),
        ("colours", "step 6"),
        ["system.material.color_activation=none"],
        never="save/it6-export/*",
        saved=6,
    ),
    "field, its density in the export": Case(
        FIELD_SYSTEM,
        exporting_a_grid_of(NAN),
        ("the field", "step 6"),
        never="save/it6-export/*",
        saved=6,
    ),
    "latents, a decoder that overflows": Case(
        FIELD_SYSTEM, vae_gives(INF), ("decoded", "step 3"), never="save/it3-0.png", latents=True
    ),
    "latents, a guidance scale that overflows": Case(
        FIELD_SYSTEM,
        overrides=["system.guidance.guidance_scale=[3,1.0,3e38,3]"],
        says=("loss_sds", "step 3", "guidance_scale"),
        latents=True,
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
    "layer, its pictures": Case(LAYERED, layer_of(NAN), ("picture", "step 3"), never="save/*edit*.png"),
    "layer, the edit alone": Case(
        LAYERED, layer_of(INF), ("picture", "step 6"), ["trainer.val_check_interval=20"], "save/*edit*.png", saved=6
    ),
}


def command(case: Case, inputs: dict[str, str], folder: Path) -> list[str]:
    """The arguments of `launch.py` for a case's run, whose folder is `folder`/numbers/run."""
    return ["--config", config_file(case, inputs, folder), *case.overrides]


QUICK = {
    "field, a gradient is NaN",
    "field, a gradient is infinite in the first step",
    "field, the first of two accumulated gradients",
    "field, a step too far",
    "generator, its pictures",
    "layer, its pictures",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES])
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
        sound = config_file(case, inputs, tmp_path)
        resumed = experiment.run(
            [sound], [f"resume={last_checkpoint(folder)}", f"trainer.max_steps={STEPS + 1}"], ("train",)
        )
        assert resumed.system.global_step == STEPS + 1


@pytest.mark.slow
def test_without_an_overflow_every_system_ends_well(inputs, tmp_path, capsys):
    """The table proves something only if the same runs are sound without their injections."""
    for system in SYSTEMS:
        folder = tmp_path / system
        folder.mkdir()
        assert ended(lambda s=system, f=folder: launch.main(command(Case(s), inputs, f)), capsys) == (0, "")
        assert not not_finite(folder)
    (tmp_path / "bad.pt").write_bytes(b"")
    torch.save({"w": torch.tensor([1.0, NAN])}, tmp_path / "bad.pt")
    assert not_finite(tmp_path) == ["bad.pt.w"]


@pytest.mark.slow
def test_a_resumed_run_stops_too(inputs, tmp_path, capsys):
    assert launch.main([*command(Case(FIELD_SYSTEM), inputs, tmp_path), "--train", "trainer.max_steps=4"]) == 0
    folder = tmp_path / "numbers" / "run"
    with pytest.MonkeyPatch.context() as patch:
        at(5, gradient(NAN))(patch)
        code, line = ended(lambda: main(["resume", str(folder), f"trainer.max_steps={STEPS}"]), capsys)
    assert code != 0 and all(words in line for words in ("step 5", "loss_edge", "lambda_edge")), line
    assert not not_finite(tmp_path) and torch.load(last_checkpoint(folder), weights_only=True)["global_step"] == 4
    checkpoint = torch.load(last_checkpoint(folder), weights_only=True)  # one that another program broke
    checkpoint["state_dict"]["geometry.grid"][0, 0, 0, 0, 0] = INF
    torch.save(checkpoint, folder / "ckpts" / "last.ckpt")
    for of_the_run in ("resume", "export"):
        code, line = ended(lambda c=of_the_run: main([c, str(folder)]), capsys)
        assert code != 0 and "geometry.grid is not finite; take an earlier one" in line, line


def second_decoding_of(value: float):
    calls: list[int] = []

    def change(out):
        calls.append(1)
        if len(calls) == 2:
            out.sample[..., 1, 1] = value
        return out

    return returning("diffusers.AutoencoderKL", "decode", change)


EDITS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], tuple[str, ...], list[str]]] = {
    "a sample": (
        returning("latent_prior.editing.blended_diffusion.BlendedDiffusion", "edit", lambda latents: latents * NAN),
        ("the sample of seed 3", "--guidance-scale"),
        [],
    ),
    "the second sample's picture": (
        second_decoding_of(INF),
        ("in the decoded picture", "guidance scale"),
        ["seed3.png"],
    ),
    "the distance": (
        returning("latent_prior.models.clip.Clip", "embed_images", lambda embedded: embedded * NAN),
        ("CLIP", "seed 3", "--clip"),
        [],
    ),
    "the fitted background": (
        lambda patch: patch.setattr("latent_prior.editing.background_reconstruction.OUTSIDE_WEIGHT", INF),
        ("fitted decoder", "--reconstruction-steps"),
        ["seed3.png", "seed4.png"],
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_masked_edit_stops_and_keeps_the_samples_so_far(name, inputs, tmp_path, capsys):
    inject, says, kept = EDITS[name]
    given = ["edit-masked", inputs["PICTURE"], "--mask", inputs["MASK"], "--prompt", "a cat"]
    given += ["--checkpoint", inputs["PRIOR"], "--steps", "3", "--samples", "2", "--seed", "3"]
    given += ["--reconstruction-steps", "2", "--out", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        inject(patch)
        code, line = ended(lambda: main(given), capsys)
    assert code != 0 and line.startswith("error: ") and all(words in line for words in says), line
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == kept


@pytest.mark.parametrize("value", ["loss", "gradient", "last gradient", "average"])
def test_training_of_the_pocket_models_keeps_its_last_state(value, tmp_path):
    """At step 2 or 3 of 4; states are saved at once."""
    torch.manual_seed(0)
    model, average = nn.Linear(2, 1), nn.Linear(2, 1)
    steps = []

    def loss(g):
        steps.append(1)
        value_now = model.weight.square().sum()
        if len(steps) == {"loss": 3, "gradient": 3, "last gradient": 4}.get(value):
            value_now = value_now * NAN if value == "loss" else Backward.apply(value_now, NAN)
        if value == "average" and len(steps) == 3:
            average.bias.data[0] = INF
        return value_now, {}

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Diverged, match="step 2|step 3"):
        patch.setattr(loop, "SAVE_EVERY", -1.0)
        loop.train(tmp_path, model, loss, 4, 0.1, 0, ema=average)
    assert not not_finite(tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == len(steps) - 1


BAD_NUMBERS = {
    "system.geometry.radius=.nan": "system.geometry.radius is nan; expected a finite number",
    "system.geometry.radius=nan": "system.geometry.radius is 'nan'; expected a finite number",
    "system.geometry.density_blob_scale=1e39": r"system.geometry.density_blob_scale is 1e\+39; expected a finite",
    "system.loss.lambda_edge=.inf": "system.loss.lambda_edge is inf; expected a finite number",
    "system.loss.lambda_edge=[0,1.0,-.inf,3]": r"system.loss.lambda_edge\[2\] is -inf; expected a finite number",
    "system.loss.lambda_edge=[.nan,1.0,2.0,3]": r"system.loss.lambda_edge\[0\] is nan",
    "system.guidance.guidance_scale=[0,1.0,.nan,3]": r"system.guidance.guidance_scale\[2\] is nan",
    "system.optimizer.args.lr=.nan": "system.optimizer.args.lr is nan; expected a finite number",
    "system.optimizer.args.lr=0": "system.optimizer.args.lr is 0; expected a number above 0",
    "system.optimizer.args.lr=-0.1": "system.optimizer.args",
    "system.optimizer.args.lr=1e38": r"system.optimizer.args.lr is 1e\+38; expected a number above 0 and at most 1e\+06",
    "system.optimizer.params={geometry: {lr: -0.1}}": "system.optimizer.params.geometry.lr is -0.1; expected",
    "system.optimizer.params={geometry: {betas: [0.9, 1.0]}}": (
        r"system.optimizer.params.geometry.betas is .*; expected a number at least 0 and below 1"
    ),
    "system.optimizer.args.betas=[0.9,1.5]": "system.optimizer.args",
    "system.optimizer.args.betas=[-0.1,0.9]": "system.optimizer.args",
    "system.optimizer.args.eps=0": "system.optimizer.args.eps is 0; expected a number above 0",
    "system.optimizer.args.weight_decay=-1": "system.optimizer.args",
    "system.scheduler={name: ExponentialLR, args: {gamma: .inf}}": "system.scheduler.args.gamma is inf",
    "trainer.gradient_clip_val=.nan": "trainer.gradient_clip_val is nan",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val is -1; expected a number of at least 0",
    "data.camera_distance_range=[2.0,.inf]": r"data.camera_distance_range\[1\] is inf",
    "data.eval_fovy_deg=.nan": "data.eval_fovy_deg is nan",
    "system.exporter.smoothing=.nan": "system.exporter.smoothing is nan",
}


@pytest.mark.parametrize("override", BAD_NUMBERS)
def test_a_number_out_of_range_is_refused_by_name(override, inputs, tmp_path, capsys):
    code, line = ended(lambda: launch.main([*command(Case(FIELD_SYSTEM), inputs, tmp_path), override]), capsys)
    assert code == 2 and re.match(f"error: {BAD_NUMBERS[override]}", line), line
    assert not (tmp_path / "numbers").exists()


def test_a_prompt_may_be_a_number(inputs, tmp_path, capsys):
    cfg = host.load_config(config_file(Case(FIELD_SYSTEM), inputs, tmp_path), cli_args=["tag=nan"], n_gpus=1)
    assert cfg.tag == "nan"
    given = [*command(Case(FIELD_SYSTEM), inputs, tmp_path), "--train", "system.prompt_processor.prompt=nan"]
    assert ended(lambda: launch.main([*given, "trainer.max_steps=1"]), capsys) == (0, "")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["train-pocket-stylegan", "--path-weight", "nan"], "--path-weight is nan; expected a number of at least 0"),
        (["train-pocket-stylegan", "--path-weight", "-1"], "--path-weight is -1.0; expected"),
        (["evaluate", "stylegan", "--truncation", "inf"], "--truncation is inf; expected"),
        (["evaluate", "stylegan", "--truncation", "nan"], "--truncation is nan; expected"),
        (["evaluate", "stylegan", "--pictures", "0"], "--pictures is 0; expected"),
        (["evaluate", "text-to-3d", "--jobs", "0"], "--jobs is 0; expected"),
    ],
)
def test_a_flag_out_of_range_is_refused_by_name(flags, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = ended(lambda: main(flags), capsys)
    assert code == 2 and said.startswith(f"error: {line}") and not list(tmp_path.iterdir()), said


def gradient_of_kl(call: int, factor: float):
    """The gradient of the prior's regulariser in a call of it."""
    calls: list[int] = []

    def changed(v, form):
        calls.append(1)
        return Backward.apply(kl_loss(v, form), factor if len(calls) == call else 1.0)

    return lambda patch: patch.setattr("latent_prior.models.latent_prior.kl_loss", changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pocket_dreamfusion", "pocket_stylegan", "pocket_layered_editing"])
def test_shipped_configs_stop_too(name, inputs, tmp_path, capsys):
    """With the pocket prior, at the configs' own sizes; the second run resumes the first."""
    given = ["--config", str(config_path(name)), "--train", f"exp_root_dir={tmp_path}", "trainer.max_steps=3"]
    given += ["use_timestamp=false", "tag=run", "checkpoint.every_n_train_steps=1", "system.loss.lambda_kl=0.001"]
    given += [f"data.image={inputs['PICTURE']}"] if "layered" in name else []
    given += ["system.mesh_stage.from_step=null"] if "dreamfusion" in name else []  # the shape trains in the last step
    folder = tmp_path / name / "run"
    for inject, says in (
        (gradient_of_kl(2, NAN), ("step 1", "grad_norm_kl", "lambda_kl")),
        (stepping(2, NAN), ("step 3",)),
    ):
        with pytest.MonkeyPatch.context() as patch:
            inject(patch)
            code, line = ended(lambda: launch.main(given), capsys)
        assert code != 0 and all(words in line for words in says), line
        assert not not_finite(folder)
        given.append(f"resume={last_checkpoint(folder)}")
