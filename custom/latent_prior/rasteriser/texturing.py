"""Textures, sampled with nvdiffrast's filters and boundaries.

Texel (row, column) of a texture has its centre at uv = ((column + 1/2) / width, (row + 1/2) / height). A texture with
mip levels keeps all texels of all levels in one table, so that pixels of different levels are looked up at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent_prior.rasteriser import cube_maps

FILTERS = ("auto", "nearest", "linear", "linear-mipmap-nearest", "linear-mipmap-linear")
BOUNDARIES = ("wrap", "clamp", "zero", "cube")
Texture = Float[Tensor, "M h w C"] | Float[Tensor, "M 6 h h C"]


def texture(
    tex: Texture,
    uv: Float[Tensor, "B H W 2"] | Float[Tensor, "B H W 3"],
    uv_da: Float[Tensor, "B H W 4"] | Float[Tensor, "B H W 6"] | None = None,
    mip_level_bias: Float[Tensor, "B H W"] | None = None,
    mip: Sequence[Tensor] | None = None,
    filter_mode: str = "auto",
    boundary_mode: str = "wrap",
    max_mip_level: int | None = None,
) -> Float[Tensor, "B H W C"]:
    """The texture at `uv` of each pixel. Gradients reach `tex`, `uv`, `uv_da`, `mip_level_bias` and `mip`.

    tex: one texture for all pictures (M = 1) or one for each (M = B); six faces with `boundary_mode` "cube".
    uv: texture coordinates, or directions into a cube map; those without a face (zero, not finite) give zero.
    uv_da: derivatives of each coordinate by X and Y, as from `interpolate`; they choose the mip level.
    mip_level_bias: is added to the level, or is the level if there is no `uv_da`.
    mip: levels 1, 2, ...; None: made of `tex`.
    filter_mode: "auto" is "linear-mipmap-linear" with `uv_da` or `mip_level_bias`, else "linear".
    max_mip_level: the last level that is made; None: that of one texel.
    """
    cube = boundary_mode == "cube"
    if filter_mode not in FILTERS or boundary_mode not in BOUNDARIES:
        raise ValueError(f"modes {filter_mode!r}, {boundary_mode!r}; expected one of {FILTERS} and one of {BOUNDARIES}")
    if (tex.ndim, uv.shape[-1]) != ((5, 3) if cube else (4, 2)) or len(tex) not in (1, len(uv)):
        raise ValueError(f"tex is {tuple(tex.shape)} and uv {tuple(uv.shape)}, which do not fit with {boundary_mode!r}")
    levelled = uv_da is not None or mip_level_bias is not None
    if filter_mode == "auto":
        filter_mode = "linear-mipmap-linear" if levelled else "linear"
    with_mip = "mipmap" in filter_mode and max_mip_level != 0
    if with_mip and not levelled:
        raise ValueError(f"filter_mode {filter_mode!r} needs uv_da or mip_level_bias")

    views, height, width, channels = *uv.shape[:3], tex.shape[-1]
    where, derivative = uv.reshape(-1, uv.shape[-1]), None if uv_da is None else uv_da.reshape(-1, uv.shape[-1], 2)
    sheet = torch.arange(views, device=uv.device).repeat_interleave(height * width) % len(tex)
    proper = None
    if cube:
        face, where, derivative, proper = cube_maps.project(where, derivative)
        sheet = 6 * sheet + face
    levels = [tex]
    if with_mip:
        levels += texture_construct_mip(tex, max_mip_level, cube) if mip is None else mip
    table = _Texels.of(levels, boundary_mode)

    if filter_mode == "nearest":
        out = table.nearest(sheet, where)
    elif not with_mip:
        out = table.linear(torch.zeros_like(sheet), sheet, where)
    else:
        level = _mip_level(derivative, mip_level_bias, table)
        lower = level.detach().long()
        if filter_mode == "linear-mipmap-nearest":
            out = table.linear(lower, sheet, where)
        else:
            both = torch.cat([lower, (lower + 1).clamp(max=len(levels) - 1)])
            out, upper = table.linear(both, sheet.repeat(2), where.repeat(2, 1)).chunk(2)
            out = torch.lerp(out, upper, (level - lower)[:, None].to(out.dtype))
    if proper is not None:
        out = torch.where(proper[:, None], out, torch.zeros_like(out))
    return out.reshape(views, height, width, channels)


def texture_construct_mip(tex: Texture, max_mip_level: int | None = None, cube_mode: bool = False) -> list[Tensor]:
    """Mip levels 1, 2, ... down to one texel, or to `max_mip_level`: means of two by two texels of the level before.

    A side of one texel stays. ValueError for a side that cannot be halved.
    """
    levels: list[Tensor] = []
    last = tex
    while (sides := last.shape[-3:-1]) != (1, 1) and len(levels) != max_mip_level:
        if any(side > 1 and side % 2 for side in sides):
            raise ValueError(
                f"mip level {len(levels)} has {sides[0]} x {sides[1]} texels; expected even sides: use powers of two, "
                "or set max_mip_level"
            )
        for axis, side in zip((-3, -2), sides, strict=True):
            if side > 1:
                last = last.unflatten(axis, (-1, 2)).mean(axis)
        levels.append(last)
    return levels


def _mip_level(
    derivative: Float[Tensor, "P 2 2"] | None, bias: Float[Tensor, "B H W"] | None, table: "_Texels"
) -> Float[Tensor, "P"]:
    """log2 of the longer axis, in texels, of the ellipse that a pixel covers in the texture; plus bias; clamped."""
    level: Tensor | float = 0.0
    if derivative is not None:
        tiny = torch.finfo(derivative.dtype).tiny
        in_texels = derivative * torch.stack([table.widths[0], table.heights[0]])[:, None]
        a, b = in_texels.square().sum(1).unbind(1)
        c = in_texels.prod(2).sum(1)
        # the larger eigenvalue of (a c; c b); clamped, since the root of 0 and its logarithm have no gradient
        squared_length = (a + b) / 2 + ((a - b).square() / 4 + c.square()).clamp(min=tiny).sqrt()
        level = squared_length.log2() / 2
    if bias is not None:
        level = level + bias.reshape(-1)
    assert isinstance(level, Tensor)
    return level.clamp(0, len(table.starts) - 1)


@dataclass(frozen=True)
class _Texels:
    """The texels of all levels, one after the other, and per level the first one's number and the size in texels.

    Within a level they go sheet by sheet (a picture of the batch, or a face of its cube), row by row.
    """

    texels: Float[Tensor, "T C"]
    starts: Int[Tensor, "L"]
    heights: Int[Tensor, "L"]
    widths: Int[Tensor, "L"]
    boundary: str

    @classmethod
    def of(cls, levels: Sequence[Tensor], boundary: str) -> "_Texels":
        tables = [level.reshape(-1, level.shape[-1]) for level in levels]
        counts = torch.tensor([[len(t), *level.shape[-3:-1]] for t, level in zip(tables, levels, strict=True)])
        sizes, heights, widths = counts.to(levels[0].device).T
        texels = tables[0] if len(tables) == 1 else torch.cat(tables)
        return cls(texels, sizes.cumsum(0) - sizes, heights, widths, boundary)

    def nearest(self, sheet: Int[Tensor, "P"], uv: Float[Tensor, "P 2"]) -> Float[Tensor, "P C"]:
        """The texel of level 0 that contains each point."""
        height, width = self.heights[0], self.widths[0]
        inside = uv - uv.floor() if self.boundary == "wrap" else uv
        column, row = (inside.detach() * torch.stack([width, height])).floor().long().unbind(1)
        known = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = self._at(torch.zeros_like(sheet), sheet, column, row)
        return found * known[:, None] if self.boundary == "zero" else found

    def linear(
        self, level: Int[Tensor, "P"], sheet: Int[Tensor, "P"], uv: Float[Tensor, "P 2"]
    ) -> Float[Tensor, "P C"]:
        """Bilinear interpolation of the four texels around each point, each in its level."""
        size = torch.stack([self.widths[level], self.heights[level]], 1)
        if self.boundary == "wrap":
            uv = uv - uv.floor()
        at = uv * size - 0.5
        first = at.detach().floor()
        right, up = (at - first).to(self.texels.dtype).split(1, dim=1)
        column, row = first.long().repeat(4, 1).unbind(1)  # all four in one look-up, which has one gradient
        column += torch.tensor([0, 1, 0, 1], device=column.device).repeat_interleave(len(uv))
        row += torch.tensor([0, 0, 1, 1], device=row.device).repeat_interleave(len(uv))
        texels, beyond = self._around(level.repeat(4), sheet.repeat(4), column, row)
        a, b, c, d = texels.chunk(4)
        if self.boundary == "cube":  # at a cube's corner three texels meet: the fourth is their mean
            known = a + b + c + d
            a, b, c, d = (
                torch.where(corner[:, None], (known - texel) / 3, texel)
                for texel, corner in zip((a, b, c, d), beyond.chunk(4), strict=True)
            )
        return torch.lerp(torch.lerp(a, b, right), torch.lerp(c, d, right), up)

    def _around(
        self, level: Int[Tensor, "P"], sheet: Int[Tensor, "P"], column: Int[Tensor, "P"], row: Int[Tensor, "P"]
    ) -> tuple[Float[Tensor, "P C"], Bool[Tensor, "P"]]:
        """The texels at these places, continued beyond the boundary, and whether that is beyond a face's corner."""
        width, height = self.widths[level], self.heights[level]
        beside, above = (column < 0) | (column >= width), (row < 0) | (row >= height)
        if self.boundary == "wrap":
            column, row = column % width, row % height
        elif self.boundary == "cube":
            out = (beside ^ above).nonzero().squeeze(1)
            face, *place = cube_maps.neighbouring_texel(sheet[out] % 6, column[out], row[out], width[out])
            sheet = sheet.index_copy(0, out, sheet[out] // 6 * 6 + face)
            column, row = (old.index_copy(0, out, new) for old, new in zip((column, row), place, strict=True))
        texels = self._at(level, sheet, column, row)
        if self.boundary == "zero":
            texels = texels * ~(beside | above)[:, None]
        return texels, beside & above

    def _at(
        self, level: Int[Tensor, "P"], sheet: Int[Tensor, "P"], column: Int[Tensor, "P"], row: Int[Tensor, "P"]
    ) -> Float[Tensor, "P C"]:
        """The texels at these places, or the nearest ones inside."""
        width, height = self.widths[level], self.heights[level]
        column, row = column.clamp(min=0).minimum(width - 1), row.clamp(min=0).minimum(height - 1)
        return self.texels.index_select(0, self.starts[level] + (sheet * height + row) * width + column)
