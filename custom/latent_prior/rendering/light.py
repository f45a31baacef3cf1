"""The light of an overcast day, that of the pocket world's pictures and of clay.

It comes from everywhere, more of it from the sky, some from the viewer, and less of it where a body is near in front of
its own surface. So it depends on place and normal alone, but for the viewer's share.
"""

from jaxtyping import Float
from torch import Tensor

AMBIENT, SKY, VIEWER = 0.42, 0.34, 0.24  # shares of the light; they sum to one
REACH = 0.16  # distance in front of a surface within which the body takes light
SHADE = 0.45  # share of the light that is lost where there is no distance in front of the surface


def open_share(distance: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """The share of the light that arrives; distance: from the body, at the place REACH in front of its surface."""
    return 1 - SHADE + SHADE * (distance / REACH).clamp(0, 1)


def overcast(
    up: Float[Tensor, "*N"], facing: Float[Tensor, "*N"], distance: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """Light on a surface, at most 1.

    up, facing: cosines of its normal with the zenith and with the direction towards the viewer, facing from 0 on.
    """
    return (AMBIENT + SKY * (0.5 + 0.5 * up) + VIEWER * facing) * open_share(distance)
