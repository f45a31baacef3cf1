"""The parts of an asset: one for each node of the scene and each of its mesh's primitives of triangles.

Coordinates are the asset's world, which is glTF's: y up, after the nodes' transforms and in the rest pose. Texture
coordinates are glTF's, here and in all that uses them: the origin is at the top left of the picture, v points down.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from latent_prior import OptionError, host
from latent_prior.files import shown
from latent_prior.files.pickles import first_few
from latent_prior.meshes.base_colour import BaseColour, read_base_colour, texture_info, texture_set
from latent_prior.meshes.gltf import Document, array, inner, objects, text, whole
from latent_prior.meshes.nodes import Placed, placed_meshes, rest_shape, vertex_data, world_matrices

TRIANGLES, STRIP, FAN = 4, 5, 6
NUMBERS_PER_VERTEX, NUMBERS_PER_FACE = 24, 12  # float32 that a part takes in memory; doubles count twice
MOST_PARTS = 100_000


@dataclass(frozen=True, eq=False)
class Part:
    """A primitive where its node places it.

    name: unique in the asset. node, mesh, primitive: its place in the document; material: its material's index, or None.
    faces: in the file's order; counter-clockwise seen from outside, also where the node mirrors (`mirrored`: corners 1
    and 2 are exchanged against the file). uv: of the set (`uv_set`) of the base colour's texture, as stored; else of the
    first set; None without any. selected: it is to be textured.
    """

    name: str
    names: tuple[str, str]  # of the node and the mesh, by which it is selected
    node: int
    mesh: int
    primitive: int
    material: int | None
    vertices: Float[np.ndarray, "N 3"]
    faces: Int[np.ndarray, "F 3"]
    normals: Float[np.ndarray, "N 3"] | None
    uv: Float[np.ndarray, "N 2"] | None
    uv_set: int
    colour: BaseColour
    mirrored: bool
    selected: bool = True

    def vertex_normals(self) -> Float[np.ndarray, "N 3"]:
        """The file's normals, else each vertex's mean of its faces' normals, weighted by their area."""
        if self.normals is not None:
            return self.normals
        across = np.repeat(cross_products(self.vertices[self.faces]), 3, axis=0)
        found = [np.bincount(self.faces.ravel(), across[:, axis], len(self.vertices)) for axis in range(3)]
        normals = np.stack(found, axis=1)
        return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(min=1e-300)


def cross_products(corners: Float[np.ndarray, "F 3 3"]) -> Float[np.ndarray, "F 3"]:
    """Along each triangle's normal, twice its area long."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def read_parts(document: Document, chosen: Sequence[str] | None) -> list[Part]:
    """The parts of a document. chosen: names of nodes, meshes or parts to select; None: all.

    OptionError for a broken document, for one without faces, and (field "parts") for a name that is not in it.
    """
    placed = [(place, number) for place in placed_meshes(document) for number in _primitives(document, place.mesh)]
    if len(placed) > MOST_PARTS:
        raise OptionError.because(f"it has {len(placed)} meshes; expected at most {MOST_PARTS}")
    _require_memory(document, placed)
    matrices, opened = world_matrices(document), {}
    parts = [_read(document, place, number, matrices, opened) for place, number in placed]
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        points = any(_modes(document))
        raise OptionError.because(f"it has no faces{', only points or lines' if points else ''}; expected triangles")
    return _selected(_named(parts), chosen)


def _modes(document: Document) -> list[bool]:
    """For every primitive whether it is of points or lines."""
    meshes = [document.entry("meshes", index) for index in range(len(array(document.json, "meshes", "the file")))]
    found = [entry for mesh in meshes for entry in array(mesh, "primitives", "a mesh")]
    return [isinstance(entry, dict) and entry.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN) for entry in found]


def _primitives(document: Document, mesh: Any) -> list[int]:
    """The numbers of a mesh's primitives that are triangles."""
    found = array(document.entry("meshes", mesh), "primitives", f"meshes[{mesh}]")
    if not all(isinstance(primitive, dict) for primitive in found):
        raise OptionError.because(f"meshes[{mesh}] has a primitive that is not an object")
    modes = [whole(primitive, "mode", f"meshes[{mesh}]", TRIANGLES, most=6) for primitive in found]
    drawn = [number for number, mode in enumerate(modes) if mode in (TRIANGLES, STRIP, FAN)]
    return [number for number in drawn if "POSITION" in inner(found[number], "attributes")]


def _require_memory(document: Document, placed: Sequence[tuple[Placed, int]]) -> None:
    """OptionError unless all parts fit in memory; counts alone are read for it."""
    faces = needed = 0
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for place, number in placed:
        if (key := (place.mesh, number)) not in sizes:
            primitive = document.entry("meshes", place.mesh)["primitives"][number]
            vertices = document.count(primitive["attributes"]["POSITION"])
            corners = document.count(primitive["indices"]) if "indices" in primitive else vertices
            mode = primitive.get("mode", TRIANGLES)
            sizes[key] = vertices, corners // 3 if mode == TRIANGLES else max(corners - 2, 0)
        faces += sizes[key][1]
        needed += NUMBERS_PER_VERTEX * sizes[key][0] + NUMBERS_PER_FACE * sizes[key][1]
    host.require_memory(needed, {"mesh": f"{faces} faces"})


def _read(
    document: Document,
    place: Placed,
    number: int,
    matrices: dict[int, Float[np.ndarray, "4 4"]],
    opened: dict[Any, Image.Image | None],
) -> Part:
    node, mesh = document.entry("nodes", place.node), document.entry("meshes", place.mesh)
    primitive = mesh["primitives"][number]
    vertices, normals = rest_shape(document, place, primitive, matrices)
    names = (text(node, "name"), text(mesh, "name"))
    name = names[0] or names[1] or f"node {place.node}"
    if not np.isfinite(vertices).all():
        raise OptionError.because(f"{shown(name)} has vertices that are not finite")
    if normals is not None and not np.isfinite(normals).all():
        normals = None
    for attributes in (inner(primitive, "attributes"), *objects(primitive, "targets")):
        for key, index in attributes.items():  # also those that are only written back
            if len(document.rows(index)) != len(vertices):
                raise OptionError.because(
                    f"{shown(name)} has {len(vertices)} vertices, but not as many of {shown(key)}"
                )
    faces = _faces(document, primitive, len(vertices), name)
    x, y, z = place.matrix[:3, :3].T / max(float(abs(place.matrix[:3, :3]).max()), 1e-300)
    mirrored = bool(np.cross(x, y) @ z < 0) and "skin" not in node
    material = document.entry("materials", primitive["material"]) if "material" in primitive else {}
    uv_set = texture_set(texture_info(material))
    uv = vertex_data(document, inner(primitive, "attributes"), f"TEXCOORD_{uv_set}", (2,), len(vertices))
    return Part(
        name=name,
        names=names,
        node=place.node,
        mesh=place.mesh,
        primitive=number,
        material=primitive.get("material"),
        vertices=vertices,
        faces=faces[:, [0, 2, 1]] if mirrored else faces,
        normals=normals,
        uv=uv,
        uv_set=uv_set,
        colour=read_base_colour(document, primitive, len(vertices), opened),
        mirrored=mirrored,
    )


def _faces(document: Document, primitive: dict[str, Any], count: int, name: str) -> Int[np.ndarray, "F 3"]:
    """The triangles of a primitive, those of strips and fans one by one (glTF 2.0, section 3.7.2.1)."""
    corners = np.arange(count)
    if "indices" in primitive:
        corners = document.accessor(primitive["indices"])
        if corners.ndim != 1 or corners.dtype.kind != "u":
            raise OptionError.because(f"{shown(name)} has indices that are not whole numbers")
        corners = corners.astype(np.int64)
        if corners.max() >= count:
            raise OptionError.because(f"{shown(name)} has a face with vertex {corners.max()} of {count}")
    mode = primitive.get("mode", TRIANGLES)
    if mode == TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    first = np.arange(max(len(corners) - 2, 0))
    if mode == FAN:
        return corners[np.stack([first + 1, first + 2, 0 * first], axis=1)]
    odd = first % 2
    return corners[np.stack([first, first + 1 + odd, first + 2 - odd], axis=1)]


def _named(parts: Sequence[Part]) -> list[Part]:
    """The parts with unique names: the second part of a name gets ".1" behind it, and so on."""
    taken, counts, found = set[str](), Counter[str](), []
    for part in parts:
        name = part.name
        while name in taken:
            counts[part.name] += 1
            name = f"{part.name}.{counts[part.name]}"
        taken.add(name)
        found.append(replace(part, name=name))
    return found


def _selected(parts: Sequence[Part], chosen: Sequence[str] | None) -> list[Part]:
    if chosen is None:
        return list(parts)
    chosen = [chosen] if isinstance(chosen, str) else list(chosen)
    there = {name for part in parts for name in (part.name, *part.names) if name}
    for name in chosen:
        if name not in there:
            own = dict.fromkeys(part.names[0] or part.name for part in parts)
            raise OptionError("parts", name, f"names of nodes or meshes in the file: {first_few(own)}")
    if not chosen:
        raise OptionError("parts", chosen, "names of nodes or meshes, or null for all")
    wanted = set(chosen)
    return [replace(part, selected=bool(wanted & {part.name, *part.names})) for part in parts]


def used_vertices(part: Part) -> Bool[np.ndarray, " N"]:
    """Which vertices belong to a face."""
    used = np.zeros(len(part.vertices), bool)
    used[part.faces] = True
    return used


def half_axis(normals: Float[np.ndarray, "K 3"]) -> Int[np.ndarray, " K"]:
    """Along which half of which axis each normal points the most, as a number of 0 to 5."""
    axis = np.abs(normals).argmax(axis=1)
    return 2 * axis + (np.take_along_axis(normals, axis[:, None], axis=1)[:, 0] > 0)


def grouped(labels: Int[np.ndarray, " K"]) -> Iterator[tuple[int, Int[np.ndarray, " k"]]]:
    """Each label that occurs, in ascending order, and the rows that have it."""
    order = np.argsort(labels, kind="stable")
    found, first = np.unique(labels[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, first)[1:], strict=True)


def welded(vertices: Float[np.ndarray, "N 3"]) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " N"]]:
    """The first vertex in each place, in their order, and for every vertex the number of its place.

    Places are compared by 64 bits mixed from the coordinates' single precision: two of a million places are taken for one
    with a probability of 3e-8.
    """
    bits = (vertices.astype(np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)  # of -0 and 0 the same
    odd = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
    mixed = np.zeros(len(bits), np.uint64)
    for axis in range(3):
        mixed = (mixed ^ bits[:, axis]) * odd[axis]
        mixed ^= mixed >> np.uint64(29)
    _, first, number = np.unique(mixed, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[number]
