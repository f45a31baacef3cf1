"""The last stage of text to 3D: the shape stands, and its colours alone are trained, on pictures of the mesh itself.

What is written is a mesh, and a volume rendering is not a picture of it: its surface is as thick as the renderer's
samples, and mixes colours along the ray. So the field's surface is extracted once, as the exporter does, and rasterised
from then on, with the field's own features on it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.host import ranks
from latent_prior.meshes.textured_mesh import SurfaceMesh

EXPORTER = "vertex-color-mesh-exporter"  # whose mesh is rasterised
TERMS = ("tv_features",)  # regularisers that go on: those of the colours


@dataclass
class MeshStageConfig:
    """`system.mesh_stage`."""

    # Step from which the shape stands, and its colours are trained on pictures of its mesh; null: never.
    from_step: int | None = None
    # Registered name and config of the renderer of the mesh.
    renderer_type: str = "mesh-rasterizer"
    renderer: dict = field(default_factory=dict)


class FieldSurface:
    """The surface of a field as a geometry for renderers of meshes; its colours are the field's."""

    def __init__(self, geometry: Any, mesh: SurfaceMesh):
        self.cfg, self._field, self._mesh = geometry.cfg, geometry, mesh

    def isosurface(self) -> SurfaceMesh:
        """The mesh in world coordinates."""
        return self._mesh

    def export(self, points: Float[Tensor, "N 3"], **kwargs) -> dict[str, Any]:
        """What a material needs to colour the points."""
        return self._field.export(points=points)


def check(cfg: Any, exporter_type: str, geometry: Any) -> None:
    """OptionError for a stage that could not begin; cfg: a MeshStageConfig, as the host parses it."""
    if cfg.from_step is None:
        return
    if cfg.from_step < 0:
        raise OptionError("system.mesh_stage.from_step", cfg.from_step, "a step of at least 0, or null")
    host.find(exporter_type, "system.exporter_type")
    if exporter_type != EXPORTER:
        raise OptionError(
            "system.exporter_type", exporter_type, f"{EXPORTER}, since system.mesh_stage.from_step is set"
        )
    if (settled := getattr(geometry, "settled_step", 0)) > cfg.from_step:
        expected = f"at least {settled}, when the last of system.geometry.level_steps has faded in, or null"
        raise OptionError("system.mesh_stage.from_step", cfg.from_step, expected)


@torch.no_grad()
def make_renderer(cfg: Any, exporter: Any, geometry: Any, material: Any, background: Any) -> Any:
    """The renderer of the field's surface as it is now. cfg: a MeshStageConfig; exporter: ours, for that field."""
    mesh = exporter.extract(colored=False).mesh
    device = geometry.bbox.device
    arrays = ranks.same_on_all((mesh.vertices, mesh.vertex_normals, mesh.faces))
    kinds = (torch.float32, torch.float32, torch.int32)
    tensors = [torch.as_tensor(np.array(a), dtype=kind, device=device) for a, kind in zip(arrays, kinds, strict=True)]
    surface = FieldSurface(geometry, SurfaceMesh(*tensors))
    renderer = host.find(cfg.renderer_type, "system.mesh_stage.renderer_type")
    return renderer(cfg.renderer, geometry=surface, material=material, background=background).to(device)
