"""Colours and surfaces of the pocket world.

Colours are display values (sRGB, [0, 1]); albedos are functions of the point on the surface, so that a pattern is
painted through the solid and looks the same from every side. Shading lives in `renderer.py`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.52, 0.08),
    "yellow": (0.98, 0.90, 0.18),
    "green": (0.16, 0.66, 0.24),
    "turquoise": (0.20, 0.82, 0.80),
    "blue": (0.14, 0.28, 0.88),
    "purple": (0.54, 0.20, 0.74),
    "pink": (0.98, 0.58, 0.76),
    "white": (0.96, 0.96, 0.96),
    "black": (0.13, 0.13, 0.14),
}
# "plain" is omitted in captions; "golden" is a metal with its own colour and takes no colour word
SURFACES = ("plain", "striped", "checkered", "golden")
GOLD = (0.88, 0.66, 0.20)

STRIPE = 0.30  # period of the bands along z
CHECK = 0.24  # side of a checker cell
_LIGHT, _DARK = 0.95, 0.38  # the second colour of a pattern; dark where the first is white


def second_colour(rgb: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """The second colour of a pattern: white, or grey if the colour itself is nearly white."""
    return torch.where(rgb.amin(-1, keepdim=True) > 0.8, _DARK, _LIGHT).expand_as(rgb)


def albedo(
    surface: str, rgb: Float[Tensor, "N 3"], points: Float[Tensor, "N 3"], phase: Float[Tensor, " N"] | float = 0.0
) -> Float[Tensor, "N 3"]:
    """Colour before shading at points on a solid painted `rgb` with `surface`.

    phase: shifts the pattern, in periods: stripes along z, checks (of a period of two cells) along x, y and z at once.
    """
    if surface in ("plain", "golden"):
        return rgb
    if surface == "striped":
        first = ((points[:, 2] / STRIPE + 0.13 + phase) % 1.0) < 0.5
    elif surface == "checkered":
        # the offset keeps cell borders away from the flat faces of the solids
        shift = 2 * torch.as_tensor(phase, dtype=points.dtype).expand(len(points))[:, None]
        cells = torch.floor(points / CHECK + 0.37 + shift) + 0.0
        first = (cells.sum(-1) % 2) < 1
    else:
        raise OptionError.because(f"unknown surface {surface!r}: expected one of {', '.join(SURFACES)}")
    return torch.where(first[:, None], rgb, second_colour(rgb))
