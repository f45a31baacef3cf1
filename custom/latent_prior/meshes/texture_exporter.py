"""`textured-mesh-exporter`: bakes a mesh's trained colours into textures, and writes its file back with them.

A texel's colour is the field's at the point of the surface under it. Places that no camera saw in training were never
learned; they take the colours of the nearest places that were. Which way the surface faces counts for both, so that no
colour comes through a thin wall.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.spatial import cKDTree

from latent_prior import host
from latent_prior.files import atomic_write
from latent_prior.files.pictures import png
from latent_prior.files.refusals import naming
from latent_prior.meshes.asset_files import FORMATS, save_asset
from latent_prior.meshes.layout import Layout, lay_out
from latent_prior.meshes.mesh_exporter import MeshExporter
from latent_prior.meshes.parts import half_axis

CHUNK = 1 << 18  # texels coloured at a time
TURN = 0.2  # world units that count as far as the difference of two unit normals
NEIGHBOURS = 4  # seen patches whose colours an unseen texel takes the mean of
PATCH = 0.025  # side of a patch, in world units


@host.register("textured-mesh-exporter")
class TexturedMeshExporter(MeshExporter):
    """Writes the file of a `textured-mesh` with new textures, in its own units, axes and hierarchy; textures as PNG."""

    @dataclass
    class Config(MeshExporter.Config):
        pass

    cfg: Config
    known_formats: Collection[str] = FORMATS

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        super().configure(geometry, material, background)
        self.require_memory_for_texture()

    @torch.no_grad()
    def __call__(self) -> list[host.ExporterOutput]:
        """Write the files to a temporary folder, which lives as long as the exporter, and return them."""
        folder = self.new_folder()
        layout = lay_out(self.geometry.asset, self.cfg.texture_size, self.cfg.texture_timeout)
        pictures = [self._painted(layout, number) for number in range(layout.textures)]
        with naming(folder, "TMPDIR names the folder for temporary files"):
            files = save_asset(layout, pictures, folder, self.cfg.save_name, self.formats)
            files += [self._picture(folder, number, picture) for number, picture in enumerate(pictures)]
        order = reversed(files)  # a mesh after what it needs
        return [host.ExporterOutput(path.name, "file", {"src_path": str(path)}) for path in order]

    def _picture(self, folder: Path, number: int, picture: UInt8[np.ndarray, "S S 3"]) -> Path:
        path = folder / f"{self.cfg.save_name}_texture{number or ''}.png"
        with atomic_write(path) as beside:
            beside.write_bytes(png(Image.fromarray(picture)))
        return path

    def _painted(self, layout: Layout, number: int) -> UInt8[np.ndarray, "S S 3"]:
        """A texture in sRGB."""
        texels = layout.texels(number, self.cfg.texture_size)
        device = self.geometry.v_pos.device
        part = np.array([place.part for place in layout.places])[texels.place]
        points, weights = (
            torch.tensor(rows, dtype=torch.float32, device=device) for rows in (texels.points, texels.weights)
        )
        faces = torch.tensor(layout.asset.first_faces[part] + texels.face, device=device)
        colours, seen = [], []
        for some in zip(points.split(CHUNK), faces.split(CHUNK), weights.split(CHUNK), strict=True):
            colours.append(self.display({"features": self.geometry.features_at(*some)}, some[0]).float().cpu())
            seen.append(self.geometry.was_seen(*some[:2]).cpu())
        rgb = filled(torch.cat(colours).clamp(0, 1).numpy(), torch.cat(seen).numpy(), texels.points, texels.normals)
        return texels.picture((rgb * 255).round().astype(np.uint8))


def filled(
    colours: Float[np.ndarray, "K 3"],
    seen: Bool[np.ndarray, " K"],
    points: Float[np.ndarray, "K 3"],
    normals: Float[np.ndarray, "K 3"],
) -> Float[np.ndarray, "K 3"]:
    """The colours, with those of unseen texels replaced by the mean of the nearest seen ones', weighted by 1 / distance.

    points, normals: of the texels' places on the surface, in world units.
    """
    if seen.all() or not seen.any():
        return colours
    host.info(
        f"texture: {(~seen).sum()} of {len(seen)} texels were seen by no camera; they take their neighbours' colours"
    )
    places, shown = _patches(points[seen], normals[seen], colours[seen])
    tree, found, unseen = cKDTree(places), colours.copy(), np.flatnonzero(~seen)
    for start in range(0, len(unseen), CHUNK):
        some = unseen[start : start + CHUNK]
        wanted = np.concatenate([points[some], TURN * normals[some]], axis=1)
        distance, near = tree.query(wanted, k=min(NEIGHBOURS, len(places)))
        near, weight = near.reshape(len(near), -1), 1 / distance.reshape(len(near), -1).clip(min=1e-6)
        found[some] = (weight[..., None] * shown[near]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return found


def _patches(
    points: Float[np.ndarray, "K 3"], normals: Float[np.ndarray, "K 3"], colours: Float[np.ndarray, "K 3"]
) -> tuple[Float[np.ndarray, "P 6"], Float[np.ndarray, "P 3"]]:
    """Places and colours of the surface, each the mean over a cell of PATCH and over the normals along one half axis.

    Among all texels the search would take minutes, since very many are about as far.
    """
    low = np.floor(points.min(axis=0) / PATCH).astype(np.int64)
    x, y, z = (np.floor(points[:, k] / PATCH).astype(np.int64) - low[k] for k in range(3))
    cells = np.ravel_multi_index((x, y, z, half_axis(normals)), (x.max() + 1, y.max() + 1, z.max() + 1, 6))
    patch = np.unique(cells, return_inverse=True)[1]
    counts = np.bincount(patch)
    sums = [np.bincount(patch, row) for rows in (points, normals, colours) for row in rows.T]
    means = np.stack(sums, axis=1) / counts[:, None]
    return means[:, :6] * [1, 1, 1, TURN, TURN, TURN], means[:, 6:]
