"""Random views of pictures for CLIP guidance: cropped, mirrored, slightly rotated and tilted.

CLIP also responds to patterns that people cannot see; requiring a match in many views of a picture suppresses them. A
view is a homography M, 3 3, from the view's points to the picture's, in coordinates in which the picture is the square
[-1, 1]^2 (x to the right, y down): the view's pixel at p shows the picture at M p. Outside the picture its border is
repeated.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CROP = (0.85, 1.0)  # side of the visible part, as a fraction of the picture's
AFFINE = 0.05  # largest change of a matrix entry by rotation, stretch or shear
PERSPECTIVE = 0.05  # largest relative shrinking or stretching by a tilt, from the centre to an edge


def draw_views(count: int, generator: torch.Generator | None = None) -> Float[Tensor, "N 3 3"]:
    """`count` random views, drawn on the generator's device (None: torch's global one, on the CPU)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        device = None if generator is None else generator.device
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=device)

    side = uniform(*CROP)
    shift = uniform(-1, 1, 2) * (1 - side)[:, None]
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    views = torch.eye(3, device=side.device).repeat(count, 1, 1)
    views[:, :2, :2] += uniform(-AFFINE, AFFINE, 2, 2)
    views[:, 2, :2] = uniform(-PERSPECTIVE, PERSPECTIVE, 2)
    crop = torch.diag_embed(torch.stack([side * mirror, side, torch.ones_like(side)], -1))
    crop[:, :2, 2] = shift
    return crop @ views


def seen_from(images: Float[Tensor, "N C H W"], views: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N C H W"]:
    """Each picture under its view, resampled bilinearly at its own size; differentiable in the pictures."""
    views = views.to(images)
    identity = torch.eye(2, 3, device=images.device, dtype=images.dtype).repeat(len(images), 1, 1)
    points = F.affine_grid(identity, list(images.shape), align_corners=False)
    points = F.pad(points, (0, 1), value=1.0)
    moved = torch.einsum("nij,nhwj->nhwi", views, points)
    return F.grid_sample(images, moved[..., :2] / moved[..., 2:], padding_mode="border", align_corners=False)
