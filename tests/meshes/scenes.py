"""glTF scenes for the tests, whose every number is known."""

import io

import numpy as np
import trimesh
from latent_prior.meshes.gltf import INDICES, Document
from PIL import Image


def picture(color=(200, 60, 30), size=8) -> bytes:
    """A PNG of one colour, with a dark texel at its top left."""
    image = Image.new("RGB", (size, size), color)
    image.putpixel((0, 0), (10, 20, 30))
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return file.getvalue()


def box_corners() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A unit box of 24 vertices, four to a side: points, normals, texture coordinates (each side its own), faces."""
    points, normals, uv, faces = [], [], [], []
    for side in range(6):
        axis, sign = side // 2, 1 - 2 * (side % 2)
        first, second = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        normal = sign * np.eye(3)[axis]
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            points.append((normal + sign * a * first + b * second) / 2)
            normals.append(normal)
            uv.append([(side % 3 + 0.5 + 0.45 * a) / 3, (side // 3 + 0.5 + 0.45 * b) / 2])
        faces += [[4 * side, 4 * side + 1, 4 * side + 2], [4 * side, 4 * side + 2, 4 * side + 3]]
    return tuple(np.array(x, t) for x, t in ((points, "<f4"), (normals, "<f4"), (uv, "<f4"), (faces, "<u2")))


def three_nodes() -> Document:
    """A root with three children: two instances of a mesh of two primitives, one mirrored, and a lamp without texture.

    Two materials, one of them with a texture and a normal map, an animation, a camera, and extras at every place.
    """
    document = Document.empty()
    points, normals, uv, faces = box_corners()
    position = document.add_accessor(points)
    document.set_limits(position)
    attributes = {
        "POSITION": position,
        "NORMAL": document.add_accessor(normals),
        "TEXCOORD_0": document.add_accessor(uv),
    }
    halves = [document.add_accessor(part.ravel(), INDICES) for part in (faces[:6], faces[6:])]
    lamp = trimesh.creation.box(extents=[6, 1, 2])
    shape = document.add_accessor(lamp.vertices.astype("<f4"))
    document.set_limits(shape)
    lamp_faces = document.add_accessor(lamp.faces.astype("<u2").ravel(), INDICES)
    image = document.add_image(picture(), "wood")
    document.json |= {
        "samplers": [{"wrapS": 33071, "wrapT": 33071}],
        "textures": [{"source": image, "sampler": 0, "name": "wood"}],
        "materials": [
            {
                "name": "Wood",
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "baseColorFactor": [0.5, 0.25, 1, 0.75],
                    "metallicFactor": 0.25,
                    "roughnessFactor": 0.5,
                },
                "emissiveFactor": [0.1, 0.2, 0.3],
                "extras": {"artist": "A"},
            },
            {"name": "Steel", "pbrMetallicRoughness": {"baseColorFactor": [0.2, 0.2, 0.3, 1]}, "doubleSided": True},
        ],
        "meshes": [
            {
                "name": "Box",
                "primitives": [
                    {"attributes": dict(attributes), "indices": index, "material": material}
                    for material, index in enumerate(halves)
                ],
                "extras": {"kind": "furniture"},
            },
            {
                "name": "Bulb",
                "primitives": [{"attributes": {"POSITION": shape}, "indices": lamp_faces, "material": 1}],
            },
        ],
        "cameras": [{"type": "perspective", "perspective": {"yfov": 0.8, "znear": 0.1}, "name": "view"}],
        "nodes": [
            {"name": "root", "children": [1, 2, 3], "scale": [2, 2, 2], "extras": {"scene": 7}},
            {"name": "left", "mesh": 0, "translation": [1, 0, 0]},
            {"name": "right", "mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, -1, 0, 0, 1]},
            {
                "name": "lamp",
                "mesh": 1,
                "translation": [0, 2.5, 0],
                "rotation": [0, 0.5**0.5, 0, 0.5**0.5],
                "children": [4],
            },
            {"name": "eye", "camera": 0, "translation": [0, 0, 9]},
        ],
        "scenes": [{"name": "room", "nodes": [0], "extras": {"mood": "calm"}}],
        "extras": {"licence": "CC0"},
    }
    times = document.add_accessor(np.array([0, 1, 2], "<f4"), None)
    document.set_limits(times)
    moves = document.add_accessor(np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0]], "<f4"), None)
    document.json["animations"] = [
        {
            "name": "hop",
            "channels": [{"sampler": 0, "target": {"node": 1, "path": "translation"}}],
            "samplers": [{"input": times, "output": moves}],
        }
    ]
    return document
