"""The pocket world's solids as mesh files: without colours, or in one of their looks."""

from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from latent_prior.evaluate.text_to_3d.surface import FACING
from latent_prior.meshes.files import save_mesh
from latent_prior.meshes.texture import bake, unwrap
from latent_prior.pocket import renderer
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.palette import COLOURS
from latent_prior.pocket.truth import truth_mesh

TEXTURE_SIZE = 512
UNWRAPPING = 300.0  # seconds that xatlas may take


def write_solid(kind: str, folder: Path) -> Path:
    """The solid without colours and without texture coordinates, unless it is there already."""
    path = folder / f"{kind.replace(' ', '_')}.glb"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        mesh = truth_mesh(kind)
        save_mesh(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), path)
    return path


def write_painted(subject: Subject, folder: Path) -> Path:
    """The solid with a texture of its look, seen by no camera in particular, unless it is there already."""
    path = folder / f"{subject.caption.replace(' ', '_')}.glb"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        mesh = truth_mesh(subject.kind)

        def colour(points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
            paint = torch.tensor(subject.rgb).expand_as(points)
            return renderer.shade(subject, paint, points, normals, FACING * normals)

        atlas = unwrap(np.asarray(mesh.vertices), np.asarray(mesh.faces), TEXTURE_SIZE, UNWRAPPING)
        save_mesh(bake(mesh, atlas, colour, TEXTURE_SIZE), path)
    return path


def other_look(subject: Subject) -> Subject:
    """Another look of the same solid, from which it is restyled: plain, in the colour that is two on in the palette."""
    names = list(COLOURS)
    place = names.index(subject.colour) if subject.colour in names else 0
    return Subject(subject.kind, names[(place + 2) % len(names)], "plain")
