"""The nodes of a glTF scene: where each stands in the world, and the meshes in their rest pose.

Conventions of glTF 2.0: y up; matrices act on columns; a skinned mesh stands where its joints are, wherever its node is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from latent_prior import OptionError
from latent_prior.meshes.gltf import Document, array, inner, is_index, numbers

MOST_DEPTH = 1000  # of nodes within nodes


@dataclass(frozen=True)
class Placed:
    """A node of the scene with a mesh, and the matrix that brings the mesh into the world."""

    node: int
    mesh: int
    matrix: Float[np.ndarray, "4 4"]


def placed_meshes(document: Document) -> list[Placed]:
    """The nodes with a mesh of the file's scene, in the order of the tree. OptionError for nodes that are not a tree."""
    matrices = world_matrices(document)
    nodes = ((index, document.entry("nodes", index)) for index in matrices)
    return [Placed(index, node["mesh"], matrices[index]) for index, node in nodes if "mesh" in node]


def world_matrices(document: Document) -> dict[int, Float[np.ndarray, "4 4"]]:
    """The matrix of every node of the scene, by its index, parents before children."""
    found: dict[int, np.ndarray] = {}
    # depth first, children in their order
    waiting = [(root, np.eye(4), 0) for root in reversed(_roots(document))]
    while waiting:
        index, parent, depth = waiting.pop()
        node = document.entry("nodes", index)
        if index in found or depth > MOST_DEPTH:
            raise OptionError.because(f"nodes[{index}] hangs in two places, or too deep; expected a tree of nodes")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is used
            found[index] = parent @ local_matrix(node, f"nodes[{index}]")
        children = array(node, "children", f"nodes[{index}]")
        waiting += [(child, found[index], depth + 1) for child in reversed(children)]
    return found


def _roots(document: Document) -> list[Any]:
    """The roots of the scene that the file opens with; those of all nodes where there is no scene."""
    if array(document.json, "scenes", "the file"):
        index = document.json.get("scene", 0)
        return array(document.entry("scenes", index), "nodes", "the scene")
    count = len(array(document.json, "nodes", "the file"))
    children = {child for index in range(count) for child in _children(document, index)}
    return [index for index in range(count) if index not in children]


def _children(document: Document, index: int) -> Iterator[int]:
    for child in array(document.entry("nodes", index), "children", f"nodes[{index}]"):
        if is_index(child, 1 << 40):
            yield child


def local_matrix(node: dict[str, Any], name: str) -> Float[np.ndarray, "4 4"]:
    """A node's own matrix: given, or translation @ rotation @ scale (glTF 2.0, section 3.5.3)."""
    if "matrix" in node:
        return numbers(node, "matrix", np.eye(4).ravel().tolist(), name).reshape(4, 4).T
    x, y, z, w = numbers(node, "rotation", [0, 0, 0, 1], name)
    length = x * x + y * y + z * z + w * w
    s = 2 / length if length > 0 else 0.0
    matrix = np.eye(4)
    matrix[:3, :3] = [  # of a quaternion
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    matrix[:3, :3] *= numbers(node, "scale", [1, 1, 1], name)
    matrix[:3, 3] = numbers(node, "translation", [0, 0, 0], name)
    return matrix


def rest_shape(
    document: Document, placed: Placed, primitive: dict[str, Any], matrices: dict[int, Float[np.ndarray, "4 4"]]
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"] | None]:
    """Vertices and normals (if there are any) of a primitive in the world: with its morph targets, joints and node."""
    attributes = inner(primitive, "attributes")
    points = vertex_data(document, attributes, "POSITION", (3,))
    if points is None:
        raise OptionError.because(f"meshes[{placed.mesh}] has no positions")
    normals = vertex_data(document, attributes, "NORMAL", (3,), len(points))
    node = document.entry("nodes", placed.node)
    weights = node.get("weights", document.entry("meshes", placed.mesh).get("weights"))
    targets = array(primitive, "targets", f"meshes[{placed.mesh}]")
    if targets and weights is not None:
        given = numbers({"weights": weights}, "weights", [0] * len(targets), f"meshes[{placed.mesh}]")
        for target, weight in zip(targets, given, strict=True):
            if weight and isinstance(target, dict):
                moved = vertex_data(document, target, "POSITION", (3,), len(points))
                points = points if moved is None else points + weight * moved
    matrix: np.ndarray = placed.matrix[None]
    if "skin" in node and "JOINTS_0" in attributes:
        matrix = _skinning(document, node["skin"], attributes, len(points), matrices)
    linear = matrix[:, :3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        points = (linear @ points[..., None])[..., 0] + matrix[:, :3, 3]
        if normals is not None:
            # the inverse transpose up to a positive factor, which exists for any matrix: its rows are cross products
            cofactors = np.cross(linear[:, [1, 2, 0]], linear[:, [2, 0, 1]])
            normals = (cofactors @ normals[..., None])[..., 0] * np.sign(np.linalg.det(linear))[:, None]
            normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(min=1e-30)
    return points, normals


def _skinning(
    document: Document,
    index: Any,
    attributes: dict[str, Any],
    count: int,
    matrices: dict[int, Float[np.ndarray, "4 4"]],
) -> Float[np.ndarray, "N 4 4"]:
    """Each vertex's matrix, the weighted mean of its joints' (glTF 2.0, section 3.7.3)."""
    skin = document.entry("skins", index)
    joints = array(skin, "joints", f"skins[{index}]")
    if not all(is_index(joint, 1 << 40) and joint in matrices for joint in joints) or not joints:
        raise OptionError.because(f"skins[{index}] has joints that are not in the scene")
    world = np.stack([matrices[joint] for joint in joints])
    if "inverseBindMatrices" in skin:
        inverse = document.accessor(skin["inverseBindMatrices"])
        if inverse.shape[1:] != (4, 4) or len(inverse) < len(joints):
            raise OptionError.because(f"skins[{index}] has {len(inverse)} matrices for {len(joints)} joints")
        world = world @ inverse[: len(joints)]
    result, total = np.zeros((count, 4, 4)), np.zeros((count, 1, 1))
    for number in range(8):
        which = vertex_data(document, attributes, f"JOINTS_{number}", (4,), count)
        share = vertex_data(document, attributes, f"WEIGHTS_{number}", (4,), count)
        if which is None or share is None:
            break
        if which.min() < 0 or which.max() >= len(joints):
            raise OptionError.because(f"a vertex hangs on joint {which.max():.0f} of {len(joints)}")
        for column in range(4):
            part = share[:, column, None, None]
            result += part * world[which[:, column].astype(np.int64)]
            total += part
    return result / np.where(total > 0, total, 1)


def vertex_data(
    document: Document, attributes: dict[str, Any], key: str, shape: tuple[int, ...], count: int | None = None
) -> Float[np.ndarray, "N ..."] | None:
    """An attribute as float64, (N, *shape); None if there is none. OptionError for another shape or number of vertices."""
    if key not in attributes:
        return None
    values = document.accessor(attributes[key])
    if values.shape[1:] != shape or (count is not None and len(values) != count):
        expected = f"({'N' if count is None else count}, {', '.join(map(str, shape))})"
        raise OptionError.because(f"{key} has the shape {values.shape}; expected {expected}")
    return values.astype(np.float64)
