"""Writes new base colour textures into an asset's document: nothing else in it changes.

A part that keeps its coordinates keeps its geometry to the bit. Along a new atlas its vertices are split, and all their
data goes with them: normals, tangents, colours, joints, weights, morph targets, and attributes of programs' own.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from latent_prior.files.pictures import png
from latent_prior.meshes.base_colour import GLOSSINESS, TRANSFORM, texture_info
from latent_prior.meshes.gltf import INDICES, Document, array, inner, objects
from latent_prior.meshes.gltf_unused import drop_unused
from latent_prior.meshes.layout import Layout, Place
from latent_prior.meshes.parts import Part, grouped

VARIANTS = "KHR_materials_variants"
SAMPLER = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}  # linear, mipmaps, clamped
MATTE = {"metallicFactor": 0.0, "roughnessFactor": 1.0}


def textured(layout: Layout, pictures: Sequence[UInt8[np.ndarray, "S S 3"]]) -> Document:
    """The asset's document with a new picture, in sRGB, for each of the layout's textures.

    A material that is not opaque keeps the alpha of its texture and its vertex colours. What the new textures and atlases
    replace is left out, unless something else uses it.
    """
    asset = layout.asset
    document = asset.document.copy()
    primitives = _own_primitives(document, [asset.parts[place.part] for place in layout.places])
    sets = []  # of coordinates, by which the new textures are read
    for place, primitive in zip(layout.places, primitives, strict=True):
        for key in [key for key in primitive["attributes"] if key.startswith("COLOR_")]:
            del primitive["attributes"][key]  # they would multiply the texture
        sets.append(_split(document, primitive, asset.parts[place.part], place))
    textures = [_add_texture(document, layout, number, picture) for number, picture in enumerate(pictures)]
    kinds = [
        (primitive.get("material"), textures[place.texture], uv_set)
        for place, primitive, uv_set in zip(layout.places, primitives, sets, strict=True)
    ]
    _set_materials(document, primitives, kinds)
    drop_unused(document, asset.document)
    return document


def _own_primitives(document: Document, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Each part's primitive, in a mesh that no other node uses: instances get copies of their own."""
    nodes = array(document.json, "nodes", "the file")
    left = Counter(node["mesh"] for node in nodes if isinstance(node.get("mesh"), int))
    own: dict[int, int] = {}  # mesh by node
    for part in parts:
        if part.node not in own:
            own[part.node] = part.mesh
            if left[part.mesh] > 1:
                left[part.mesh] -= 1
                copied = document.add("meshes", copy.deepcopy(document.entry("meshes", part.mesh)))
                own[part.node] = nodes[part.node]["mesh"] = copied
    return [document.entry("meshes", own[part.node])["primitives"][part.primitive] for part in parts]


def _split(document: Document, primitive: dict[str, Any], part: Part, place: Place) -> int:
    """Cut a primitive along the atlas, and give it the atlas's coordinates, unless it keeps its own; returns their set."""
    if place.source is None:
        return part.uv_set
    source, uv_set = place.source, _free_set(document, primitive)
    primitive["attributes"].pop(f"TEXCOORD_{uv_set}", None)
    if not np.array_equal(source, np.arange(len(part.vertices))):
        moved: dict[Any, int] = {}
        for attributes in (primitive["attributes"], *objects(primitive, "targets")):
            for key, index in attributes.items():
                if index not in moved:
                    rows, like = document.rows(index)[source], document.entry("accessors", index)
                    moved[index] = document.add_rows(rows, like)
                attributes[key] = moved[index]
    faces = place.faces[:, [0, 2, 1]] if part.mirrored else place.faces
    corners = faces.ravel().astype("<u2" if len(source) < 65535 else "<u4")
    primitive["indices"] = document.add_accessor(corners, INDICES)
    primitive.pop("mode", None)  # triangles, whatever it was
    primitive["attributes"][f"TEXCOORD_{uv_set}"] = document.add_accessor(place.uv.astype("<f4"))
    return uv_set


def _free_set(document: Document, primitive: dict[str, Any]) -> int:
    """The set of coordinates for the atlas: 0 unless something else reads the ones that are there, then the next."""
    attributes = primitive["attributes"]
    if "TEXCOORD_0" not in attributes:
        return 0
    material = document.entry("materials", primitive["material"]) if "material" in primitive else {}
    if VARIANTS not in inner(primitive, "extensions") and not _has_other_textures(material):
        return 0
    return next(number for number in range(len(attributes) + 1) if f"TEXCOORD_{number}" not in attributes)


def _has_other_textures(material: dict[str, Any]) -> bool:
    """Whether a material reads a texture besides that of its base colour."""
    base, waiting = texture_info(material), list(material.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "index" in value and value is not base:
                return True
            waiting += value.values()
    return False


def _add_texture(document: Document, layout: Layout, number: int, rgb: UInt8[np.ndarray, "S S 3"]) -> int:
    """A texture of the picture, with the alpha of the parts that are not opaque."""
    pixels = np.asarray(rgb)
    seen = [layout.asset.parts[place.part] for place in layout.places if place.texture == number]
    if any(part.colour.alpha != "OPAQUE" and not part.colour.is_plain for part in seen):
        texels = layout.texels(number, len(pixels))
        alpha = layout.base_colours(texels)[:, 3]
        for index, here in grouped(texels.place):
            colour = layout.asset.parts[layout.places[index].part].colour
            # the factor stays in the material
            alpha[here] = 1 if colour.alpha == "OPAQUE" else alpha[here] / max(float(colour.factor[3]), 1e-6)
        alpha_picture = texels.picture((alpha.clip(0, 1) * 255).round().astype(np.uint8)[:, None])
        pixels = np.concatenate([pixels, alpha_picture], axis=2)
    name = "base colour" if layout.textures == 1 else f"base colour {number}"
    source = document.add_image(png(Image.fromarray(pixels)), name)
    samplers = array(document.json, "samplers", "the file")
    sampler = samplers.index(SAMPLER) if SAMPLER in samplers else document.add("samplers", dict(SAMPLER))
    return document.add("textures", {"source": source, "sampler": sampler})


def _set_materials(
    document: Document, primitives: Sequence[dict[str, Any]], kinds: Sequence[tuple[int | None, int, int]]
) -> None:
    """Give each primitive a copy of its material with a new texture; a material that nobody else uses is changed itself.

    kinds: the old material, the texture, and the set of coordinates, of each.
    """
    users = Counter(_used_materials(document))
    made: dict[Any, int] = {}
    for kind, primitive in zip(kinds, primitives, strict=True):
        if kind not in made:
            old, texture, uv_set = kind
            material = _material({} if old is None else document.entry("materials", old), texture, uv_set)
            if old is not None and users[old] == kinds.count(kind):
                document.json["materials"][old], made[kind] = material, old
            else:
                made[kind] = document.add("materials", material)
        primitive["material"] = made[kind]


def _used_materials(document: Document) -> list[int]:
    """The material of every primitive, and of each of its variants."""
    found = []
    for mesh in objects(document.json, "meshes"):
        for primitive in objects(mesh, "primitives"):
            owners = (primitive, *objects(inner(primitive, "extensions", VARIANTS), "mappings"))
            found += [owner["material"] for owner in owners if isinstance(owner.get("material"), int)]
    return found


def _material(old: dict[str, Any], texture: int, uv_set: int) -> dict[str, Any]:
    """A material with another base colour: the texture alone, the alpha of its factor kept."""
    glossy = inner(old, "extensions", GLOSSINESS)
    before = inner(old, "pbrMetallicRoughness")
    factor = glossy.get("diffuseFactor") if glossy else before.get("baseColorFactor")
    info = {key: value for key, value in texture_info(old).items() if key not in ("index", "texCoord", "extensions")}
    others = {key: value for key, value in inner(texture_info(old), "extensions").items() if key != TRANSFORM}
    info |= {"index": texture} | ({"texCoord": uv_set} if uv_set else {}) | ({"extensions": others} if others else {})
    pbr = {**(before or MATTE), "baseColorTexture": info}
    pbr.pop("baseColorFactor", None)
    if factor is not None and factor[3] != 1:
        pbr["baseColorFactor"] = [1.0, 1.0, 1.0, factor[3]]
    new = {**old, "pbrMetallicRoughness": pbr}
    if glossy:
        new["extensions"] = {key: value for key, value in old["extensions"].items() if key != GLOSSINESS}
        if not new["extensions"]:
            del new["extensions"]
    return new
