"""Bakes a texture for a mesh, with an atlas by xatlas and one colour per texel.

Conventions. Texture coordinates (u, v) have their origin at the bottom left; row 0 of a picture is its top.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from latent_prior.meshes.uv import barycentric, nearest_covered, rasterise

SurfaceColor = Callable[[Tensor, Tensor], Tensor]  # (N, 3) points, (N, 3) normals -> (N, 3) colours
# xatlas cannot be interrupted from Python and can take minutes on a rough surface, so it runs in a separate process
UNWRAP = """
import sys, numpy, xatlas
data = numpy.load(sys.argv[1])
atlas, options = xatlas.Atlas(), xatlas.PackOptions()
options.resolution, options.padding = int(sys.argv[3]), 4
atlas.add_mesh(data["vertices"], data["faces"])
atlas.generate(pack_options=options)
source, faces, uv = atlas[0]
numpy.savez(sys.argv[2], source=source, faces=faces, uv=uv)
"""


@dataclass(frozen=True)
class Atlas:
    """`source` names the mesh's vertex behind each vertex of the atlas; `faces` index the atlas's vertices."""

    source: Int[np.ndarray, "M"]
    faces: Int[np.ndarray, "F 3"]
    uv: Float[np.ndarray, "M 2"]


def unwrap(vertices: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, "F 3"], size: int, timeout: float) -> Atlas:
    """Cut the mesh into charts, four texels apart in a texture of about `size` x `size`.

    Raises:
        TimeoutError: it takes longer than `timeout` seconds.
        RuntimeError: the process fails; the message is its last line of output.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "mesh.npz"), Path(folder, "atlas.npz")
        np.savez(before, vertices=vertices.astype(np.float32), faces=faces.astype(np.uint32))
        command = [sys.executable, "-c", UNWRAP, str(before), str(after), str(size)]
        try:
            done = subprocess.run(command, timeout=timeout, capture_output=True, text=True)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"it takes longer than {timeout:g} s") from error
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1])
        with np.load(after) as data:
            return Atlas(data["source"].astype(np.int64), data["faces"].astype(np.int64), data["uv"].astype(np.float64))


def bake(mesh: trimesh.Trimesh, atlas: Atlas, color: SurfaceColor, size: int) -> trimesh.Trimesh:
    """The mesh cut along the atlas, with a matte `size` x `size` texture of `color` at every covered texel."""
    vertices, normals = mesh.vertices[atlas.source], mesh.vertex_normals[atlas.source]
    corners = (np.stack([atlas.uv[:, 0], 1 - atlas.uv[:, 1]], axis=1) * size)[atlas.faces]
    face, rows, columns = (np.concatenate(found) for found in zip(*rasterise(corners, size), strict=True))
    weights = barycentric(np.stack([columns, rows], axis=1) + 0.5, corners[face])[..., None]
    faces = atlas.faces[face]
    points, directions = (weights * vertices[faces]).sum(axis=1), (weights * normals[faces]).sum(axis=1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True).clip(min=1e-12)
    texels = color(torch.as_tensor(points, dtype=torch.float32), torch.as_tensor(directions, dtype=torch.float32))

    picture = np.zeros((size, size, 3), dtype=np.uint8)
    picture[rows, columns] = (texels.cpu().numpy() * 255).round().astype(np.uint8)
    # texels between charts take their nearest neighbour's colour, so that filtering shows no seams
    picture = picture[tuple(nearest_covered(rows, columns, size))]
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(picture), metallicFactor=0.0, roughnessFactor=1.0
    )
    visual = trimesh.visual.TextureVisuals(uv=atlas.uv, material=material)
    return trimesh.Trimesh(vertices, atlas.faces, vertex_normals=normals, visual=visual, process=False)
