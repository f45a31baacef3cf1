"""The systems, over toy guidances: their losses, gradients, optimisers, modules and what they write."""

from dataclasses import dataclass
from unittest.mock import patch

import torch
from config_fields import Idle, Refused, Table, To
from field_tables.fields import VolumeGrid, rays
from latent_prior import host
from latent_prior.editing.layer import LayerGeneratorConfig
from latent_prior.host.embedded.materials import NoMaterial
from latent_prior.meshes.guide import GuideConfig
from latent_prior.rendering.mesh_rasterizer import MeshRasterizer
from latent_prior.rendering.volume_renderer import DenseVolumeRenderer
from latent_prior.systems.hollowing import HollowingConfig
from latent_prior.systems.layered_editing import LayeredEditingSystem
from latent_prior.systems.mesh_stage import MeshStageConfig
from latent_prior.systems.stylegan_adaptation import StyleGANAdaptationSystem
from latent_prior.systems.text_to_3d import LatentPriorSystem


class ToyGuidance(host.BaseObject):
    @dataclass
    class Config(host.BaseObject.Config):
        grey: float = 0.5

    def __call__(self, rgb, prompt_utils, source_rgb=None, prompt="", rgb_as_latents=False, **batch):
        self.source, self.prompt, self.as_latents = source_rgb, prompt, rgb_as_latents
        return {"loss_toy": (rgb - self.cfg.grey).square().mean() * len(prompt_utils)}

    def decode_latents(self, latents):
        return latents[:, :3]


class OtherGuidance(ToyGuidance):
    def __call__(self, rgb, *args, **batch):
        return {"loss_toy": super().__call__(rgb, *args, **batch)["loss_toy"] + rgb.mean()}


class ToyPrior(ToyGuidance):
    """Finds dark pictures likelier."""

    @dataclass
    class Config(ToyGuidance.Config):
        use_fm: bool = False
        use_kl: bool = False
        use_sds: bool = True
        use_directional: bool = False

    def __call__(self, *args, **batch):
        return {"loss_sds": super().__call__(*args, **batch)["loss_toy"]}

    def denoising_error(self, rgb, prompt_utils, elevation, azimuth, camera_distances, prompted):
        if not prompted:
            return torch.full((len(rgb),), 1e9)
        return (9 * rgb[:, 1, 1].mean(dim=-1)).exp()  # of what is in the middle


class ToyPrompts(host.BaseObject):
    @dataclass
    class Config(host.BaseObject.Config):
        prompt: str = "a mug"

    def __call__(self):
        return self.cfg.prompt


class OtherPrompts(ToyPrompts):
    def __call__(self):
        return self.cfg.prompt * 2


class ToyExporter(host.Exporter):
    @dataclass
    class Config(host.Exporter.Config):
        word: str = "a"

    to_rgb = "known"

    def __call__(self):
        return [self.cfg.word]


class ToyGeometry(VolumeGrid):
    def forward(self, points, **kwargs):
        out = super().forward(points, **kwargs)
        return out | {"density": out["density"] / 2}


class ToyMaterial(NoMaterial):
    def forward(self, features, **kwargs):
        return super().forward(features, **kwargs) / 2


class ToyRenderer(DenseVolumeRenderer):
    def forward(self, **kwargs):
        out = super().forward(**kwargs)
        return out | {"comp_rgb": out["comp_rgb"] / 2}


class ToyRasterizer(MeshRasterizer):
    def forward(self, **kwargs):
        out = super().forward(**kwargs)
        return out | {"comp_rgb": out["comp_rgb"] / 2}


TOYS = {
    "toy-rasterizer": ToyRasterizer,
    "toy-geometry": ToyGeometry,
    "toy-material": ToyMaterial,
    "toy-renderer": ToyRenderer,
    "toy-guidance": ToyGuidance,
    "other-guidance": OtherGuidance,
    "latent-prior-guidance": ToyPrior,
    "toy-prompts": ToyPrompts,
    "other-prompts": OtherPrompts,
    "toy-exporter": ToyExporter,
}
SETTINGS = {
    "loss": {"lambda_toy": 1.0},
    "optimizer": {"name": "Adam", "args": {"lr": 0.1}},
    "guidance_type": "toy-guidance",
    "prompt_processor_type": "toy-prompts",
    "prompt_processor": {"prompt": "a mug"},
}


def see(cls, settings, batch):
    """A step of training, the optimiser and its schedule, and the module."""
    find = host.find
    with (
        patch.object(host, "find", lambda name, *key: TOYS.get(name) or find(name, *key)),
        patch("latent_prior.host.embedded.lift3d.find", lambda name, *key: TOYS.get(name) or find(name, *key)),
    ):
        system = cls(settings)
        logged = {}
        system.log = lambda name, value, **options: logged.update({name: float(torch.as_tensor(value).detach())})
        system.on_fit_start()
        loss = system.training_step(dict(batch), 0)["loss"]
        loss.backward()
        configured = system.configure_optimizers()
        system.on_before_optimizer_step(configured["optimizer"])
        out = {
            "logged": logged,
            "prompt": getattr(system.guidance, "prompt", None),
            "optimizer": configured["optimizer"].state_dict(),
            "scheduler": type(configured.get("lr_scheduler", {}).get("scheduler")).__name__,
            "gradients": {name: p.grad for name, p in system.named_parameters()},
            "weights": system.state_dict(),
        }
        return system, out


def see_text_to_3d(settings, given):
    small = {
        "geometry_type": "volume-grid",
        "geometry": {"grid_size": [4, 4, 4]},
        "material_type": "no-material",
        "background_type": "solid-color-background",
        "renderer_type": "dense-volume-renderer",
        "renderer": {"num_samples_per_ray": 4},
        "exporter_type": "toy-exporter",
    }
    system, out = see(LatentPriorSystem, SETTINGS | small | settings, rays(2, 3))
    with patch("latent_prior.host.embedded.lift3d.find", lambda *_: ToyExporter):
        system.on_predict_start() if system.cfg.exporter_type == "toy-exporter" else None
    exported = [type(system.exporter).__name__, system.exporter()] if hasattr(system, "exporter") else None
    return out | {"exported": exported, "latents": system.guidance.as_latents}


def see_stylegan(settings, given):
    batch = {"z": torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), "height": 16}
    small = {"pretrained_generator": str(given.noisy), "loss": {"lambda_toy": 1.0}}
    system, out = see(StyleGANAdaptationSystem, SETTINGS | small | settings, batch)
    with torch.no_grad():
        return out | {"shown": system.eval()._pair(batch["z"]), "source": system.guidance.source}


def see_layered(settings, given):
    batch = {"picture": torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), "height": 16}
    small = {"generator": {"channels": 4}, "short_side": 16}
    system, out = see(LayeredEditingSystem, SETTINGS | small | settings, batch)
    structure = getattr(system, "_structure", None)
    return out | {"source": system.guidance.source, "structure": structure and structure._mean}


def see_layer(settings, given):
    return see_layered({"generator": {"channels": 4} | settings}, given)


def see_guide(settings, given):
    return see_text_to_3d({"loss": GUIDED_LOSS, "guide": {"mesh": given.sketch} | settings}, given)


def see_hollowing(settings, given):
    return see_text_to_3d(BALL_UNDER_PRIOR | {"hollowing": {"step": 0} | settings}, given)


def see_mesh_stage(settings, given):
    exporter = {"exporter_type": "vertex-color-mesh-exporter", "exporter": {"fmt": "ply"}}
    field = {"geometry_type": "sdf-grid", "geometry": {"levels": [4, 8], "feature_size": 4, "isosurface_resolution": 8}}
    return see_text_to_3d(field | exporter | {"mesh_stage": {"from_step": 0} | settings}, given)


def own_checkpoint(name):
    return lambda given: str(given.systems[name])


BALL_UNDER_PRIOR = {
    "geometry_type": "sdf-grid",
    "geometry": {"levels": [8, 24], "feature_size": 4},
    "guidance_type": "latent-prior-guidance",
    "loss": {"lambda_sds": 1.0},
}
GUIDED_LOSS = {"lambda_toy": 1.0, "lambda_shape": 1.0}
BASE = {
    "loggers": Refused({"wandb": {"enable": True, "project": "p", "name": "n"}}, "wandb"),
    "loss": {"lambda_toy": 2.0},
    "optimizer": {"name": "SGD", "args": {"lr": 0.1}},
    "scheduler": {"name": "ExponentialLR", "args": {"gamma": 0.5}},
    "guidance_type": "other-guidance",
    "guidance": {"grey": 0.1},
    "prompt_processor_type": "other-prompts",
    "prompt_processor": {"prompt": "a long prompt"},
}


def weights(name, module):
    return {
        "weights": own_checkpoint(name),
        "weights_ignore_modules": To([module], {"weights": own_checkpoint(name)}),
    }


TABLES = [
    Table(
        LatentPriorSystem.Config,
        see_text_to_3d,
        BASE
        | weights("text_to_3d", "geometry")
        | {
            "space": To(
                "latent",
                {"geometry": {"n_feature_dims": 3}, "background": {"n_output_dims": 3}},
            ),
            "random_background": [0.2, 0.4],
            "guide": To(
                lambda given: {"mesh": given.other_sketch},
                {"loss": GUIDED_LOSS, "guide": lambda given: {"mesh": given.sketch}},
            ),
            "hollowing": To({"step": 0}, BALL_UNDER_PRIOR),
            "mesh_stage": To(
                {"from_step": 0},
                {
                    "exporter_type": "vertex-color-mesh-exporter",
                    "exporter": {"isosurface_threshold": 0.5, "fmt": "ply"},
                },
            ),
            "geometry_type": "toy-geometry",
            "geometry": {"grid_size": [5, 5, 5]},
            "material_type": "toy-material",
            "material": {"color_activation": "none"},
            "background_type": "neural-environment-map-background",
            "background": {"color": [0.1, 0.2, 0.3]},
            "renderer_type": "toy-renderer",
            "renderer": {"num_samples_per_ray": 5},
            "exporter_type": "vertex-color-mesh-exporter",
            "exporter": {"word": "b"},
        },
    ),
    Table(
        GuideConfig,
        see_guide,
        {
            "mesh": lambda given: given.other_sketch,
            "up": "x",
            "front": "x",
            "radius": 0.4,
            "sigma": 0.2,
        },
    ),
    Table(
        HollowingConfig,
        see_hollowing,
        {"step": None, "walls": [0.15], "depths": [0.3], "least_gain": 0.9},
    ),
    Table(
        MeshStageConfig,
        see_mesh_stage,
        {"from_step": None, "renderer_type": "toy-rasterizer", "renderer": {"supersample": 2}},
    ),
    Table(
        StyleGANAdaptationSystem.Config,
        see_stylegan,
        BASE
        | weights("stylegan", "generator")
        | {
            "pretrained_generator": lambda given: str(given.other_generator),
            "trainable": ["synthesis.*"],
            "adaptive_layers": To(2, {"trainable": ["synthesis.*"]}),
            "noise_mode": "none",
            "truncation": 0.5,
        },
    ),
    Table(
        LayeredEditingSystem.Config,
        see_layered,
        BASE
        | weights("layered", "generator")
        | {
            "generator": {"channels": 5},
            "short_side": 8,
            "source_prompt": Idle("a mug", "for a config's other parts: ${system.source_prompt}"),
            "screen": To("grey", {"screen_every": 1}),
            "screen_every": 1,
            "screen_prompt": To("a cup on a screen", {"screen_every": 1}),
            "structure_clip": To(
                lambda given: str(given.other_clip), {"loss": {"lambda_toy": 1.0, "lambda_structure": 1.0}}
            ),
        },
    ),
    Table(
        LayerGeneratorConfig,
        see_layer,
        {
            "scales": 2,
            "channels": 5,
            "skip_channels": 3,
            "code": "none",
            "code_channels": 5,
        },
    ),
]
