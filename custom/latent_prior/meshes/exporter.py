"""The exporter: writes a trained field to mesh files with true colours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.files.refusals import naming
from latent_prior.meshes.atlas import best_atlas
from latent_prior.meshes.files import FORMATS, GLB_READERS, save_mesh
from latent_prior.meshes.mesh import FieldMesh, colors_at, field_to_mesh, surface_colors
from latent_prior.meshes.mesh_exporter import MeshExporter
from latent_prior.meshes.texture import bake

DEFAULT_CHUNK = 1 << 18
UNTEXTURED = {"ply", "stl"}


BOUNDS = ("box", "sphere")  # of what is drawn: the field's box, or the ball in it


@host.register("vertex-color-mesh-exporter")
class VertexColorMeshExporter(MeshExporter):
    """Extracts the geometry's surface, colours it with the material, and passes the files to the system's `save_file`."""

    @dataclass
    class Config(MeshExporter.Config):
        # Axis that points up in obj, ply and stl files, y or z; None: y in obj, z in ply and stl. Always y in glb.
        up: str | None = None
        # Samples along the longest edge of the object's box; None: geometry.isosurface_resolution.
        isosurface_resolution: int | None = None
        # The field's value at the surface: a distance, or a density, where "auto" is the one whose silhouettes match the
        # rendered ones; None: geometry.isosurface_threshold.
        isosurface_threshold: Any = None
        # The part of the field's box that is drawn, as in system.renderer.bounds: box, or sphere for the ball in it.
        # Whatever the field holds elsewhere, no picture has shown it.
        bounds: str = "box"
        # Separate pieces smaller than this fraction of the largest one's volume are dropped; 0: none, 1: all others.
        min_component_fraction: float = 0.05
        # Fill cavities that cannot be seen from outside.
        fill_cavities: bool = True
        # Blur a density by this many voxels first, so that its noise does not roughen the surface; 0: no blur.
        smoothing: float = 0.0
        # Simplify to about this many faces; None: keep all.
        max_faces: int | None = None
        # Bake a texture (glb and obj; ply keeps vertex colours).
        texture: bool = True
        # Readers of vertex colours in a glb: viewers (linear light and a matte material, as in glTF) or trimesh (sRGB,
        # no material), see meshes/files.py; its load_mesh reads either.
        glb_for: str = "viewers"

    cfg: Config
    known_formats = FORMATS

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        super().configure(geometry, material, background)
        up = self.cfg.up
        if up not in (None, "y", "z"):
            raise OptionError("system.exporter.up", up, "y, z, or null for the format's default")
        if up == "z" and self.formats == ["glb"]:
            raise OptionError(
                "system.exporter.up", up, "y or null, since system.exporter.fmt is glb, which is always y up"
            )
        if self.cfg.bounds not in BOUNDS:
            raise OptionError("system.exporter.bounds", self.cfg.bounds, f"one of {', '.join(BOUNDS)}")
        if self.cfg.glb_for not in GLB_READERS:
            raise OptionError("system.exporter.glb_for", self.cfg.glb_for, f"one of {', '.join(GLB_READERS)}")
        if self.cfg.texture:
            self.require_memory_for_texture()
        self.is_depth = hasattr(geometry, "forward_sdf")
        self._check_surface()

    def _check_surface(self) -> None:
        """Checks the settings of the surface, before the long training."""
        options = self.geometry.cfg
        if not options.isosurface:
            raise OptionError("system.geometry.isosurface", options.isosurface, "true, since a mesh is to be exported")
        owner, value = _first(self.cfg.isosurface_threshold, options.isosurface_threshold)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.is_depth and not is_number:
            raise OptionError(f"system.{owner}.isosurface_threshold", value, "a distance, usually 0")
        if not self.is_depth and value != "auto" and not (is_number and value > 0):
            raise OptionError(f"system.{owner}.isosurface_threshold", value, "'auto' or a number above 0")
        self.threshold = None if value == "auto" else -float(value) if self.is_depth else float(value)
        owner, self.resolution = _first(self.cfg.isosurface_resolution, options.isosurface_resolution)
        if self.resolution < 4:
            raise OptionError(f"system.{owner}.isosurface_resolution", self.resolution, "at least 4")
        host.require_memory(2 * self.resolution**3, {f"system.{owner}.isosurface_resolution": self.resolution})
        if not 0 <= self.cfg.min_component_fraction <= 1:
            raise OptionError("system.exporter.min_component_fraction", self.cfg.min_component_fraction, "0 to 1")
        if not 0 <= self.cfg.smoothing <= 10:
            raise OptionError("system.exporter.smoothing", self.cfg.smoothing, "0 to 10 voxels")
        if self.is_depth and self.cfg.smoothing > 0:
            expected = "0, since the geometry is a field of distances: system.loss.lambda_curvature smooths it"
            raise OptionError("system.exporter.smoothing", self.cfg.smoothing, expected)
        if self.cfg.max_faces is not None and self.cfg.max_faces < 4:
            raise OptionError("system.exporter.max_faces", self.cfg.max_faces, "at least 4, or null for no limit")

    @torch.no_grad()
    def __call__(self) -> list[host.ExporterOutput]:
        """Write the files to a temporary folder, which lives as long as the exporter, and return them."""
        folder, result = self.new_folder(), self.extract()
        with naming(folder, "TMPDIR names the folder for temporary files"):
            return self._written(folder, result)

    def _written(self, folder: Path, result: FieldMesh) -> list[host.ExporterOutput]:
        textured = self._bake(result) if self.cfg.texture and set(self.formats) - UNTEXTURED else result.mesh
        outputs = []
        for name in self.formats:
            mesh = result.mesh if name in UNTEXTURED else textured
            target = folder / f"{self.cfg.save_name}.{name}"
            files = save_mesh(mesh, target, self.cfg.glb_for, None if name == "glb" else self.cfg.up)
            for path in reversed(files):  # an obj after what it needs
                outputs.append(host.ExporterOutput(path.name, "file", {"src_path": str(path)}))
        return outputs

    def extract(self, colored: bool = True) -> FieldMesh:
        """The mesh itself in world coordinates, with vertex colours."""
        options = self.geometry.cfg
        result = field_to_mesh(
            self._field,
            self.colors if colored else None,
            self.geometry.bbox,
            resolution=self.resolution,
            threshold=self.threshold,
            coarse_to_fine=options.isosurface_coarse_to_fine,
            min_fraction=self.cfg.min_component_fraction if options.isosurface_remove_outliers else 0.0,
            fill_cavities=self.cfg.fill_cavities,
            smoothing=self.cfg.smoothing,
            max_faces=self.cfg.max_faces,
            chunk=self._chunk,
            is_depth=self.is_depth,
        )
        cut = "" if self.is_depth else f", cut at density {result.threshold:.3g}"
        host.info(f"mesh: {len(result.mesh.vertices)} vertices, {len(result.mesh.faces)} faces{cut}")
        return result

    def _field(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        """Densities, or depths under the surface."""
        value = -self.geometry.forward_sdf(points) if self.is_depth else self.geometry.forward_density(points)
        if self.cfg.bounds == "box":
            return value
        depth = self.geometry.bbox[1].min() - points.norm(dim=-1, keepdim=True)  # in the ball
        return torch.minimum(value, depth) if self.is_depth else value * (depth > 0)

    @property
    def _chunk(self) -> int:
        return self.geometry.cfg.isosurface_chunk or DEFAULT_CHUNK

    def colors(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display colours of the field at world points."""
        return self.display(self.geometry.export(points=points), points)

    def _bake(self, result: FieldMesh) -> trimesh.Trimesh:
        mesh = result.mesh
        corners = np.asarray(mesh.vertices), np.asarray(mesh.faces)
        atlas = best_atlas(*corners, self.cfg.texture_size, self.cfg.texture_timeout)
        device = self.geometry.bbox.device

        def color(points: Tensor, normals: Tensor) -> Tensor:
            points, normals = points.to(device), normals.to(device)
            if self.is_depth:
                return colors_at(points, self.colors, self._chunk)
            return surface_colors(points, normals, self._field, self.colors, result.threshold, result.step, self._chunk)

        return bake(result.mesh, atlas, color, self.cfg.texture_size)


def _first(own: Any, geometrys: Any) -> tuple[str, Any]:
    """The owner of the setting in effect, and the setting: the exporter's if it has one."""
    return ("geometry", geometrys) if own is None else ("exporter", own)
