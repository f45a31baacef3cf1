"""`latent-prior-system`: a radiance field, or the colours of a mesh, optimised with a 2D prior, rendered as RGB or latents.

In RGB space the guidance (any with threestudio's contract) encodes the rendered pictures, and the field has true
colours. In latent space the field's features are scaled latents: no encoder is needed, and pictures are decoded by the
guidance. Colours for a mesh are then fitted to the autoencoder of `latent-prior-guidance`; with another guidance set
them in the exporter (`system.exporter.latent_to_rgb`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host, options_under
from latent_prior.meshes.guide import Guide, GuideConfig
from latent_prior.models.latent_colours import LatentColours
from latent_prior.prior import require_finite
from latent_prior.systems import hollowing, mesh_stage, regularisers
from latent_prior.systems.hollowing import HollowingConfig
from latent_prior.systems.loss_weights import LossWeights, is_number
from latent_prior.systems.mesh_stage import MeshStageConfig

SPACES = ("rgb", "latent")
OUR_EXPORTERS = ("vertex-color-mesh-exporter", "textured-mesh-exporter")  # they check their settings when created
MEAN_LIGHT = 0.8  # of surfaces in pictures, about: a clay's colour is brighter than what the field has learned
GUIDE_POINTS = 4096  # random points of the field's box that are held to the guide in a step


@host.register("latent-prior-system")
class LatentPriorSystem(LossWeights, host.BaseLift3DSystem):
    """Text to 3D: random cameras, a rendered batch, the prior's losses and the regularisers."""

    @dataclass
    class Config(host.BaseLift3DSystem.Config):
        # What the field's colours are: rgb (three channels in [0, 1]) or latent (the checkpoint's scaled latents).
        space: str = "rgb"
        # Range of grey backgrounds in training, drawn per picture, so that the field cannot paint the background; null
        # keeps the system's background. RGB space only.
        random_background: Any = None
        # The mesh that loss.lambda_shape holds the field to: fields of GuideConfig.
        guide: dict = field(default_factory=dict)
        # Whether and when a body is hollowed: fields of HollowingConfig.
        hollowing: dict = field(default_factory=dict)
        # The last stage, on the mesh itself: fields of MeshStageConfig.
        mesh_stage: dict = field(default_factory=dict)

    cfg: Config
    loss_settings = ("emptiness_scale",)

    def configure(self) -> None:
        if self.cfg.space not in SPACES:
            raise OptionError("system.space", self.cfg.space, f"one of {', '.join(SPACES)}")
        self._check_random_background()
        self.check_loss_weights()
        self.check_guidance_terms((*regularisers.TERMS, "shape"))
        with options_under("system.guide."):
            self.guide_cfg = GuideConfig(**host.parse_structured(GuideConfig, self.cfg.guide))
        self.hollow_cfg = host.parse_structured(HollowingConfig, self.cfg.hollowing)
        with options_under("system.mesh_stage."):
            self.stage_cfg = host.parse_structured(MeshStageConfig, self.cfg.mesh_stage)
        self._mesh_renderer: list[Any] = []  # in a list, since it is no part of the checkpoint; at most one
        self._before_after: list[Float[Tensor, "H W 3"]] = []  # of a mesh: its file's colours (or its shape), then ours
        super().configure()
        self._check_guide()
        mesh_stage.check(self.stage_cfg, self.cfg.exporter_type, self.geometry)
        hollowing.check(self.hollow_cfg, self.geometry, self.cfg.guidance_type, self.cfg.space)

    def _check_random_background(self) -> None:
        greys = self.cfg.random_background
        if greys is None:
            return
        if self.cfg.space != "rgb":
            raise OptionError.because("system.random_background is set, but system.space is latent: set it to null")
        pair = list(greys) if isinstance(greys, Sequence) and not isinstance(greys, str) else []
        if len(pair) != 2 or not all(is_number(n) for n in pair) or not 0 <= pair[0] <= pair[1] <= 1:
            raise OptionError("system.random_background", greys, "[low, high] in [0, 1], or null")

    def _check_guide(self) -> None:
        mesh, weight = self.guide_cfg.mesh, self.highest_weight("shape")
        if not mesh and weight > 0:
            raise OptionError("system.guide.mesh", mesh, "a mesh, since system.loss.lambda_shape is above 0")
        if not mesh:
            return
        if weight == 0:
            raise OptionError("system.loss.lambda_shape", 0, "a weight, since system.guide.mesh is set")
        if not hasattr(self.renderer, "density"):
            expected = f"null, since a {type(self.renderer).__name__} has no density: choose dense-volume-renderer"
            raise OptionError("system.guide.mesh", mesh, expected)
        if self.guide_cfg.radius > (half_edge := float(self.geometry.bbox[1].min())):
            expected = f"at most {half_edge:g}, so that the guide lies in the field's box"
            raise OptionError("system.guide.radius", self.guide_cfg.radius, expected)

    def load_guidance(self) -> None:
        """Load the guidance if it is not loaded yet; an export in RGB does not need it."""
        if not hasattr(self, "guidance"):
            self.guidance = host.find(self.cfg.guidance_type, "system.guidance_type")(self.cfg.guidance)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        exporter = host.find(self.cfg.exporter_type, "system.exporter_type")  # an error now, and not after training
        self.guide = Guide.read(self.guide_cfg, self.device) if self.guide_cfg.mesh else None
        processor = host.find(self.cfg.prompt_processor_type, "system.prompt_processor_type")
        self.prompt_processor = processor(self.cfg.prompt_processor)
        self.load_guidance()
        self.check_guidance_switches()
        if self.cfg.exporter_type in OUR_EXPORTERS:
            parts = {"geometry": self.geometry, "material": self.material, "background": self.background}
            self._colour(exporter(self.cfg.exporter, **parts), fit=False)

    def _colour(self, exporter: Any, fit: bool = True) -> None:
        """Give our exporter the colours of latents if it needs them and has none; without `fit`, only check this."""
        if self.cfg.space == "rgb" or getattr(exporter, "to_rgb", False) is not None:
            return
        self.load_guidance()
        if not hasattr(self.guidance, "prior"):
            raise OptionError(
                "system.exporter.latent_to_rgb",
                None,
                f"a matrix, since system.space is latent and {self.cfg.guidance_type} does not define the colours "
                "of its latents (latent-prior-guidance does)",
            )
        if fit:
            exporter.to_rgb = LatentColours.fit(self.guidance.prior.autoencoder)

    def forward(self, batch: dict[str, Any], decode: bool = False, normals: bool = True) -> dict[str, Any]:
        """Render a batch of cameras.

        decode: add decoded_rgb (B H W 3 in [0, 1]), the picture to look at. normals: False skips the normals where
        they are not shown.
        """
        options: dict[str, Any] = {} if normals else {"render_normal": False}
        if self.training and self.cfg.random_background is not None:
            low, high = self.cfg.random_background
            grey = torch.rand(len(batch["rays_o"]), 1, device=batch["rays_o"].device) * (high - low) + low
            options["bg_color"] = grey.expand(-1, 3)
        out = self._renderer_now()(**batch, **options)
        if decode:
            out["decoded_rgb"] = self._decode(out["comp_rgb"])
            require_finite({"the picture": out["decoded_rgb"], "its depth": out["depth"]})
        return out

    @property
    def on_mesh(self) -> bool:
        """Whether the last stage has begun."""
        return self.stage_cfg.from_step is not None and self.true_global_step >= self.stage_cfg.from_step

    def _renderer_now(self) -> Any:
        """The renderer of the field, or in the last stage of its mesh, which is extracted at first use."""
        if not self.on_mesh:
            return self.renderer
        parts = {"geometry": self.geometry, "material": self.material, "background": self.background}
        if not self._mesh_renderer:
            exporter = host.find(self.cfg.exporter_type, "system.exporter_type")(self.cfg.exporter, **parts)
            self._mesh_renderer = [mesh_stage.make_renderer(self.stage_cfg, exporter, **parts)]
        return self._mesh_renderer[0].train(self.training)

    def _decode(self, comp_rgb: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W 3"]:
        if self.cfg.space == "rgb":
            return comp_rgb
        self.load_guidance()
        return self.guidance.decode_latents(comp_rgb.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        if self.true_global_step == self.hollow_cfg.step:
            self._hollow(batch)
        out = self(batch)
        depth = out["depth"] / out["opacity"].clamp(min=1e-6)
        seen = {"points": batch["rays_o"] + batch["rays_d"] * depth, "opacity": out["opacity"]}
        guidance_out = self.guidance(
            out["comp_rgb"], self.prompt_processor(), **batch, **seen, rgb_as_latents=self.cfg.space == "latent"
        )
        loss = torch.zeros((), device=out["comp_rgb"].device) + self.weighted_guidance(guidance_out)
        emptiness_scale = float(self.cfg.loss.get("emptiness_scale", 10.0))
        for name, term in regularisers.TERMS.items():
            if self.on_mesh and name not in mesh_stage.TERMS:
                continue
            loss = loss + self.weighted(name, partial(term, out, self.geometry, emptiness_scale))
        if not self.on_mesh:
            loss = loss + self.weighted("shape", self._shape)
        self.log("train/opacity", out["opacity"].mean())
        self.log("train/loss", loss, prog_bar=True)
        self.log_weights()
        return {"loss": loss}

    def _hollow(self, batch: dict[str, Any]) -> None:
        """Let the prior decide whether the body is hollow; the clay has the mean colour of its surface, without shade.

        What no picture has shown is no part of the body.
        """
        with torch.no_grad():
            if getattr(self.renderer.cfg, "bounds", "box") == "sphere":
                self.geometry.reshape(self.geometry.distances_in_ball())
            grid = self.geometry.distances()
            near = (grid[0, 0].abs() < self.geometry.spacing).nonzero().flip(1)  # z, y, x
            places = (near + 0.5) * self.geometry.spacing - float(self.geometry.cfg.radius)
            colours = self.material(**self.geometry.export(points=places), positions=places)
            colour = (colours.mean(dim=0) / MEAN_LIGHT).clamp(0, 1)
        done = hollowing.hollow(self.hollow_cfg, self.geometry, self.guidance, self.prompt_processor(), batch, colour)
        host.info(f"Hollowing: {done or 'the body stays as it is'}")

    def _shape(self) -> Float[Tensor, ""]:
        """The field against the guide, at points of its box: the renderer's samples leave out what it calls empty."""
        low, high = self.geometry.bbox
        points = low + (high - low) * torch.rand(GUIDE_POINTS, 3, device=low.device)
        density = self.renderer.density(points).squeeze(-1)
        return regularisers.shape(density, *self.guide.at(points), self.guide_cfg.sigma)

    def _panels(self, out: dict[str, Any]) -> list[dict[str, Any]]:
        """One row of pictures of a view: rgb, opacity, depth, and normal if there is one."""
        opacity = out["opacity"][0, :, :, 0]
        depth = out["depth"][0, :, :, 0] / opacity.clamp(min=1e-3)  # expected depth where something is hit
        hit = opacity > 0.5
        near, far = (depth[hit].min(), depth[hit].max()) if hit.any() else (depth.min(), depth.max())
        depth = torch.where(hit, (far - depth) / (far - near).clamp(min=1e-6) * 0.9 + 0.1, 0)
        grey = {"cmap": None, "data_range": (0, 1)}
        panels = [
            {"type": "rgb", "img": out["decoded_rgb"][0], "kwargs": {"data_format": "HWC"}},
            {"type": "grayscale", "img": opacity, "kwargs": grey},
            {"type": "grayscale", "img": depth, "kwargs": grey},
        ]
        if "comp_normal" in out:
            panels.append({"type": "rgb", "img": out["comp_normal"][0], "kwargs": {"data_format": "HWC"}})
        return panels

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        out = self(batch, decode=True)
        self.save_image_grid(
            f"it{self.true_global_step}-{batch['index'][0]}.png",
            self._panels(out),
            align=max(batch["height"], 128),
            name="validation_step",
            step=self.true_global_step,
        )

    def on_validation_epoch_end(self) -> None:
        pass

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        index = int(batch["index"][0])
        # an export with exporter.save_video also runs this
        loader = self.trainer.predict_dataloaders if self.trainer.predicting else self.trainer.test_dataloaders
        with_panels = index % max(1, loader.dataset.n_views // 4) == 0
        out = self(batch, decode=True, normals=with_panels)
        folder = f"it{self.true_global_step}-test"
        self.save_rgb_image(f"{folder}/{index}.png", out["decoded_rgb"][0], data_format="HWC")
        if with_panels:
            self.save_image_grid(f"{folder}/panels-{index}.png", self._panels(out), align=max(batch["height"], 128))
        if with_panels and "mesh" in out and not self.on_mesh:
            self._before_after += [out.get("comp_rgb_before", out["comp_normal"])[0], out["decoded_rgb"][0]]

    def on_predict_start(self) -> None:
        super().on_predict_start()
        self._colour(self.exporter)

    def on_test_epoch_end(self) -> None:
        name = f"it{self.true_global_step}-test"
        if self._before_after:
            panels = [
                {"type": "rgb", "img": picture, "kwargs": {"data_format": "HWC"}} for picture in self._before_after
            ]
            for file, row in {"before_after": panels, "before": panels[::2], "after": panels[1::2]}.items():
                self.save_image_grid(f"{file}.png", row, align=len(self._before_after[0]))
            self._before_after = []
        self.save_img_sequence(
            name, name, r"^(\d+)\.png$", save_format="mp4", fps=20, name="test", step=self.true_global_step
        )
