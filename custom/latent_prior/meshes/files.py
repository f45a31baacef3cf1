"""Mesh files, written and read with trimesh.

Conventions. In memory a mesh is in world coordinates, z up, front towards +x, and its colours are display values
(sRGB). On disk:
    .glb   as in glTF 2.0, so that viewers show it upright and in its true colours: y up, front towards +z, that is
           (x, y, z) becomes (y, z, x); vertex colours in linear light, 16 bits per channel (8 would merge most of the
           darkest display values), with a matte material; textures in sRGB. With glb_for="trimesh" vertex colours are
           8-bit sRGB and there is no material, as trimesh itself writes and reads them (with a material trimesh hides
           vertex colours); viewers then show them too light, and metallic.
    .obj   y up, oriented as in .glb; a texture through its .mtl, or sRGB vertex colours with the mean colour in the
           .mtl for readers that do not know vertex colours.
    .ply   z up, sRGB vertex colours.
    .stl   z up, no colours.
For the last three `up` may select the other axis; a line in the file's header records it. `load_mesh` undoes all of
it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, UInt

from latent_prior import Diverged, OptionError
from latent_prior.files import atomic_write, user_path, write_text
from latent_prior.files.pictures import only_known_formats

UP = {"glb": "y", "obj": "y", "ply": "z", "stl": "z"}  # the usual up axis in programs that open such files
FORMATS = tuple(UP)
COLORLESS = ("stl",)
GLB_READERS = ("viewers", "trimesh")
UP_MARK = "latent_prior: {} is up"
WORLD_TO_Y_UP = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def srgb_to_linear(color: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Display values in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Linear light in [0, 1] to display values (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def save_mesh(mesh: trimesh.Trimesh, path: Path | str, glb_for: str = "viewers", up: str | None = None) -> list[Path]:
    """Write the mesh in the format of the path's suffix; returns every written file, the mesh file first.

    glb_for: viewers or trimesh, see above; `load_mesh` reads either. up: y or z; None: the format's default, see above.
    Raises Diverged for a mesh with numbers that are not finite.
    """
    path = Path(path)
    fmt = path.suffix[1:].lower()
    if fmt not in FORMATS or glb_for not in GLB_READERS or up not in (None, "y", "z") or (fmt, up) == ("glb", "z"):
        raise ValueError(f"cannot write {path.name} with glb_for={glb_for!r}, up={up!r}")
    _require_finite(mesh)
    up = up or UP[fmt]
    if up == "y":
        mesh = mesh.copy(include_cache=True)  # with the normals, which a textured mesh has from before it was cut
        mesh.apply_transform(WORLD_TO_Y_UP)
    mark = UP_MARK.format(up)
    if fmt == "obj":
        return _save_obj(mesh, path, mark)
    if fmt == "glb":
        data = _linear_glb(mesh) if glb_for == "viewers" else _glb(mesh)
    elif fmt == "ply":
        data = mesh.export(file_type="ply").replace(b"\n", f"\ncomment {mark}\n".encode(), 1)
    else:
        data = mark.encode().ljust(80) + mesh.export(file_type="stl")[80:]
    with atomic_write(path) as beside:
        beside.write_bytes(data)
    return [path]


def _require_finite(mesh: trimesh.Trimesh) -> None:
    parts = {"vertices": mesh.vertices, "normals": mesh.vertex_normals, "uv": getattr(mesh.visual, "uv", None)}
    for name, numbers in parts.items():
        if numbers is not None and not np.isfinite(numbers).all():
            raise Diverged(f"the mesh is not written, because its {name} are not finite", (name,))


def load_mesh(path: Path | str) -> trimesh.Trimesh:
    """Read a mesh that `save_mesh` wrote: world coordinates, z up, sRGB vertex colours where the file has colours."""
    path = Path(path)
    if not path.is_file():
        raise OptionError.because(f"there is no mesh file {path}")
    fmt = path.suffix[1:].lower()
    mesh = _load(path)
    if fmt in COLORLESS:
        mesh.merge_vertices()  # the format stores each triangle's corners separately
    else:
        colors = getattr(mesh.visual, "vertex_attributes", {}).get("color")  # in a glb, next to its material
        if colors is not None:
            colors = _bytes(linear_to_srgb(colors[:, :3] / np.iinfo(colors.dtype).max))
        elif getattr(mesh.visual, "uv", None) is not None:
            colors = mesh.visual.to_color().vertex_colors
        else:
            colors = _load(path, skip_materials=True).visual.vertex_colors  # in an obj, hidden by its material
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.array(colors))
    with path.open("rb") as file:
        head = file.read(200).decode(errors="replace")
    if next((up for up in "yz" if UP_MARK.format(up) in head), UP.get(fmt)) == "y":
        mesh.apply_transform(np.linalg.inv(WORLD_TO_Y_UP))
    return mesh


def _load(path: Path, **options) -> trimesh.Trimesh:
    with only_known_formats():  # of textures
        scene = trimesh.load_scene(path, process=False, **options)
    if len(scene.geometry) != 1:
        raise OptionError.because(f"{path} holds {len(scene.geometry)} meshes, expected one, as in an export")
    (mesh,) = scene.geometry.values()
    return mesh


def _bytes(color: Float[np.ndarray, "N 3"]) -> UInt[np.ndarray, "N 3"]:
    return (color * 255).round().astype(np.uint8)


def _glb(mesh: trimesh.Trimesh, **options) -> bytes:
    return trimesh.exchange.gltf.export_glb(trimesh.Scene(mesh), include_normals=True, **options)


def _linear_glb(mesh: trimesh.Trimesh) -> bytes:
    """As in glTF. trimesh writes colours with 8 bits, but vertex attributes unchanged, with "_" before the name."""
    if mesh.visual.kind != "vertex":
        return _glb(mesh)
    light = srgb_to_linear(np.asarray(mesh.visual.vertex_colors)[:, :3] / 255.0)
    opaque = np.ones_like(light[:, :1])  # four channels: a vertex's data has to start at a multiple of four bytes
    mesh.vertex_attributes["COLOR_0"] = (np.concatenate([light, opaque], axis=1) * 65535).round().astype(np.uint16)
    mesh.visual = trimesh.visual.ColorVisuals()

    def finish(tree: dict) -> None:
        (primitive,) = tree["meshes"][0]["primitives"]
        primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop("_COLOR_0")
        tree["accessors"][primitive["attributes"]["COLOR_0"]]["normalized"] = True
        # without a material viewers use glTF's default, which is a metal
        tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}]
        primitive["material"] = 0

    return _glb(mesh, tree_postprocessor=finish)


def _save_obj(mesh: trimesh.Trimesh, path: Path, mark: str) -> list[Path]:
    material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
    lines = ["newmtl surface", "Ka 0 0 0", "Ks 0 0 0", "illum 1"]
    textured = isinstance(mesh.visual, trimesh.visual.TextureVisuals)
    if textured:
        with atomic_write(picture) as beside:
            mesh.visual.material.baseColorTexture.save(beside)
        lines += ["Kd 1 1 1", f"map_Kd {picture.name}"]
    else:
        mean = np.asarray(mesh.visual.vertex_colors)[:, :3].mean(axis=0) / 255
        lines.append("Kd " + " ".join(f"{value:.6f}" for value in mean))
    write_text(material, "\n".join(lines) + "\n")

    rows = [f"# {mark}, vertex colours are sRGB", f"mtllib {material.name}"]
    if textured:
        rows += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices]
        rows += [f"vt {u:.7g} {v:.7g}" for u, v in mesh.visual.uv]
    else:
        colored = np.concatenate([mesh.vertices, np.asarray(mesh.visual.vertex_colors)[:, :3] / 255], axis=1)
        rows += ["v " + " ".join(f"{value:.7g}" for value in row) for row in colored]
    rows += [f"vn {x:.5g} {y:.5g} {z:.5g}" for x, y, z in mesh.vertex_normals]
    rows.append("usemtl surface")
    corner = "{0}/{0}/{0}" if textured else "{0}//{0}"
    rows += ["f " + " ".join(corner.format(index) for index in face) for face in mesh.faces + 1]
    write_text(path, "\n".join(rows) + "\n")  # last: it needs the others
    return [path, material, picture] if textured else [path, material]


def newest_mesh(run: Path, suffixes: Sequence[str] = (".glb", ".ply", ".obj")) -> Path | None:
    """The mesh of a run's latest export, of the first of the suffixes that is there; None if nothing was exported."""
    exports = sorted((run / "save").glob("it*-export"), key=lambda path: path.stat().st_mtime)
    for export in reversed(exports):
        for suffix in suffixes:
            if found := sorted(export.glob(f"[!.]*{suffix}")):
                return found[0]
    return None


def absolute_mesh(path: str) -> Path:
    """A mesh's path as a user gives it, made absolute; for the folder of a run its newest GLB, if it has one."""
    given = user_path(path)
    return ((newest_mesh(given, (".glb",)) if os.path.isdir(given) else None) or given).absolute()
