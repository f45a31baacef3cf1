"""The exporter: writes a trained field to mesh files with true colours."""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trimesh
from jaxtyping import Float
from omegaconf import ListConfig
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.files.refusals import naming
from latent_prior.meshes.files import FORMATS, GLB_READERS, save_mesh
from latent_prior.meshes.mesh import FieldMesh, field_to_mesh, linear_latents_to_rgb, surface_colors
from latent_prior.meshes.texture import bake, unwrap
from latent_prior.prior import require_finite

DEFAULT_CHUNK = 1 << 18
TEXEL = 9  # numbers: its point, normal and colour
UNTEXTURED = {"ply", "stl"}


@host.register("vertex-color-mesh-exporter")
class VertexColorMeshExporter(host.Exporter):
    """Extracts the geometry's surface, colours it with the material, and passes the files to the system's `save_file`.

    A field of latents has no colours of its own. In that case set `latent_to_rgb`, or set the attribute `to_rgb` to a
    function from (N, channels) to (N, 3) in [0, 1] before the call.
    """

    @dataclass
    class Config(host.Exporter.Config):
        # Formats to write: glb, obj (with its mtl), ply, stl (no colours), or a list of them.
        fmt: Any = "glb"
        # Name of the files, without suffix.
        save_name: str = "model"
        # Axis that points up in obj, ply and stl files, y or z; None: y in obj, z in ply and stl. Always y in glb.
        up: str | None = None
        # Samples along the longest edge of the object's box; None: geometry.isosurface_resolution.
        isosurface_resolution: int | None = None
        # Density at the surface; "auto": the one whose silhouettes match the rendered ones; None:
        # geometry.isosurface_threshold.
        isosurface_threshold: Any = None
        # Separate pieces smaller than this fraction of the largest one's volume are dropped; 0: none, 1: all others.
        min_component_fraction: float = 0.05
        # Fill cavities that cannot be seen from outside.
        fill_cavities: bool = True
        # Blur the density by this many voxels first, so that its noise does not roughen the surface; 0: no blur.
        smoothing: float = 0.0
        # Simplify to about this many faces; None: keep all.
        max_faces: int | None = None
        # Bake a texture (glb and obj; ply keeps vertex colours). Needs xatlas.
        texture: bool = False
        # Width and height of the texture in pixels.
        texture_size: int = 1024
        # Time limit of the atlas in seconds; beyond it vertex colours are written instead. A lower max_faces helps.
        texture_timeout: float = 60.0
        # Readers of vertex colours in a glb: viewers (linear light and a matte material, as in glTF) or trimesh (sRGB,
        # no material), see meshes/files.py; its load_mesh reads either.
        glb_for: str = "viewers"
        # For fields of latents: one row of three numbers per channel; colours are (latents M + 1) / 2.
        latent_to_rgb: Any = None

    cfg: Config

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        super().configure(geometry, material, background)
        self._check_files()
        self._check_surface()
        self.to_rgb: Callable[[Tensor], Tensor] | None = None
        if self.cfg.latent_to_rgb is not None:
            self.to_rgb = linear_latents_to_rgb(_matrix(self.cfg.latent_to_rgb))

    def _check_files(self) -> None:
        fmt, name, up = self.cfg.fmt, self.cfg.save_name, self.cfg.up
        names = fmt if isinstance(fmt, list | tuple | ListConfig) else str(fmt).split(",")
        self.formats = list(dict.fromkeys(str(name).strip().lower() for name in names))
        if not self.formats or not set(self.formats) <= set(FORMATS):
            raise OptionError("system.exporter.fmt", fmt, f"some of {', '.join(FORMATS)}")
        if not name or Path(name).name != name:
            raise OptionError("system.exporter.save_name", name, "a file's name, without folders")
        if up not in (None, "y", "z"):
            raise OptionError("system.exporter.up", up, "y, z, or null for the format's default")
        if up == "z" and self.formats == ["glb"]:
            raise OptionError(
                "system.exporter.up", up, "y or null, since system.exporter.fmt is glb, which is always y up"
            )
        if self.cfg.glb_for not in GLB_READERS:
            raise OptionError("system.exporter.glb_for", self.cfg.glb_for, f"one of {', '.join(GLB_READERS)}")
        for key in ("texture_size", "texture_timeout"):
            if getattr(self.cfg, key) <= 0:
                raise OptionError(f"system.exporter.{key}", getattr(self.cfg, key), "a positive number")
        if self.cfg.texture:
            texels = TEXEL * self.cfg.texture_size**2
            host.require_memory(texels, {"system.exporter.texture_size": self.cfg.texture_size})
        if self.cfg.texture and importlib.util.find_spec("xatlas") is None:
            raise OptionError.because(
                'system.exporter.texture needs the package xatlas: pip install "latent_prior[texture]"'
            )

    def _check_surface(self) -> None:
        """Checks the settings of the surface, before the long training."""
        options = self.geometry.cfg
        if not options.isosurface:
            raise OptionError("system.geometry.isosurface", options.isosurface, "true, since a mesh is to be exported")
        owner, value = _first(self.cfg.isosurface_threshold, options.isosurface_threshold)
        if value != "auto" and not (isinstance(value, int | float) and value > 0):
            raise OptionError(f"system.{owner}.isosurface_threshold", value, "'auto' or a number above 0")
        self.threshold = None if value == "auto" else float(value)
        owner, self.resolution = _first(self.cfg.isosurface_resolution, options.isosurface_resolution)
        if self.resolution < 4:
            raise OptionError(f"system.{owner}.isosurface_resolution", self.resolution, "at least 4")
        host.require_memory(2 * self.resolution**3, {f"system.{owner}.isosurface_resolution": self.resolution})
        if not 0 <= self.cfg.min_component_fraction <= 1:
            raise OptionError("system.exporter.min_component_fraction", self.cfg.min_component_fraction, "0 to 1")
        if not 0 <= self.cfg.smoothing <= 10:
            raise OptionError("system.exporter.smoothing", self.cfg.smoothing, "0 to 10 voxels")
        if self.cfg.max_faces is not None and self.cfg.max_faces < 4:
            raise OptionError("system.exporter.max_faces", self.cfg.max_faces, "at least 4, or null for no limit")

    @torch.no_grad()
    def __call__(self) -> list[host.ExporterOutput]:
        """Write the files to a temporary folder, which lives as long as the exporter, and return them."""
        self._folder = tempfile.TemporaryDirectory(prefix="latent_prior_export_")
        result = self.extract()
        with naming(Path(self._folder.name), "TMPDIR names the folder for temporary files"):
            return self._written(result)

    def _written(self, result: FieldMesh) -> list[host.ExporterOutput]:
        textured = self._bake(result) if self.cfg.texture and set(self.formats) - UNTEXTURED else None
        outputs = []
        for name in self.formats:
            mesh = result.mesh if textured is None or name in UNTEXTURED else textured
            target = Path(self._folder.name, f"{self.cfg.save_name}.{name}")
            files = save_mesh(mesh, target, self.cfg.glb_for, None if name == "glb" else self.cfg.up)
            for path in reversed(files):  # an obj after what it needs
                outputs.append(host.ExporterOutput(path.name, "file", {"src_path": str(path)}))
        return outputs

    def extract(self) -> FieldMesh:
        """The mesh itself, with vertex colours, in world coordinates."""
        options = self.geometry.cfg
        result = field_to_mesh(
            self.geometry.forward_density,
            self.colors,
            self.geometry.bbox,
            resolution=self.resolution,
            threshold=self.threshold,
            coarse_to_fine=options.isosurface_coarse_to_fine,
            min_fraction=self.cfg.min_component_fraction if options.isosurface_remove_outliers else 0.0,
            fill_cavities=self.cfg.fill_cavities,
            smoothing=self.cfg.smoothing,
            max_faces=self.cfg.max_faces,
            chunk=options.isosurface_chunk or DEFAULT_CHUNK,
        )
        host.info(
            f"mesh: {len(result.mesh.vertices)} vertices, {len(result.mesh.faces)} faces, "
            f"cut at density {result.threshold:.3g}"
        )
        return result

    def colors(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display colours of the field at world points."""
        field = self.geometry.export(points=points)
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

    def _bake(self, result: FieldMesh) -> trimesh.Trimesh | None:
        try:
            mesh = result.mesh
            atlas = unwrap(mesh.vertices, mesh.faces, self.cfg.texture_size, self.cfg.texture_timeout)
        except TimeoutError as error:
            host.warn(
                f"no texture atlas: {error}; raise system.exporter.texture_timeout or lower "
                "system.exporter.max_faces. Writing vertex colours instead"
            )
            return None
        except RuntimeError as error:
            host.warn(f"no texture atlas, xatlas failed: {error}. Writing vertex colours instead")
            return None
        device = self.geometry.bbox.device

        def color(points: Tensor, normals: Tensor) -> Tensor:
            return surface_colors(
                points.to(device),
                normals.to(device),
                self.geometry.forward_density,
                self.colors,
                result.threshold,
                result.step,
                self.geometry.cfg.isosurface_chunk or DEFAULT_CHUNK,
            )

        return bake(result.mesh, atlas, color, self.cfg.texture_size)


def _first(own: Any, geometrys: Any) -> tuple[str, Any]:
    """The owner of the setting in effect, and the setting: the exporter's if it has one."""
    return ("geometry", geometrys) if own is None else ("exporter", own)


def _matrix(rows: Any) -> Float[Tensor, "..."]:
    try:
        return torch.tensor([list(row) for row in rows], dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise OptionError.because(
            f"system.exporter.latent_to_rgb is {rows}, expected rows of three numbers, one per channel"
        ) from error
