"""The frame of all systems that optimise a 3D field under 2D guidance: geometry, material, background, renderer."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host.embedded.base import BaseModule
from latent_prior.host.embedded.config import full_key, load_config
from latent_prior.host.embedded.misc import cleanup, find_last_path, get_device, info, load_module_weights, warn
from latent_prior.host.embedded.registry import find
from latent_prior.host.embedded.systems import BaseSystem


class BaseLift3DSystem(BaseSystem):
    """Builds the parts that the config names, converts geometry of an earlier stage, exports through an exporter."""

    @dataclass
    class Config(BaseSystem.Config):
        geometry_type: str = ""  # registered name of the field
        geometry: dict = field(default_factory=dict)  # its config
        geometry_convert_from: str | None = None  # checkpoint whose geometry to start from, LAST allowed; None: afresh
        geometry_convert_inherit_texture: bool = False  # take over its colours too, not only its shape
        geometry_convert_override: dict = field(default_factory=dict)  # keys to change in its geometry's config
        material_type: str = ""  # registered name of the material
        material: dict = field(default_factory=dict)  # its config
        background_type: str = ""  # registered name of the background
        background: dict = field(default_factory=dict)  # its config
        renderer_type: str = ""  # registered name of the renderer
        renderer: dict = field(default_factory=dict)  # its config
        guidance_type: str = ""  # registered name of the guidance; the subclass builds it
        guidance: dict = field(default_factory=dict)  # its config
        prompt_processor_type: str = ""  # registered name of the prompt processor; the subclass builds it
        prompt_processor: dict = field(default_factory=dict)  # its config
        # Registered name of what exports. The default is threestudio's, so that parsed configs agree; here it does
        # not exist and every config says what it wants.
        exporter_type: str = "mesh-exporter"
        exporter: dict = field(default_factory=dict)  # its config

    cfg: Config

    def _find(self, part: str) -> Any:
        key = full_key(self.cfg, f"{part}_type")
        name = self.cfg[f"{part}_type"]
        if not name:
            raise OptionError.because(f"{key} is empty; set it to the registered name of a {part.replace('_', ' ')}")
        return find(name, key)

    def configure(self) -> None:
        self.cfg.geometry_convert_from = find_last_path(self.cfg.geometry_convert_from)
        self.cfg.weights = find_last_path(self.cfg.weights)
        # weights and resumed checkpoints bring a geometry of their own
        if self.cfg.geometry_convert_from and not self.cfg.weights and not self.resumed:
            self.geometry = self._converted_geometry(self.cfg.geometry_convert_from)
        else:
            self.geometry = self._find("geometry")(self.cfg.geometry)
        self.material = self._find("material")(self.cfg.material)
        self.background = self._find("background")(self.cfg.background)
        self.renderer = self._find("renderer")(
            self.cfg.renderer, geometry=self.geometry, material=self.material, background=self.background
        )

    def _converted_geometry(self, checkpoint: str) -> BaseModule:
        """The geometry of an earlier run, as our geometry's `create_from` makes it over."""
        key = full_key(self.cfg, "geometry_convert_from")
        info(f"Geometry starts from that of {checkpoint}")
        parsed = os.path.join(os.path.dirname(checkpoint), "..", "configs", "parsed.yaml")
        if not os.path.isfile(parsed):
            raise OptionError.because(f"{key}: no {parsed} beside the checkpoint, so its geometry is unknown")
        previous_cfg = load_config(parsed).system
        geometry_cfg = previous_cfg.geometry
        geometry_cfg.update(self.cfg.geometry_convert_override)
        previous = find(previous_cfg.geometry_type, f"{parsed}: system.geometry_type")(geometry_cfg)
        state, epoch, global_step = load_module_weights(checkpoint, module_name="geometry", map_location="cpu")
        previous.load_state_dict(state, strict=False)
        previous.do_update_step(epoch, global_step, on_load_weights=True)
        geometry = self._find("geometry").create_from(
            previous.to(get_device()), self.cfg.geometry, copy_net=self.cfg.geometry_convert_inherit_texture
        )
        del previous
        cleanup()
        return geometry

    def on_fit_start(self) -> None:
        if self._save_dir is None:
            warn("No save folder is set (system.set_save_dir): validation pictures will not be written")
        else:
            info(f"Validation pictures go to {self._save_dir}")

    def on_test_end(self) -> None:
        if self._save_dir is not None:
            info(f"Test results are in {self._save_dir}")

    def on_predict_start(self) -> None:
        self.exporter = self._find("exporter")(
            self.cfg.exporter, geometry=self.geometry, material=self.material, background=self.background
        )

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        if self.exporter.cfg.save_video:
            self.test_step(batch, batch_idx)

    def on_predict_epoch_end(self) -> None:
        if self.exporter.cfg.save_video:
            self.on_test_epoch_end()
        for output in self.exporter():
            save = getattr(self, f"save_{output.save_type}", None)
            if save is None:
                raise OptionError.because(
                    f"{self.cfg.exporter_type} asks for save_{output.save_type}, which no saver offers"
                )
            save(f"it{self.true_global_step}-export/{output.save_name}", **output.params)

    def on_predict_end(self) -> None:
        if self._save_dir is not None:
            info(f"Exported files are in {self._save_dir}")

    def guidance_evaluation_save(self, comp_rgb: Float[Tensor, "B h w c"], guidance_eval_out: dict[str, Any]) -> None:
        """Write a training view beside what guidance made of it, one batch entry below the other.

        guidance_eval_out: pictures `imgs_noisy`, `imgs_1step`, `imgs_1orig`, `imgs_final` (B h w 3 each, those that
        there are) and `texts`, one per entry.
        """
        size = comp_rgb.shape[1]

        def column(images: Float[Tensor, "B h w c"]) -> dict[str, Any]:
            images = F.interpolate(images.permute(0, 3, 1, 2), (size, size), mode="bilinear", align_corners=False)
            return {"type": "rgb", "img": images.permute(0, 2, 3, 1).flatten(0, 1), "kwargs": {"data_format": "HWC"}}

        names = [name for name in ("noisy", "1step", "1orig", "final") if f"imgs_{name}" in guidance_eval_out]
        self.save_image_grid(
            f"it{self.true_global_step}-train.png",
            [column(comp_rgb), *(column(guidance_eval_out[f"imgs_{name}"]) for name in names)],
            name="train_step",
            step=self.true_global_step,
            texts=guidance_eval_out["texts"],
        )
