"""What the exporters of meshes share: formats and names of files, textures' settings, and display colours."""

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import ListConfig
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.meshes.mesh import linear_latents_to_rgb
from latent_prior.prior import require_finite

# float32 numbers for each texel of a picture that is about half covered: measured peaks are 100 to 130 bytes
TEXEL = 32


class MeshExporter(host.Exporter):
    """An exporter whose settings are checked when it is made, before the long training.

    Latents are not colours. For features that are latents set `latent_to_rgb`, or set the attribute `to_rgb` to a
    function from (N, channels) to (N, 3) in [0, 1] before the call.
    """

    @dataclass
    class Config(host.Exporter.Config):
        # Formats to write, one or a list of them; see FORMATS of the exporter.
        fmt: Any = "glb"
        # Name of the files, without suffix.
        save_name: str = "model"
        # Width and height of a texture in pixels.
        texture_size: int = 1024
        # Seconds that xatlas may take for the atlas; beyond, the faces are projected along the axes, which is coarser.
        texture_timeout: float = 60.0
        # For fields of latents: one row of three numbers per channel; colours are (latents M + 1) / 2.
        latent_to_rgb: Any = None

    cfg: Config
    known_formats: Collection[str] = ()

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        super().configure(geometry, material, background)
        fmt, name = self.cfg.fmt, self.cfg.save_name
        names = fmt if isinstance(fmt, list | tuple | ListConfig) else str(fmt).split(",")
        self.formats = list(dict.fromkeys(str(name).strip().lower() for name in names))
        if not self.formats or not set(self.formats) <= set(self.known_formats):
            raise OptionError("system.exporter.fmt", fmt, f"some of {', '.join(self.known_formats)}")
        if not name or Path(name).name != name:
            raise OptionError("system.exporter.save_name", name, "a file's name, without folders")
        for key in ("texture_size", "texture_timeout"):
            if getattr(self.cfg, key) <= 0:
                raise OptionError(f"system.exporter.{key}", getattr(self.cfg, key), "a positive number")
        self.to_rgb: Callable[[Tensor], Tensor] | None = None
        if self.cfg.latent_to_rgb is not None:
            self.to_rgb = linear_latents_to_rgb(_matrix(self.cfg.latent_to_rgb))

    def require_memory_for_texture(self) -> None:
        """OptionError for a texture that is too large for the machine."""
        host.require_memory(TEXEL * self.cfg.texture_size**2, {"system.exporter.texture_size": self.cfg.texture_size})

    def new_folder(self) -> Path:
        """A temporary folder for the files, which lives as long as the exporter."""
        self._folder = tempfile.TemporaryDirectory(prefix="latent_prior_export_")
        return Path(self._folder.name)

    def display(self, field: dict[str, Any], points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display colours of what a geometry returns at world points."""
        if "features" not in field:
            raise OptionError.because(
                "the geometry has no features to colour the mesh with (system.geometry.n_feature_dims is 0)"
            )
        require_finite({"the surface's colours": field["features"]}, "lower the learning rate")  # a clamp would hide it
        if self.to_rgb is not None:
            zeros = torch.zeros_like(points)
            return self.to_rgb(self.material(viewdirs=zeros, positions=points, light_positions=zeros, **field))
        channels = getattr(self.material.cfg, "n_output_dims", 3)
        if channels != 3:
            raise OptionError.because(
                f"the field has {channels} channels, which are latents and not colours: set system.exporter.latent_to_rgb "
                f"to {channels} rows of three numbers, or refine the field in RGB first"
            )
        albedo = self.material.export(points=points, **field).get("albedo")
        if albedo is None:
            raise OptionError.because(
                f"{type(self.material).__name__} exports no albedo, so the mesh cannot be coloured"
            )
        return albedo


def _matrix(rows: Any) -> Float[Tensor, "..."]:
    try:
        return torch.tensor([list(row) for row in rows], dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise OptionError.because(
            f"system.exporter.latent_to_rgb is {rows}, expected rows of three numbers, one per channel"
        ) from error
