"""Takes out of a document what an edit has left without a user: replaced pictures, and the geometry before an atlas.

What nobody used before the edit either, such as a spare material, stays. So does all of it in a document with an
extension that is not known here, since that may refer to what would go, or count on its number.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from latent_prior.meshes.gltf import Document, inner, is_index, objects

# Those whose references are followed below, and those that refer to nothing that could go.
KNOWN = {
    "EXT_mesh_gpu_instancing",
    "EXT_texture_avif",
    "EXT_texture_webp",
    "KHR_lights_punctual",
    "KHR_mesh_quantization",
    "KHR_node_visibility",
    "KHR_texture_basisu",
    "KHR_texture_transform",
}
MATERIALS = "KHR_materials_"  # how the names of those begin that describe materials
KINDS = ("materials", "textures", "images", "accessors", "bufferViews")  # each refers to later ones alone
SOURCES = ("EXT_texture_avif", "EXT_texture_webp", "KHR_texture_basisu")

Slot = tuple[dict[str, Any], str]  # where a number of an entry stands


def drop_unused(document: Document, before: Document) -> None:
    """Remove from a document what is used in `before`, of which it is an edited copy, and no longer in it."""
    names = document.json.get("extensionsUsed", [])
    if all(name in KNOWN or (isinstance(name, str) and name.startswith(MATERIALS)) for name in names):
        for kind in KINDS:
            dead = _used(before.json, kind) - _used(document.json, kind)
            if dead:
                _remove(document, kind, dead)
        _shrink(document)
    gone = _extensions(before.json) - _extensions(document.json)
    for key in ("extensionsUsed", "extensionsRequired"):
        if gone.intersection(kept := document.json.get(key, [])):
            document.json[key] = [name for name in kept if name not in gone]
            if not document.json[key]:
                del document.json[key]


def _extensions(tree: dict[str, Any]) -> set[str]:
    """The names of all extensions with an object somewhere; others, such as KHR_mesh_quantization, have none."""
    found, waiting = set[str](), list[Any]([tree])
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found.update(inner(value, "extensions"))
            waiting += (entry for key, entry in value.items() if key != "extras")
        elif isinstance(value, list):
            waiting += value
    return found


def _used(tree: dict[str, Any], kind: str) -> set[int]:
    return {owner[key] for owner, key in _slots(tree, kind)}


def _slots(tree: dict[str, Any], kind: str) -> Iterator[Slot]:
    """Every place where the file names an entry of a kind by its number."""
    count = len(tree.get(kind, []))
    for owner, key in {
        "materials": _of_materials,
        "textures": _of_textures,
        "images": _of_images,
        "accessors": _of_accessors,
        "bufferViews": _of_views,
    }[kind](tree):
        if is_index(owner.get(key), count):
            yield owner, key


def _primitives(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for mesh in objects(tree, "meshes"):
        yield from objects(mesh, "primitives")


def _of_materials(tree: dict[str, Any]) -> Iterator[Slot]:
    for primitive in _primitives(tree):
        yield primitive, "material"
        for variant in objects(inner(primitive, "extensions", "KHR_materials_variants"), "mappings"):
            yield variant, "material"


def _of_textures(tree: dict[str, Any]) -> Iterator[Slot]:
    """The "index" in every object of a material whose name says that it is a texture's."""
    waiting = list(objects(tree, "materials"))
    while waiting:
        owner = waiting.pop()
        for key, value in owner.items():
            if isinstance(value, dict) and key != "extras":
                waiting.append(value)
                if key.endswith("Texture"):
                    yield value, "index"


def _of_images(tree: dict[str, Any]) -> Iterator[Slot]:
    for texture in objects(tree, "textures"):
        yield texture, "source"
        for name in SOURCES:
            yield inner(texture, "extensions", name), "source"


def _of_accessors(tree: dict[str, Any]) -> Iterator[Slot]:
    for primitive in _primitives(tree):
        yield primitive, "indices"
        for attributes in (inner(primitive, "attributes"), *objects(primitive, "targets")):
            for key in attributes:
                yield attributes, key
    for animation in objects(tree, "animations"):
        for sampler in objects(animation, "samplers"):
            yield sampler, "input"
            yield sampler, "output"
    for skin in objects(tree, "skins"):
        yield skin, "inverseBindMatrices"
    for node in objects(tree, "nodes"):
        attributes = inner(node, "extensions", "EXT_mesh_gpu_instancing", "attributes")
        for key in attributes:
            yield attributes, key


def _of_views(tree: dict[str, Any]) -> Iterator[Slot]:
    for accessor in objects(tree, "accessors"):
        sparse = inner(accessor, "sparse")
        for owner in (accessor, inner(sparse, "indices"), inner(sparse, "values")):
            yield owner, "bufferView"
    for image in objects(tree, "images"):
        yield image, "bufferView"


def _remove(document: Document, kind: str, dead: set[int]) -> None:
    """Take entries out, and give the others their new numbers wherever they are named."""
    kept = [index for index in range(len(document.json[kind])) if index not in dead]
    number = {index: place for place, index in enumerate(kept)}
    slots = {(id(owner), key): (owner, key) for owner, key in _slots(document.json, kind)}
    for owner, key in slots.values():
        owner[key] = number[owner[key]]
    document.json[kind] = [document.json[kind][index] for index in kept]
    if not kept:
        del document.json[kind]


def _shrink(document: Document) -> None:
    """Leave out the bytes that no buffer view is of."""
    views: dict[int, list[dict[str, Any]]] = {index: [] for index in range(len(document.buffers))}
    for view in objects(document.json, "bufferViews"):
        views[view["buffer"]].append(view)
    for index, own in views.items():
        data, kept = document.buffers[index], list[list[int]]()  # first and last of the pieces that are kept
        for first, last in sorted(_extent(view) for view in own):
            if kept and first - first % 4 <= kept[-1][1]:
                kept[-1][1] = max(kept[-1][1], last)
            else:
                kept.append([first - first % 4, last])  # which keeps the alignment
        if sum(last - first for first, last in kept) >= len(data):
            continue
        pieces, shifts, size = [], [], 0
        for first, last in kept:
            pieces.append(data[first:last] + bytes(-(last - first) % 4))
            shifts.append(first - size)
            size += len(pieces[-1])
        starts = [first for first, _ in kept]
        for view in own:
            view["byteOffset"] = _extent(view)[0] - shifts[bisect_right(starts, _extent(view)[0]) - 1]
        document.buffers[index] = b"".join(pieces)


def _extent(view: dict[str, Any]) -> tuple[int, int]:
    """The first byte of a view, and the one behind its last."""
    first = view.get("byteOffset", 0)
    return first, first + view["byteLength"]
