"""envlight's `EnvLight` in plain torch, since envlight filters its maps with CUDA's kernels alone.

A picture of the surroundings, by longitude and colatitude, lights a surface by the split-sum approximation (B. Karis,
Real Shading in Unreal Engine 4, 2013): it is filtered beforehand with a cosine lobe for diffuse light, and for glossy
light with GGX lobes of several roughnesses, seen along their axis. y is up, as in envlight, and the picture's middle is
-z.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from latent_prior import OptionError
from latent_prior.rasteriser import cube_maps, texturing

ROUGHNESSES = (0.08, 0.29, 0.5, 1.0)  # that there are maps for; envlight has two more in the same range
SIZES = (128, 32, 32, 16)  # texels along a face of these maps: at least four across a lobe, at half its height
CHUNK = 512  # texels filtered at a time


class EnvLight(nn.Module):
    """The light of a picture's surroundings, the picture's values times `scale`.

    Raises OptionError if the picture cannot be read.
    """

    def __init__(self, path: str, device: torch.device | None = None, scale: float = 1.0):
        super().__init__()
        cubes = _cubes(_picture(path).to(device) * scale)
        maps = {"diffuse": _filtered(cubes[16], lambda cosine: cosine)}
        maps["glossy_0"] = cubes[SIZES[0]]  # whose texels are as wide as the lobe
        for number in range(1, len(SIZES)):
            maps[f"glossy_{number}"] = _filtered(cubes[SIZES[number]], _ggx_lobe(ROUGHNESSES[number]))
        for name, cube in maps.items():
            self.register_buffer(name, cube, persistent=False)

    def forward(
        self, directions: Float[Tensor, "*B 3"], roughness: Float[Tensor, "*B 1"] | None = None
    ) -> Float[Tensor, "*B 3"]:
        """Diffuse light for normals, or with a roughness glossy light for reflected directions."""
        places = directions.reshape(1, 1, -1, 3)
        if roughness is None:
            light = texturing.texture(self.diffuse, places, filter_mode="linear", boundary_mode="cube")
        else:
            base, *mip = (getattr(self, f"glossy_{number}") for number in range(len(SIZES)))
            level = _level(roughness.reshape(1, 1, -1))
            light = texturing.texture(base, places, mip=mip, mip_level_bias=level, boundary_mode="cube")
        return light.reshape(directions.shape)


def _level(roughness: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """The number of the map for a roughness, with what lies between two of them linear."""
    return torch.stack([((roughness - low) / (high - low)).clamp(0, 1) for low, high in pairwise(ROUGHNESSES)]).sum(0)


def _picture(path: str) -> Float[Tensor, "h w 3"]:
    """The picture in RGB; whole numbers are divided by 255, as envlight does."""
    import cv2  # threestudio's, not ours

    picture = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if picture is None:
        raise OptionError(
            "system.material.environment_texture", path, "a picture's path from here, for example to .hdr"
        )
    values = torch.from_numpy(picture[..., ::-1].astype(np.float32))
    return values if picture.dtype.kind == "f" else values / 255


def _cubes(picture: Float[Tensor, "h w 3"]) -> dict[int, Float[Tensor, "1 6 size size 3"]]:
    """The picture as cube maps of the sizes 256, 128, ..., by size."""
    finest = 256  # with as many texels at the horizon as the usual 1024 pixels
    x, y, z = nn.functional.normalize(cube_maps.texel_directions(finest, picture.device), dim=-1).unbind(-1)
    column, row = torch.atan2(x, -z) / (2 * math.pi) + 0.5, torch.acos(y.clamp(-1, 1)) / math.pi
    row = row.clamp(0.5 / len(picture), 1 - 0.5 / len(picture))  # it goes on at its sides, but not above its poles
    uv = torch.stack([column, row], -1).flatten(0, 1)[None]
    cube = texturing.texture(picture[None].contiguous(), uv, filter_mode="linear").unflatten(1, (6, finest))
    return {level.shape[2]: level for level in (cube, *texturing.texture_construct_mip(cube, cube_mode=True))}


Lobe = Callable[[Tensor], Tensor]  # of the cosine of the angle to its axis, from 0 to 1


def _ggx_lobe(roughness: float) -> Lobe:
    """The density of a view's reflections when it looks along the normal, times their cosine, up to a factor.

    B. Walter et al., Microfacet Models for Refraction through Rough Surfaces, 2007, equation 33; alpha is the roughness
    squared, as Karis has it, and the halfway vector's cosine squared is (1 + cosine) / 2.
    """
    squared = roughness**4
    return lambda cosine: cosine / ((1 + cosine) / 2 * (squared - 1) + 1).square()


def _filtered(cube: Float[Tensor, "1 6 s s 3"], lobe: Lobe) -> Float[Tensor, "1 6 s s 3"]:
    """The mean of the map over a lobe around each texel's direction, by a sum over all texels."""
    directions = cube_maps.texel_directions(cube.shape[2], cube.device).reshape(-1, 3)
    solid_angles = directions.norm(dim=1) ** -3  # up to a factor
    directions = nn.functional.normalize(directions, dim=1)
    rows = []
    for axes in directions.split(CHUNK):
        weights = lobe((axes @ directions.T).clamp(0, 1)) * solid_angles
        rows.append(weights @ cube.reshape(-1, 3) / weights.sum(1, keepdim=True))
    return torch.cat(rows).reshape(cube.shape)
