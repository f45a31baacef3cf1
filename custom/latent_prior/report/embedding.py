"""Files as part of a page: pictures made small, films and meshes as they are, up to a size."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from latent_prior.files import write_text
from latent_prior.files.pictures import flattened, read_picture

PICTURE_SIDE = 1024  # pixels at most, as embedded
QUALITY = 88  # of WebP


def picture(file: Path, side: int = PICTURE_SIDE) -> str:
    """A picture file as a data URI, scaled down to `side` pixels, transparent parts on white."""
    return data_uri(flattened(read_picture(file, "report").convert("RGBA")), side)


def data_uri(image: Image.Image, side: int = PICTURE_SIDE) -> str:
    """A picture as a data URI: WebP, or lossless if it is small, where WebP would blur its pixels."""
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    with io.BytesIO() as file:
        image.save(file, "WEBP", quality=QUALITY, lossless=image.width * image.height <= 128 * 128)
        return _uri(file.getvalue(), "image/webp")


def film(file: Path, most: int) -> str | None:
    """An MP4 as a data URI; None if it has more than `most` bytes."""
    return None if file.stat().st_size > most else _uri(file.read_bytes(), "video/mp4")


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> Path:
    """Fill in a template of templates/ and write the page; returns its path."""
    environment = Environment(
        loader=PackageLoader("latent_prior.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template(template).render(values))
    return path
