"""Mesh files, written and read through trimesh.

Conventions. In memory a mesh is in world coordinates, z up, front towards +x, and its colours are display values
(sRGB). On disk:
    .glb   as glTF 2.0 has it, so that viewers show it upright and in its true colours: y up, front towards +z, that is
           (x, y, z) becomes (y, z, x); vertex colours in linear light, with a matte material; textures in sRGB.
           With glb_for="trimesh" vertex colours are sRGB and there is no material, as trimesh itself writes and reads
           them (with a material trimesh hides vertex colours); viewers then show them too light, and metallic.
    .obj   z up; a texture through its .mtl, or sRGB vertex colours with the mean colour in the .mtl for readers that do
           not know vertex colours.
    .ply   z up, sRGB vertex colours.
`load_mesh` undoes all of it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float

from latent_prior import OptionError

FORMATS = ("glb", "obj", "ply")
GLB_READERS = ("viewers", "trimesh")
SRGB_MARK = "vertex_colors_are_srgb"  # in the mesh's extras, for what departs from glTF
WORLD_TO_GLTF = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def srgb_to_linear(color: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Display values in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Linear light in [0, 1] to display values (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def save_mesh(mesh: trimesh.Trimesh, path: Path | str, glb_for: str = "viewers") -> list[Path]:
    """Write the mesh in the format of the path's suffix; returns every file written, the mesh's own first.

    glb_for: viewers or trimesh, see above; `load_mesh` reads either.
    """
    path = Path(path)
    if glb_for not in GLB_READERS:
        raise OptionError.because(f"exporter.glb_for is {glb_for!r}, expected one of {', '.join(GLB_READERS)}")
    if path.suffix == ".glb":
        return _save_glb(mesh, path, linear=glb_for == "viewers")
    if path.suffix == ".obj":
        return _save_obj(mesh, path)
    if path.suffix == ".ply":
        mesh.export(path)
        return [path]
    raise OptionError.because(f"exporter.fmt: {path.suffix!r} is no mesh format, expected one of {', '.join(FORMATS)}")


def load_mesh(path: Path | str) -> trimesh.Trimesh:
    """Read a mesh that `save_mesh` wrote: world coordinates, z up, sRGB vertex colours."""
    path = Path(path)
    if not path.is_file():
        raise OptionError.because(f"there is no mesh file {path}")
    mesh = _load(path, skip_materials=True)  # a material would hide vertex colours
    if mesh.visual.kind == "vertex":
        linear = path.suffix == ".glb" and not mesh.metadata.get(SRGB_MARK, False)
        colors = _map_colors(mesh.visual.vertex_colors, linear_to_srgb) if linear else mesh.visual.vertex_colors
    else:
        mesh = _load(path)
        colors = mesh.visual.to_color().vertex_colors
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.array(colors))
    if path.suffix == ".glb":
        mesh.apply_transform(np.linalg.inv(WORLD_TO_GLTF))
    return mesh


def _load(path: Path, **options) -> trimesh.Trimesh:
    scene = trimesh.load_scene(path, process=False, **options)
    if len(scene.geometry) != 1:
        raise OptionError.because(f"{path} holds {len(scene.geometry)} meshes, expected the one that an export writes")
    (mesh,) = scene.geometry.values()
    return mesh


def _map_colors(colors: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    mapped = np.array(colors)
    mapped[:, :3] = (curve(colors[:, :3] / 255.0) * 255).round().astype(np.uint8)
    return mapped


def _save_glb(mesh: trimesh.Trimesh, path: Path, linear: bool) -> list[Path]:
    turned = mesh.copy(include_cache=True)  # with the normals, which a mesh cut for its texture has from before the cut
    turned.apply_transform(WORLD_TO_GLTF)
    if turned.visual.kind == "vertex" and linear:
        turned.visual.vertex_colors = _map_colors(turned.visual.vertex_colors, srgb_to_linear)
    elif turned.visual.kind == "vertex":
        turned.metadata[SRGB_MARK] = True

    def add_material(tree: dict) -> None:
        if linear and "materials" not in tree:  # without one a viewer takes glTF's default, which is a metal
            tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}]
            tree["meshes"][0]["primitives"][0]["material"] = 0

    scene = trimesh.Scene(turned)
    path.write_bytes(trimesh.exchange.gltf.export_glb(scene, include_normals=True, tree_postprocessor=add_material))
    return [path]


def _save_obj(mesh: trimesh.Trimesh, path: Path) -> list[Path]:
    material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
    lines = ["newmtl surface", "Ka 0 0 0", "Ks 0 0 0", "illum 1"]
    textured = isinstance(mesh.visual, trimesh.visual.TextureVisuals)
    if textured:
        mesh.visual.material.baseColorTexture.save(picture)
        lines += ["Kd 1 1 1", f"map_Kd {picture.name}"]
    else:
        mean = np.asarray(mesh.visual.vertex_colors)[:, :3].mean(axis=0) / 255
        lines.append("Kd " + " ".join(f"{value:.6f}" for value in mean))
    material.write_text("\n".join(lines) + "\n")

    rows = ["# latent_prior: z is up, vertex colours are sRGB", f"mtllib {material.name}"]
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
    path.write_text("\n".join(rows) + "\n")
    return [path, material, picture] if textured else [path, material]
