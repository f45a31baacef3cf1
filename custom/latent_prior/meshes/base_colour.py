"""The base colour of a part of a glTF scene: factor, texture and vertex colours, multiplied in linear light.

Texture coordinates are glTF's: the origin is at the top left of the picture, v points down.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from latent_prior import OptionError, host
from latent_prior.files import pictures, shown
from latent_prior.meshes.files import srgb_to_linear
from latent_prior.meshes.gltf import Document, inner, numbers, text, whole
from latent_prior.meshes.nodes import vertex_data

WRAPS = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
LINEAR = srgb_to_linear(np.arange(256) / 255).astype(np.float32)
BAND = 1 << 18  # points sampled at a time
GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"  # an older description of a material, with a texture of its own
TRANSFORM = "KHR_texture_transform"
_CONVERTED: dict[int, np.ndarray] = {}  # see _rgba; by the picture's identity, since it has no hash


@dataclass(frozen=True, eq=False)
class BaseColour:
    """The base colour of a part.

    factor: RGBA in linear light, without effect if it is 1. picture: the texture in sRGB, RGB or RGBA; None: white. uv:
    where each vertex reads it, after the material's texture transform. wrap: clamp, mirror or repeat, along u and v.
    vertex: RGBA in linear light, or None. alpha: OPAQUE, MASK or BLEND, as in glTF.
    """

    factor: Float[np.ndarray, "4"]
    picture: Image.Image | None
    uv: Float[np.ndarray, "N 2"] | None
    wrap: tuple[str, str]
    vertex: Float[np.ndarray, "N 4"] | None
    alpha: str

    @property
    def is_plain(self) -> bool:
        """Whether it is the same everywhere."""
        return self.picture is None and self.vertex is None

    def content(self) -> Iterator[bytes]:
        """All that it is made of, for a digest."""
        yield repr((self.wrap, self.factor.tolist(), self.picture and self.picture.size)).encode()
        for rows in (self.uv, self.vertex, self.picture and _rgba(self.picture)):
            yield b"" if rows is None else rows.tobytes()

    def at(self, corners: Int[np.ndarray, "K 3"], weights: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 4"]:
        """RGBA in linear light at points of triangles: the corners' vertices, and the point's weights of them.

        The texture is read between the centres of its four nearest texels.
        """
        found = np.empty((len(corners), 4), np.float32)
        pixels = None if self.picture is None else _rgba(self.picture)
        for start in range(0, len(corners), BAND):
            rows = slice(start, start + BAND)
            share = weights[rows, :, None]
            color = np.broadcast_to(self.factor, (len(share), 4))
            if self.vertex is not None:
                color = color * (share * self.vertex[corners[rows]]).sum(axis=1)
            if pixels is not None and self.uv is not None:
                color = color * bilinear(pixels, (share * self.uv[corners[rows]]).sum(axis=1), self.wrap)
            found[rows] = color
        return found


def _rgba(picture: Image.Image) -> UInt8[np.ndarray, "H W 4"]:
    """A picture's texels, which are kept as long as it is: converting a large one takes longer than reading it."""
    if (key := id(picture)) not in _CONVERTED:
        _CONVERTED[key] = np.asarray(picture.convert("RGBA"))
        weakref.finalize(picture, _CONVERTED.pop, key)
    return _CONVERTED[key]


def bilinear(
    pixels: UInt8[np.ndarray, "H W 4"], uv: Float[np.ndarray, "K 2"], wrap: tuple[str, str]
) -> Float[np.ndarray, "K 4"]:
    """RGBA in linear light of a picture in sRGB, between the centres of the four texels nearest to each coordinate."""
    size = pixels.shape[1::-1]
    place = uv * np.array(size) - 0.5
    low = np.floor(place)
    share = place - low
    columns, rows = ([_wrapped(low[:, axis] + step, size[axis], wrap[axis]) for step in (0, 1)] for axis in range(2))
    result = np.zeros((len(uv), 4))
    for down in range(2):
        for right in range(2):
            weight = (share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1])
            texel = pixels[rows[down], columns[right]]
            result[:, :3] += weight[:, None] * LINEAR[texel[:, :3]]
            result[:, 3] += weight * (texel[:, 3] / 255)
    return result


def _wrapped(index: Float[np.ndarray, " K"], size: int, wrap: str) -> Int[np.ndarray, " K"]:
    if wrap == "clamp":
        return index.clip(0, size - 1).astype(np.int64)
    period = size if wrap == "repeat" else 2 * size
    index = np.mod(index, period).astype(np.int64) % period
    return index if wrap == "repeat" else np.where(index < size, index, period - 1 - index)


def texture_info(material: dict[str, Any]) -> dict[str, Any]:
    """What a material says of its base colour texture; empty if it has none."""
    if glossy := inner(material, "extensions", GLOSSINESS):
        return inner(glossy, "diffuseTexture")
    return inner(material, "pbrMetallicRoughness", "baseColorTexture")


def texture_set(info: dict[str, Any]) -> int:
    """The number of the TEXCOORD that a texture is read with."""
    transformed = inner(info, "extensions", TRANSFORM)
    return whole(transformed if "texCoord" in transformed else info, "texCoord", "a texture", 0, most=99)


def read_base_colour(
    document: Document, primitive: dict[str, Any], count: int, opened: dict[Any, Image.Image | None]
) -> BaseColour:
    """The base colour of a primitive of `count` vertices. opened: pictures by their image's index, to be shared.

    A texture that cannot be read is left out, with a warning.
    """
    attributes = inner(primitive, "attributes")
    material = document.entry("materials", primitive["material"]) if "material" in primitive else {}
    glossy = inner(material, "extensions", GLOSSINESS)
    owner, key = (glossy, "diffuseFactor") if glossy else (inner(material, "pbrMetallicRoughness"), "baseColorFactor")
    factor = numbers(owner, key, [1, 1, 1, 1], "a material").clip(0, 1)
    vertex = None
    if "COLOR_0" in attributes:
        vertex = document.accessor(attributes["COLOR_0"]).astype(np.float64)
        if vertex.shape not in ((count, 3), (count, 4)) or not np.isfinite(vertex).all():
            raise OptionError.because(
                f"COLOR_0 has the shape {vertex.shape}; expected finite colours of {count} vertices"
            )
        vertex = np.concatenate([vertex, np.ones((count, 4 - vertex.shape[1]))], axis=1).clip(0, 1)
    info = texture_info(material)
    picture, uv, wrap = None, None, ("repeat", "repeat")
    if info:
        uv = vertex_data(document, attributes, f"TEXCOORD_{texture_set(info)}", (2,), count)
        if uv is not None:
            texture = document.entry("textures", info.get("index"))
            picture, wrap = _picture(document, texture, opened), _wrap(document, texture)
            uv = _transformed(uv, inner(info, "extensions", TRANSFORM))
            if not np.isfinite(uv).all() or abs(uv).max() > 1e9:
                picture = None
    alpha = text(material, "alphaMode")
    return BaseColour(factor, picture, uv, wrap, vertex, alpha if alpha in ("MASK", "BLEND") else "OPAQUE")


def _picture(document: Document, texture: dict[str, Any], opened: dict[Any, Image.Image | None]) -> Image.Image | None:
    # of several the one that can be read for certain; a last one, such as KTX2, has its refusal shown
    formats = [inner(texture, "extensions", name) for name in ("EXT_texture_avif", "KHR_texture_basisu")]
    owners = (inner(texture, "extensions", "EXT_texture_webp"), texture, *formats)
    source = next((owner["source"] for owner in owners if "source" in owner), None)
    if source is None:
        return None
    data, name = document.image_bytes(source), f"images[{source}]"
    if source not in opened:
        try:
            opened[source] = pictures.from_bytes(data, name)
        except OptionError as error:
            host.warn(f"a texture is taken as white: {shown(str(error), 200)}")
            opened[source] = None
    return opened[source]


def _wrap(document: Document, texture: dict[str, Any]) -> tuple[str, str]:
    sampler = document.entry("samplers", texture["sampler"]) if "sampler" in texture else {}
    first, second = (WRAPS.get(whole(sampler, key, "a sampler", 10497), "repeat") for key in ("wrapS", "wrapT"))
    return first, second


def _transformed(uv: Float[np.ndarray, "N 2"], transform: dict[str, Any]) -> Float[np.ndarray, "N 2"]:
    """Texture coordinates as KHR_texture_transform places them: scaled, turned, moved."""
    if not transform:
        return uv
    (angle,) = numbers({"rotation": [transform.get("rotation", 0)]}, "rotation", [0], TRANSFORM)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scale, offset = (
        numbers(transform, key, default, TRANSFORM) for key, default in (("scale", [1, 1]), ("offset", [0, 0]))
    )
    return (uv * scale) @ turn.T + offset
