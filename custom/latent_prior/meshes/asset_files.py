"""Writes an asset with new textures: .glb, .obj with its .mtl and pictures, .ply with vertex colours.

Each lies where the input lay when both are opened in Blender: .glb and .obj are y up, .ply is z up (see axes.py). An
.obj or .ply holds the parts alone, in their places, without hierarchy.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from latent_prior import OptionError, host
from latent_prior.files import atomic_write, write_text
from latent_prior.meshes.axes import Z_UP
from latent_prior.meshes.base_colour import bilinear
from latent_prior.meshes.files import linear_to_srgb
from latent_prior.meshes.layout import Layout, Place
from latent_prior.meshes.parts import Part
from latent_prior.meshes.retexture import textured

FORMATS = ("glb", "obj", "ply")
CLAMPED = ("clamp", "clamp")
SINGLE = 2.0**-23  # of a coordinate: the step between numbers of single precision
ROUNDED = 1e-4  # of a mesh's extent: a larger step shows


def save_asset(
    layout: Layout,
    pictures: Sequence[UInt8[np.ndarray, "S S 3"]],
    folder: Path,
    name: str,
    formats: Sequence[str] = ("glb",),
) -> list[Path]:
    """Write the asset with a picture for each of the layout's textures; returns the files, a mesh before what it needs.

    OptionError for another format. NotWritten if the disk refuses.
    """
    written: list[Path] = []
    for suffix in formats:
        path = folder / f"{name}.{suffix}"
        if suffix == "glb":
            written += _save(path, textured(layout, pictures).to_glb())
        elif suffix == "ply":
            written += _save(path, _ply(layout, pictures))
        elif suffix == "obj":
            written += _save_obj(layout, pictures, path)
        else:
            raise OptionError("formats", suffix, f"some of {', '.join(FORMATS)}")
    return written


def _save(path: Path, data: bytes) -> list[Path]:
    with atomic_write(path) as beside:
        beside.write_bytes(data)
    return [path]


def _places(layout: Layout) -> list[tuple[Part, Place | None]]:
    """All parts; those that have no new texture without a place."""
    found = {place.part: place for place in layout.places}
    return [(part, found.get(index)) for index, part in enumerate(layout.asset.parts)]


def _ply(layout: Layout, pictures: Sequence[UInt8[np.ndarray, "S S 3"]]) -> bytes:
    """All parts as one mesh, with their vertices as they are; where an atlas cuts at one, its colour is the mean."""
    vertices, faces, colours = [], [], []
    start = 0
    for part, place in _places(layout):
        vertices.append(part.vertices @ Z_UP)  # the inverse of what reading such a file did
        faces.append(part.faces + start)
        colours.append(_vertex_colours(part, place, pictures))
        start += len(part.vertices)
    points, rgb = np.concatenate(vertices), np.concatenate(colours)
    if (step := abs(points).max() * SINGLE) > ROUNDED * np.ptp(points, axis=0).max():
        host.warn(f"the .ply holds coordinates in single precision, which has steps of {step:.1g} there; .obj has more")
    rgba = np.concatenate([(rgb.clip(0, 1) * 255).round(), np.full((len(rgb), 1), 255)], axis=1).astype(np.uint8)
    mesh = trimesh.Trimesh(points, np.concatenate(faces), vertex_colors=rgba, process=False)
    return mesh.export(file_type="ply")


def _vertex_colours(
    part: Part, place: Place | None, pictures: Sequence[UInt8[np.ndarray, "S S 3"]]
) -> Float[np.ndarray, "N 3"]:
    """A part's colours at its vertices, in sRGB."""
    count = len(part.vertices)
    if place is None:
        own = np.arange(count)[:, None] * np.ones(3, np.int64)
        return linear_to_srgb(part.colour.at(own, np.tile([1.0, 0.0, 0.0], (count, 1)))[:, :3])
    light = bilinear(_opaque(pictures[place.texture]), place.uv, CLAMPED)[:, :3]
    if place.source is not None:
        shares = np.bincount(place.source, minlength=count).clip(min=1)[:, None]
        sums = [np.bincount(place.source, light[:, channel], count) for channel in range(3)]
        light = np.stack(sums, axis=1) / shares
    return linear_to_srgb(light)


def _opaque(rgb: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "S S 4"]:
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=2)


def _save_obj(layout: Layout, pictures: Sequence[UInt8[np.ndarray, "S S 3"]], path: Path) -> list[Path]:
    materials, images = _Materials(path.stem), [Image.fromarray(np.asarray(picture)) for picture in pictures]
    rows = [f"mtllib {path.stem}.mtl"]
    # for the parts that keep some; the format has none for a part alone
    coloured = any(part.colour.vertex is not None for part, place in _places(layout) if place is None)
    starts = np.ones(3, np.int64)  # of vertices, coordinates and normals: the format counts from 1, through all parts
    for part, place in _places(layout):
        uv, uv_faces = part.colour.uv, part.faces
        picture, factor, light = _shown(part)
        if place is not None:
            uv, uv_faces, picture = place.uv, place.faces, images[place.texture]
            factor, light = np.ones(4), np.ones_like(light)
        values, slots = part.vertices, [_digits(part.vertices)] * 3
        if coloured:
            values, slots = np.concatenate([values, linear_to_srgb(light)], axis=1), [*slots, *["%.5g"] * 3]
        rows += [f"o {_word(part.name)}", *_lines("v", values, slots)]
        corners, slot = [part.faces + starts[0]], "%d"
        if uv is not None:
            rows += _lines("vt", np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1), ["%.7g"] * 2)
            corners, slot = [*corners, uv_faces + starts[1]], slot + "/%d"
        if part.normals is not None:
            rows += _lines("vn", part.normals, ["%.6g"] * 3)
            corners, slot = [*corners, part.faces + starts[2]], slot + ("/%d" if uv is not None else "//%d")
        rows.append(f"usemtl {materials.name(picture if uv is not None else None, factor)}")
        rows += _lines("f", np.stack(corners, axis=2).reshape(len(part.faces), -1), [slot] * 3)
        starts += [len(part.vertices), 0 if uv is None else len(uv), 0 if part.normals is None else len(part.normals)]
    written = materials.write(path.parent)
    write_text(path, "\n".join(rows) + "\n")  # last: it needs the others
    return [path, *written]


def _shown(part: Part) -> tuple[Image.Image | None, Float[np.ndarray, "4"], Float[np.ndarray, "N 3"]]:
    """A part's own picture, its material's factor, and its vertices' colours, in linear light.

    Without a picture the vertices have all of the colour, and the material their mean, for programs that know no colours
    of vertices.
    """
    colour = part.colour
    light = np.ones((len(part.vertices), 3)) if colour.vertex is None else colour.vertex[:, :3]
    if colour.picture is not None:
        return colour.picture, colour.factor, light
    light = light * colour.factor[:3]
    return None, np.array([*light.mean(axis=0), colour.factor[3]]), light


def _digits(points: Float[np.ndarray, "N 3"]) -> str:
    """The format of coordinates: nine digits, and more for a mesh that is far from the origin, as on a map."""
    extent = max(float(np.ptp(points, axis=0).max()), 1e-300)
    return f"%.{min(17, 9 + max(0, math.ceil(math.log10(max(abs(points).max() / extent, 1)))))}g"


def _lines(start: str, values: Shaped[np.ndarray, "N k"], slots: Sequence[str]) -> list[str]:
    """A line for each row."""
    pattern = f"{start} {' '.join(slots)}"
    return [pattern % tuple(row) for row in values.tolist()]


def _word(name: str) -> str:
    """A name as one word."""
    return "_".join("".join(c if c.isprintable() else " " for c in name).split()) or "part"


class _Materials:
    """The materials of an .obj: one for each picture and colour, and their files."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.known: list[tuple[Image.Image | None, tuple[float, ...]]] = []

    def name(self, picture: Image.Image | None, factor: Float[np.ndarray, "4"]) -> str:
        """The name of the material with a picture and a factor, in linear light."""
        kind = (picture, tuple(np.round(factor, 6).tolist()))
        found = [number for number, other in enumerate(self.known) if other[0] is picture and other[1] == kind[1]]
        if not found:
            self.known.append(kind)
        return f"surface_{found[0] if found else len(self.known) - 1}"

    def write(self, folder: Path) -> list[Path]:
        """Write the .mtl and its pictures; returns them."""
        lines, files = [], {}
        for number, (picture, factor) in enumerate(self.known):
            shown = linear_to_srgb(np.array(factor[:3]))
            lines += [f"newmtl surface_{number}", "Ka 0 0 0", "Ks 0 0 0", "illum 1"]
            lines.append("Kd " + " ".join(f"{value:.6f}" for value in shown))
            lines += [f"d {factor[3]:.6f}"] if factor[3] != 1 else []
            if picture is not None:
                if id(picture) not in files:
                    files[id(picture)] = folder / f"{self.stem}{f'_{len(files)}' if files else ''}.png"
                    with atomic_write(files[id(picture)]) as beside:
                        picture.save(beside)
                lines.append(f"map_Kd {files[id(picture)].name}")
        path = folder / f"{self.stem}.mtl"
        write_text(path, "\n".join(lines) + "\n")
        return [path, *files.values()]
