"""`textured-mesh`: a given mesh as a geometry, whose colours are trained.

The colours are the features of a field (any registered geometry that has some), read on the surface only: they need no
texture coordinates, have no seams, and places near one another learn from one another. They are baked into textures at
the end (texture_exporter.py). Features are logits of colours, or latents, as for any field.

Conventions. World coordinates, z up, front towards +x; the mesh is moved and scaled into them (Asset.to_world), and
written back in its own.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from omegaconf import ListConfig
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.host import ranks
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.parts import cross_products, half_axis

STARTS = ("grey", "texture")
SEEN_CELLS = 64  # along each axis of the box in which is kept what the cameras saw in training
BRIGHTEST = 0.98  # of a start: a colour of 1 has an infinite logit, which no gradient could bring back


@dataclass(frozen=True, eq=False)
class SurfaceMesh:
    """A mesh as renderers take it; the names are threestudio's."""

    v_pos: Float[Tensor, "V 3"]
    v_nrm: Float[Tensor, "V 3"]
    t_pos_idx: Int[Tensor, "F 3"]


@host.register("textured-mesh")
class TexturedMesh(host.BaseModule):
    """A fixed mesh, and a field of features for its surface."""

    @dataclass
    class Config(host.BaseModule.Config):
        # The mesh: a file (glb, gltf, obj, ply, stl, off, ...), or a run's folder, whose newest export is taken.
        mesh: str = ""
        # Axis of the file that points up: x, -x, y, -y, z or -z; null: the format's (glTF and obj: y; others: z).
        up: str | None = None
        # Axis of the file towards which the front looks; null: the format's (glTF and obj: z; others: -y).
        front: str | None = None
        # Names of the nodes or meshes in the file that get a texture, while the others keep theirs; null: all.
        parts: Any = None
        # Distance of the farthest vertex from the mesh's middle while it is trained, in world units.
        radius: float = 0.8
        # What the colours start from: grey, or the mesh's own texture.
        start: str = "grey"
        # Registered name and config of the field whose features are the colours.
        field_type: str = "volume-grid"
        field: dict = field(default_factory=dict)

    cfg: Config

    def configure(self) -> None:
        if not self.cfg.mesh:
            raise OptionError("system.geometry.mesh", self.cfg.mesh, "a mesh file, or the folder of a run")
        if self.cfg.start not in STARTS:
            raise OptionError("system.geometry.start", self.cfg.start, f"one of {', '.join(STARTS)}")
        if not self.cfg.radius > 0:
            raise OptionError("system.geometry.radius", self.cfg.radius, "a positive length")
        self._asset = Asset.read(self.cfg.mesh, self.cfg.up, self.cfg.front, _names(self.cfg.parts), self.cfg.radius)
        self.field = host.find(self.cfg.field_type, "system.geometry.field_type")(self.cfg.field)
        parts = self._asset.parts
        vertices, faces = self._asset.joined()
        self._keep("v_pos", [self._asset.world(vertices)], torch.float32)
        self._keep("v_nrm", [self._asset.world_directions(part.vertex_normals()) for part in parts], torch.float32)
        self._keep("t_pos_idx", [faces], torch.int32)
        across = cross_products(self._asset.world(vertices)[faces])
        self._keep("half_axis_of_face", [half_axis(across)], torch.int32)
        self._keep("part_of_face", [np.full(len(part.faces), i) for i, part in enumerate(parts)], torch.int32)
        self._keep("is_textured", [np.array([part.selected for part in parts])], torch.float32)
        self._last_own: tuple[Any, ...] = (None, None, None)  # faces and weights that were asked for, and their colours
        self._all_textured = all(part.selected for part in parts)
        self._require_colours()
        self.register_buffer("seen", torch.zeros(6 * SEEN_CELLS**3, dtype=torch.bool))
        self.register_buffer("digest", torch.tensor(list(self._digest()), dtype=torch.uint8))

    def _keep(self, name: str, rows: Sequence[np.ndarray], dtype: torch.dtype) -> None:
        """A buffer that comes from the mesh's file, and not from checkpoints."""
        self.register_buffer(name, torch.tensor(np.concatenate(rows), dtype=dtype), persistent=False)

    def _digest(self) -> bytes:
        """Of the mesh, and of its own colours that are shown: what is trained is of no use for others."""
        found = hashlib.sha256(self.v_pos.numpy().tobytes() + self.t_pos_idx.numpy().tobytes())
        for part in self._asset.parts:
            if self.cfg.start == "texture" or not part.selected:
                for data in part.colour.content():
                    found.update(data)
        return found.digest()

    def _require_colours(self) -> None:
        channels = self.field.cfg.n_feature_dims
        if channels != 3 and not (self.cfg.start == "grey" and self._all_textured):
            raise OptionError(
                "system.geometry.field.n_feature_dims",
                channels,
                "3, since colours of the file are kept (start or parts)",
            )
        if self.cfg.start == "texture" and not self.has_colours:
            raise OptionError("system.geometry.start", "texture", f"grey, since {self.cfg.mesh} has no colours")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        digest = state_dict.get(f"{prefix}digest")
        if digest is not None and not torch.equal(digest.cpu(), self.digest.cpu()):
            raise OptionError(
                "system.geometry.mesh", self.cfg.mesh, "the mesh that the checkpoint was trained on, and its colours"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def has_colours(self) -> bool:
        """Whether `own_at` has anything to show: colours of the file, beside a field of colours."""
        return self.field.cfg.n_feature_dims == 3 and not all(
            (part.colour.is_plain and (part.colour.factor[:3] == 1).all()) for part in self._asset.parts
        )

    @property
    def asset(self) -> Asset:
        """The file that the mesh came from."""
        return self._asset

    def isosurface(self) -> SurfaceMesh:
        """The mesh in world coordinates."""
        return SurfaceMesh(self.v_pos, self.v_nrm, self.t_pos_idx)

    def features_at(
        self, points: Float[Tensor, "N 3"], faces: Int[Tensor, "N"], weights: Float[Tensor, "N 3"]
    ) -> Float[Tensor, "N C"]:
        """The features at points of faces: what they start from, plus, on textured parts, the field's.

        weights: of the face's corners.
        """
        if self.training:
            self.seen[self._cell(points, faces)] = True
            self.seen.copy_(ranks.any_of(self.seen))
        features = self.field.export(points=points)["features"]
        textured = self.is_textured[self.part_of_face[faces].long()]
        if self.cfg.start == "texture":
            return self.own_at(faces, weights) + textured[:, None] * features
        kept = (textured == 0).nonzero().squeeze(1)
        if len(kept) == 0:
            return features
        return features.index_copy(0, kept, self.own_at(faces[kept], weights[kept]))

    def was_seen(self, points: Float[Tensor, "N 3"], faces: Int[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Whether a camera saw the surface near the points of faces in training, where it faces about the same way."""
        return self.seen[self._cell(points, faces)]

    def _cell(self, points: Float[Tensor, "N 3"], faces: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
        index = ((points.detach() / self.cfg.radius + 1) * (SEEN_CELLS / 2)).long().clamp(0, SEEN_CELLS - 1)
        cell = (index[:, 0] * SEEN_CELLS + index[:, 1]) * SEEN_CELLS + index[:, 2]
        return 6 * cell + self.half_axis_of_face[faces].long()

    @torch.no_grad()
    def own_at(self, faces: Int[Tensor, "N"], weights: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The file's own colours at points of faces, as features: logits of display values."""
        if self._last_own[0] is not faces or self._last_own[1] is not weights:  # a picture asks for them twice
            self._last_own = faces, weights, self._own_at(faces, weights)
        return self._last_own[2]

    def _own_at(self, faces: Int[Tensor, "N"], weights: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        colours = self._asset.colours_at(faces.cpu().numpy(), weights.detach().cpu().numpy())
        return torch.from_numpy(colours).to(weights.device).clamp(1 - BRIGHTEST, BRIGHTEST).logit()


def _names(given: Any) -> list[str] | None:
    if isinstance(given, ListConfig | list | tuple) and all(isinstance(name, str) for name in given):
        return list(given)
    if given is not None and not isinstance(given, str):
        raise OptionError("system.geometry.parts", given, "names of nodes or meshes, or null for all")
    return None if given is None else [given]
