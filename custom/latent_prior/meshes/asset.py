"""A mesh file of a user: read into parts, in a frame for training, and written back with nothing of it lost.

Whatever the format, the file becomes a glTF document (gltf.py), whose parts (parts.py) are what is textured. The
document keeps the file's units and axes; `to_world` maps its world to the frame of training (axes.py).
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from latent_prior import OptionError, options_under
from latent_prior.files import shown, user_path
from latent_prior.meshes import axes
from latent_prior.meshes.files import UP_MARK, linear_to_srgb, newest_mesh
from latent_prior.meshes.foreign import formats, read_foreign
from latent_prior.meshes.gltf import Document
from latent_prior.meshes.parts import Part, cross_products, grouped, read_parts, used_vertices

KEY = "system.geometry."
RADIUS = 0.8  # of the farthest vertex in the frame of training
LEAST_AREA = 1e-7  # of the square of the extent; a thinner thing has no texel to paint


@dataclass(frozen=True, eq=False)
class Asset:
    """A mesh file: its document, its parts in the document's world, and the map from there to the frame of training."""

    path: Path
    document: Document
    parts: tuple[Part, ...]
    to_world: Float[np.ndarray, "4 4"]

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        up: str | None = None,
        front: str | None = None,
        parts: Sequence[str] | None = None,
        radius: float = RADIUS,
        prefix: str = KEY,
    ) -> "Asset":
        """Read a mesh file, or the newest export of a run's folder.

        up, front: axes of the file, in its own coordinates: x, -x, y, -y, z or -z; None: the format's. parts: names of
        the nodes or meshes to texture; None: all. radius: of the farthest vertex of these in the frame of training.
        prefix: of the options' names in errors.

        Raises OptionError for mesh, up, front or parts.
        """
        with options_under(prefix):
            file = _file(user_path(path))
            given = axes.of_format(_format(file), _mark(file)).overridden(up, front)
            try:
                glb = _format(file) in ("glb", "gltf")
                document = Document.read(file) if glb else read_foreign(file, given.to_asset)
                found = read_parts(document, parts)
                chosen = [part for part in found if part.selected]
                _require_area(chosen)
                points = np.concatenate([part.vertices[used_vertices(part)] for part in chosen])
                matrix = axes.to_training(points, given.rotation(), radius)
            except OptionError as error:
                raise _of(file, error) from error
            except MemoryError as error:
                raise _of(file, OptionError.because("it needs more memory than there is")) from error
            return cls(file, document, tuple(found), matrix)

    @property
    def selected(self) -> list[Part]:
        """The parts that are to be textured."""
        return [part for part in self.parts if part.selected]

    @cached_property
    def first_faces(self) -> Int[np.ndarray, " parts"]:
        """The number of each part's first face, counted through all parts."""
        return np.cumsum([0, *(len(part.faces) for part in self.parts[:-1])])

    def joined(self, parts: Sequence[int] | None = None) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
        """The vertices and faces of some parts, one part after another, as one mesh in the asset's world; None: all."""
        chosen = self.parts if parts is None else [self.parts[index] for index in parts]
        starts = np.cumsum([0, *(len(part.vertices) for part in chosen[:-1])])
        faces = [part.faces + start for part, start in zip(chosen, starts, strict=True)]
        return np.concatenate([part.vertices for part in chosen]), np.concatenate(faces)

    def colours_at(self, faces: Int[np.ndarray, " K"], weights: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 3"]:
        """Display values at points of faces, which are counted through all parts. weights: of the face's corners."""
        found = np.empty((len(faces), 3), np.float32)
        for index, rows in grouped(np.searchsorted(self.first_faces, faces, side="right") - 1):
            part = self.parts[index]
            corners = part.faces[faces[rows] - self.first_faces[index]]
            found[rows] = linear_to_srgb(part.colour.at(corners, weights[rows])[:, :3])
        return found

    def world(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """Points of the asset in the frame of training."""
        return points @ self.to_world[:3, :3].T + self.to_world[:3, 3]

    def world_directions(self, normals: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """Unit vectors of the asset in the frame of training."""
        return normals @ (self.to_world[:3, :3] / np.linalg.norm(self.to_world[0, :3])).T


def _of(file: Path, error: OptionError) -> OptionError:
    """The error with the file's name, unless it is another option's."""
    return error if error.field in ("up", "front", "parts", "mesh") else OptionError.because(f"{file}: {error}", "mesh")


def _file(path: Path) -> Path:
    """The mesh file at a path, or that of the newest export if it is a run's folder."""
    if os.path.isdir(path):
        if not (path / "configs" / "parsed.yaml").is_file():
            raise OptionError("mesh", str(path), "a mesh file or the folder of a run, with configs/parsed.yaml")
        found = newest_mesh(path, (".glb",))
        if found is None:
            raise OptionError.because(f"{path} has no exported GLB: latent-prior export {path}", "mesh")
        return found
    if not os.path.isfile(path):
        raise OptionError.because(f"there is no file {path}", "mesh")
    if _format(path) not in {"glb", "gltf", *formats()}:
        raise OptionError("mesh", str(path), f"a file of {', '.join(sorted({'glb', 'gltf', *formats()}))}")
    return path


def _format(path: Path) -> str:
    return path.suffix[1:].lower()


def _mark(path: Path) -> str | None:
    """The up axis that one of our own files names in its head (see files.UP_MARK)."""
    try:
        with path.open("rb") as file:
            head = file.read(400)
    except OSError as error:
        raise OptionError.because(f"{path} cannot be read: {(error.strerror or str(error)).lower()}", "mesh") from error
    found = re.search(re.escape(UP_MARK).replace(r"\{\}", "([yz])").encode(), head)
    return found[1].decode() if found else None


def _require_area(parts: Sequence[Part]) -> None:
    """OptionError for parts without any area."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = [np.linalg.norm(cross_products(part.vertices[part.faces]), axis=1).sum() for part in parts]
        extent = max(float(np.ptp(part.vertices[part.faces].reshape(-1, 3), axis=0).max()) for part in parts)
    if not np.isfinite(found).all() or not np.isfinite(extent):
        raise OptionError.because("its vertices are so far apart that its area is not finite")
    if not sum(found) > LEAST_AREA * extent**2:
        names = ", ".join(shown(part.name) for part in parts[:3])
        raise OptionError.because(f"the faces of {names} have no area; expected triangles")
