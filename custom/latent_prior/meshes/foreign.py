"""Meshes of formats other than glTF, read by trimesh into a glTF document.

What such a file holds beyond geometry, texture coordinates, normals, colours and the base colour of its materials is
lost: the document is all that is written back. Colours of these formats are display values (sRGB).
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float
from trimesh.exchange.load import mesh_formats

from latent_prior import OptionError, host
from latent_prior.files import pictures, shown
from latent_prior.meshes.files import srgb_to_linear
from latent_prior.meshes.gltf import INDICES, Document
from latent_prior.meshes.parts import welded

BYTES_PER_BYTE = 20  # of memory for one of a text file
MATTE = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
COLORED = 1 << 20  # bytes of an obj in which colours would show


def formats() -> set[str]:
    """Suffixes of the files that can be read here, without their dots. Archives and points are not among them."""
    return mesh_formats() - {"glb", "gltf", "stl_ascii", "xyz"}


def read_foreign(path: Path, to_asset: Float[np.ndarray, "3 3"]) -> Document:
    """A document of the meshes in a file, each a node under its name, turned by `to_asset`."""
    host.require_memory(BYTES_PER_BYTE * path.stat().st_size / 4, {"mesh": path.name})
    fmt = path.suffix[1:].lower()
    options: dict[str, Any] = {"split_objects": True} if fmt == "obj" else {}
    if fmt == "stl":
        _require_length(path)
    try:
        with pictures.only_known_formats():  # of textures
            scene = trimesh.load_scene(path, process=False, **options)
            colours = _obj_colours(path) if fmt == "obj" else {}
            meshes = [_placed(scene, node) for node in scene.graph.nodes_geometry]
    except MemoryError:
        raise
    except Exception as error:  # trimesh's readers raise all kinds for broken files
        reason = " ".join(str(error).split())[:100]
        raise OptionError.because(
            f"it cannot be read as {fmt} ({type(error).__name__}: {shown(reason, 100)})"
        ) from error
    found = [(name, mesh) for name, mesh in meshes if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
    if not found:
        raise OptionError.because(f"it has no faces{', only points or lines' if meshes else ''}; expected triangles")
    if fmt == "ply":
        for _, mesh in found:
            _require_all(mesh.metadata.get("_ply_raw", {}))
    if fmt == "stl":  # which stores each face's corners apart
        found = [(name, _joined(mesh)) for name, mesh in found]
    document = Document.empty()
    document.json["scenes"][0]["nodes"] = []
    materials: dict[Any, int] = {}
    for name, mesh in found:
        label = path.stem if name in (path.name, "geometry_0") or len(found) == 1 else str(name)
        material = getattr(getattr(mesh.visual, "material", None), "name", None)
        own = colours.get(name, colours.get(name.removesuffix(f"_{material}")))  # trimesh adds it to an object's name
        _add(document, label, mesh, to_asset, materials, own)
    return document


def _require_all(elements: dict[str, Any]) -> None:
    """OptionError for a PLY in text that is cut off, of which trimesh takes what is there."""
    for name, element in elements.items():
        columns = element.get("data")
        rows = next(iter(columns.values()), ()) if isinstance(columns, dict) else None  # binary ones are not
        if rows is not None and (len(rows) < element["length"] or (name == "face" and np.size(rows[-1]) < 3)):
            raise OptionError.because(f"it is cut off in row {len(rows)} of {element['length']} of {shown(name)}")


def _require_length(path: Path) -> None:
    """OptionError for a binary STL that is shorter than it says, which trimesh takes for one in text."""
    with path.open("rb") as file:
        head = file.read(84)
    size, faces = path.stat().st_size, int.from_bytes(head[80:], "little")
    if not head.lstrip().startswith(b"solid") and size < (whole := 84 + 50 * faces):
        raise OptionError.because(f"it is cut off, or no STL: it has {size} of {whole} bytes")


def _joined(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with one vertex in each place; its faces stay as they are."""
    first, place = welded(np.asarray(mesh.vertices))
    return trimesh.Trimesh(mesh.vertices[first], place[mesh.faces], process=False)


def _placed(scene: trimesh.Scene, node: str) -> tuple[str, Any]:
    """A geometry of the scene under its name, moved to where its node is."""
    matrix, name = scene.graph[node]
    mesh = scene.geometry[name]
    if isinstance(mesh, trimesh.Trimesh) and not np.array_equal(matrix, np.eye(4)):
        mesh = mesh.copy(include_cache=True)
        mesh.apply_transform(matrix)
    return name if name == node or len(scene.graph.geometry_nodes[name]) == 1 else node, mesh


def _obj_colours(path: Path) -> dict[str, np.ndarray]:
    """Vertex colours by mesh, which trimesh hides where the file names a material."""
    with path.open("rb") as file:
        lines = file.read(COLORED).splitlines()
    vertex = next((line for line in lines if line.startswith(b"v ")), b"")
    if len(vertex.split()) < 7:
        return {}
    scene = trimesh.load_scene(path, process=False, split_objects=True, skip_materials=True)
    kinds = {name: mesh.visual for name, mesh in scene.geometry.items() if isinstance(mesh, trimesh.Trimesh)}
    return {name: visual.vertex_colors for name, visual in kinds.items() if visual.kind == "vertex"}


def _add(
    document: Document,
    name: str,
    mesh: trimesh.Trimesh,
    to_asset: Float[np.ndarray, "3 3"],
    materials: dict[Any, int],
    colours: np.ndarray | None,
) -> None:
    """A node with the mesh."""
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if not np.isfinite(vertices).all():
        raise OptionError.because(f"{shown(name)} has vertices that are not finite")
    if faces.min() < 0 or faces.max() >= len(vertices):
        wrong = faces.min() if faces.min() < 0 else faces.max()
        raise OptionError.because(f"it has a face with vertex {wrong} of {len(vertices)}")
    normals = mesh.vertex_normals if "vertex_normals" in mesh._cache else None  # those of the file alone
    uv, visual = getattr(mesh.visual, "uv", None), mesh.visual
    if visual.kind == "vertex":
        colours = visual.vertex_colors
    if visual.kind == "face":  # each face gets vertices of its own
        colours = np.repeat(visual.face_colors, 3, axis=0)
        vertices, normals = vertices[faces.ravel()], None if normals is None else normals[faces.ravel()]
        faces = np.arange(3 * len(faces)).reshape(-1, 3)
    vertices = vertices @ to_asset.T
    middle = _far_middle(vertices)
    attributes = {"POSITION": document.add_accessor((vertices - middle).astype("<f4"))}
    document.set_limits(attributes["POSITION"])
    if normals is not None and np.isfinite(normals).all():
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        if lengths.min() > 1e-6:
            attributes["NORMAL"] = document.add_accessor((normals / lengths @ to_asset.T).astype("<f4"))
    if uv is not None and np.shape(uv) == (len(vertices), 2) and np.isfinite(uv).all():
        attributes["TEXCOORD_0"] = document.add_accessor(np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype("<f4"))
    if colours is not None and len(colours) == len(vertices):
        light = np.asarray(colours) / 255.0
        light = np.concatenate([srgb_to_linear(light[:, :3]), light[:, 3:]], axis=1)
        attributes["COLOR_0"] = document.add_accessor((light * 65535).round().astype("<u2"), normalized=True)
    corners = faces.ravel().astype("<u2" if len(vertices) < 65535 else "<u4")
    primitive: dict[str, Any] = {"attributes": attributes, "indices": document.add_accessor(corners, INDICES)}
    material = getattr(visual, "material", None)
    key = (id(material), "COLOR_0" in attributes)
    if key not in materials:
        materials[key] = document.add("materials", _material(document, material, "COLOR_0" in attributes))
    primitive["material"] = materials[key]
    index = document.add("meshes", {"name": name, "primitives": [primitive]})
    node = {"name": name, "mesh": index} | ({"translation": middle.tolist()} if middle.any() else {})
    document.json["scenes"][0]["nodes"].append(document.add("nodes", node))


def _far_middle(vertices: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "3"]:
    """The middle of the vertices' box if it is farther from the origin than the box is large; else the origin.

    Positions are single precision in glTF, which would round those of a map's coordinates to half a metre.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle = low / 2 + high / 2
    return middle if abs(middle).max() > (high - low).max() else np.zeros(3)


def _material(document: Document, material: Any, coloured: bool) -> dict[str, Any]:
    """A material in glTF, with the base colour alone: a picture, else a colour unless the vertices have some; matte."""
    pbr: dict[str, Any] = dict(MATTE)
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    picture = None if image is None else _picture(image)
    if picture is not None:
        source = document.add("images", {"mimeType": picture[1], "bufferView": document.add_view(picture[0])})
        pbr["baseColorTexture"] = {"index": document.add("textures", {"source": source})}
    elif image is None and not coloured and (color := _color(material)) is not None:
        pbr["baseColorFactor"] = [*srgb_to_linear(color.clip(0, 1)).round(6).tolist(), 1.0]
    name = getattr(material, "name", None)
    return ({"name": name} if isinstance(name, str) and name else {}) | {"pbrMetallicRoughness": pbr}


def _color(material: Any) -> Float[np.ndarray, "3"] | None:
    """The colour of a material of trimesh's in sRGB, if its file gives one."""
    given = getattr(material, "kwargs", {}).get("kd")  # of an .mtl, whose materials otherwise are grey
    if given is None and (given := getattr(material, "baseColorFactor", None)) is not None:
        given = np.asarray(given) / (255 if np.asarray(given).dtype.kind == "u" else 1)
    color = np.asarray([] if given is None else given, np.float64).ravel()[:3]
    return color if len(color) == 3 and np.isfinite(color).all() else None


def _picture(image: Any) -> tuple[bytes, str] | None:
    """A texture that trimesh has opened, as it lies in its file if glTF knows its format, else as PNG."""
    try:
        data = getattr(image, "fp", None)
        if isinstance(data, io.BytesIO):
            read = pictures.from_bytes(data.getvalue(), "its texture")
            if image.format in ("PNG", "JPEG"):
                return data.getvalue(), f"image/{image.format.lower()}"
        else:
            read = image.convert("RGBA")
        return pictures.png(read), "image/png"
    except (OptionError, OSError, ValueError, SyntaxError) as error:
        host.warn(f"a texture is taken as white: {shown(str(error), 200)}")
        return None
