"""Base of all systems that optimise a 3D field under 2D guidance: geometry, material, background, renderer."""

from dataclasses import dataclass, field
from typing import Any

from latent_prior import OptionError
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.logs import info, warn
from latent_prior.host.embedded.misc import find_last_path
from latent_prior.host.embedded.registry import find
from latent_prior.host.embedded.systems import BaseSystem


class BaseLift3DSystem(BaseSystem):
    """Builds the parts named in the config and exports through an exporter."""

    @dataclass
    class Config(BaseSystem.Config):
        geometry_type: str = ""  # registered name of the field
        geometry: dict = field(default_factory=dict)  # its config
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
        # Registered name of the exporter. The default is threestudio's, so that parsed configs agree; it does not
        # exist here, so every config has to set one.
        exporter_type: str = "mesh-exporter"
        exporter: dict = field(default_factory=dict)  # its config

    cfg: Config

    def _find(self, part: str) -> Any:
        key = full_key(self.cfg, f"{part}_type")
        name = self.cfg[f"{part}_type"]
        if not name:
            raise OptionError(key, name, f"the registered name of a {part}")
        return find(name, key)

    def configure(self) -> None:
        self.cfg.weights = find_last_path(self.cfg.weights)
        self.geometry = self._find("geometry")(self.cfg.geometry)
        self.material = self._find("material")(self.cfg.material)
        self.background = self._find("background")(self.cfg.background)
        self.renderer = self._find("renderer")(
            self.cfg.renderer, geometry=self.geometry, material=self.material, background=self.background
        )

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
            save = getattr(self, f"save_{output.save_type}")
            save(f"it{self.true_global_step}-export/{output.save_name}", **output.params)

    def on_predict_end(self) -> None:
        if self._save_dir is not None:
            info(f"Exported files are in {self._save_dir}")
