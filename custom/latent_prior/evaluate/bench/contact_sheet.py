"""The contact sheet: a row per prompt, the ground truth beside each variant's result, from the same cameras.

Every cell has a caption above a strip of views; a red frame marks runs that failed or were not recognised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latent_prior.files.pictures import read_picture

TILE = 96  # default side of a view in pixels
GAP, MARGIN, CAPTION, HEADING = 24, 28, 24, 46
INK, FAINT, RULE, MISSED, PAPER = (28, 30, 34), (112, 118, 128), (222, 225, 230), (196, 48, 43), (255, 255, 255)


@dataclass(frozen=True)
class Cell:
    """A strip of views and its caption."""

    strip: Image.Image | None
    title: str
    note: str = ""
    missed: bool = False


@dataclass(frozen=True)
class Section:
    """Rows under a heading; every row has one cell per column."""

    heading: str
    rows: list[list[Cell]]


def to_strip(pictures: Float[Tensor, "B 3 H W"]) -> Image.Image:
    """Views in [0, 1] side by side, at their original size."""
    row = np.concatenate(list((pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()), axis=1)
    return Image.fromarray(row)


def read_strip(path: Path) -> Image.Image | None:
    """A saved strip; None if there is none."""
    return read_picture(path, "results") if path.is_file() else None


def side_by_side(files: Sequence[Path]) -> Image.Image | None:
    """Pictures of one size from files, as a strip; None if there are none."""
    pictures = [read_picture(path, "results") for path in files]
    if not pictures:
        return None
    return Image.fromarray(np.concatenate([np.asarray(picture.convert("RGB")) for picture in pictures], axis=1))


def draw(sections: Sequence[Section], columns: int, views: int, tile: int = TILE) -> Image.Image:
    """The sheet; strips are scaled to `views` tiles of `tile` x `tile` pixels."""
    width = 2 * MARGIN + columns * views * tile + (columns - 1) * GAP
    row_height = CAPTION + tile + GAP
    height = MARGIN + sum(HEADING + len(section.rows) * row_height for section in sections)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    large, middle, small = (ImageFont.load_default(size) for size in (22, 15, 13))
    y = MARGIN
    for section in sections:
        pen.text((MARGIN, y), section.heading, INK, large)
        pen.line((MARGIN, y + 33, width - MARGIN, y + 33), RULE)
        y += HEADING
        for row in section.rows:
            for column, cell in enumerate(row):
                x = MARGIN + column * (views * tile + GAP)
                end = x + views * tile
                pen.text((x, y), cell.title, INK, middle)
                note = _shortened(pen, cell.note, small, end - x - pen.textlength(cell.title, middle) - 12)
                pen.text((end, y + 2), note, MISSED if cell.missed else FAINT, small, anchor="ra")
                frame = (x, y + CAPTION, end - 1, y + CAPTION + tile - 1)
                if cell.strip is not None:
                    sheet.paste(cell.strip.resize((views * tile, tile), Image.Resampling.LANCZOS), frame[:2])
                pen.rectangle(frame, outline=MISSED if cell.missed else RULE)
            y += row_height
    return sheet


def _shortened(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + " ...", font) > width:
        text = text[:-1]
    return text + " ..."
