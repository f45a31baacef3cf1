"""The faces of a cube map by OpenGL's convention: +x, -x, +y, -y, +z, -z, each with coordinates (s, t) in [0, 1].

OpenGL 4.6 core specification, section 8.13, table 8.19.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Per face: the component that s and t follow, and its sign. The face's own axis is face // 2.
AXES = ((2, 1), (2, 1), (0, 2), (0, 2), (0, 1), (0, 1))
SIGNS = ((-1, -1), (1, -1), (1, 1), (1, -1), (1, -1), (-1, -1))


def project(
    direction: Float[Tensor, "P 3"], derivative: Float[Tensor, "P 3 2"] | None = None
) -> tuple[Int[Tensor, "P"], Float[Tensor, "P 2"], Float[Tensor, "P 2 2"] | None, Bool[Tensor, "P"]]:
    """(face, (s, t), its derivatives, whether the direction has a face at all) of directions of any length.

    derivative: of the direction by two variables; the result's are those of s and t by the same ones.
    """
    size = direction.detach().abs()
    x, y, z = size.unbind(1)
    axis = torch.where(z > torch.maximum(x, y), 2, torch.where(y > x, 1, 0))
    proper = direction.detach().isfinite().all(1) & (size.amax(1) > 0)
    direction = torch.where(proper[:, None], direction, torch.ones_like(direction))
    face = 2 * axis + (direction.detach().gather(1, axis[:, None])[:, 0] < 0)

    axes = torch.tensor(AXES, device=face.device)[face]
    signs = torch.tensor(SIGNS, device=face.device)[face].to(direction.dtype)
    outwards = 1 - 2 * (face % 2)[:, None].to(direction.dtype)
    depth = outwards * direction.gather(1, axis[:, None])
    ratio = signs * direction.gather(1, axes) / depth  # in [-1, 1]
    if derivative is not None:
        of_sides = signs[..., None] * derivative.gather(1, axes[..., None].expand(-1, -1, 2))
        of_depth = outwards[..., None] * derivative.gather(1, axis[:, None, None].expand(-1, -1, 2))
        derivative = (of_sides - ratio[..., None] * of_depth) / depth[..., None] / 2
    return face, ratio / 2 + 0.5, derivative, proper


def directions(face: Int[Tensor, "P"], ratio: Float[Tensor, "P 2"]) -> Float[Tensor, "P 3"]:
    """The points at 2 (s, t) - 1 = `ratio` of the cube's faces: the inverse of `project`, where `ratio` is in [-1, 1]."""
    out = ratio.new_zeros(len(face), 3)
    out.scatter_(1, (face // 2)[:, None], (1 - 2 * (face % 2))[:, None].to(ratio.dtype))
    signs = torch.tensor(SIGNS, device=face.device)[face]
    return out.scatter_(1, torch.tensor(AXES, device=face.device)[face], ratio * signs)


def texel_directions(size: int, device: torch.device | None = None) -> Float[Tensor, "6 {size} {size} 3"]:
    """The centres of all texels of a cube of faces with `size` x `size` texels."""
    centres = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    face = torch.arange(6, device=device).repeat_interleave(size**2)
    t, s = torch.cartesian_prod(centres, centres).repeat(6, 1).unbind(1)
    return directions(face, torch.stack([s, t], 1)).reshape(6, size, size, 3)


def neighbouring_texel(
    face: Int[Tensor, "P"], column: Int[Tensor, "P"], row: Int[Tensor, "P"], size: Int[Tensor, "P"]
) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"], Int[Tensor, "P"]]:
    """(face, column, row) of the texel across a face's border, for a column or a row (not both) of -1 or `size`."""
    ratio = (2 * torch.stack([column, row], 1) + 1).double() / size[:, None] - 1
    face, st, _, _ = project(directions(face, ratio))
    column, row = (st * size[:, None]).long().minimum(size[:, None] - 1).unbind(1)
    return face, column, row
