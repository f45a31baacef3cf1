"""Regularisers of fields, each a scalar of order one, so that weights mean the same at any picture size."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from latent_prior import OptionError

Term = Callable[[dict[str, Tensor], Any, float], Float[Tensor, ""]]
# World units over which a field that is held to a guide is to be opaque. About one and a half of the renderer's steps
# and two voxels of the shipped configs, but fixed, so that the weight means the same at any resolution.
THICKNESS = 0.05
LEAST_ALPHA = 1e-6  # added where a logarithm needs it


def sparsity(opacity: Float[Tensor, "B H W 1"]) -> Float[Tensor, ""]:
    """Mean of sqrt(o^2 + 0.01): less visible matter (Latent-NeRF, as in threestudio)."""
    return (opacity**2 + 0.01).sqrt().mean()


def opaque(opacity: Float[Tensor, "B H W 1"]) -> Float[Tensor, ""]:
    """Mean binary entropy of the opacity in nats: rays hit or miss, nothing in between (Latent-NeRF)."""
    o = opacity.clamp(1e-3, 1 - 1e-3)
    return -(o * o.log() + (1 - o) * (1 - o).log()).mean()


def emptiness(weights: Float[Tensor, "N 1"], scale: float) -> Float[Tensor, ""]:
    """Mean of log(1 + scale * w) over the samples: matter on few samples (Score Jacobian Chaining, eq. 12)."""
    return torch.log1p(scale * weights).mean()


def orientation(
    weights: Float[Tensor, "N 1"], normal: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"]
) -> Float[Tensor, ""]:
    """Mean of w * max(0, n . d)^2 over the samples with any weight: visible surfaces must face the camera.

    Ref-NeRF's eq. 11 with detached weights; there, and in threestudio, it is summed along each ray instead.
    """
    facing_away = (normal * directions).sum(-1, keepdim=True).clamp(min=0)
    return (weights.detach() * facing_away**2).sum() / (weights.detach() > 0).sum().clamp(min=1)


def total_variation(grid: Float[Tensor, "1 C D H W"]) -> Float[Tensor, ""]:
    """Mean squared difference between neighbouring voxels, averaged over channels and axes."""
    return sum(grid.diff(dim=axis).square().mean() for axis in (2, 3, 4)) / 3


def shape(
    density: Float[Tensor, "N"], inside: Bool[Tensor, "N"], distance: Float[Tensor, "N"], sigma: float
) -> Float[Tensor, ""]:
    """Mean of CE(alpha, inside) (1 - exp(-d^2 / (2 sigma^2))): matter where a guide is solid (Latent-NeRF, sec. 3.4).

    alpha = 1 - exp(-density * THICKNESS). The cross-entropy is that of alpha against the guide's 0 or 1, in nats, and
    counts less the nearer the guide's surface is, at distance d.
    """
    optical = density * THICKNESS
    surprise = torch.where(inside, -torch.log(LEAST_ALPHA - torch.expm1(-optical)), optical)
    return (surprise * -torch.expm1(-(distance**2) / (2 * sigma**2))).mean()


def _needed(out: dict[str, Tensor], key: str, name: str, mend: str) -> Tensor:
    if key not in out:
        raise OptionError.because(f"system.loss.lambda_{name} needs {key} from the renderer: {mend}, or set it to 0")
    return out[key]


def _orient(out: dict[str, Tensor], geometry: Any, emptiness_scale: float) -> Float[Tensor, ""]:
    normal = _needed(out, "normal", "orient", "choose a material or geometry that gives normals in training")
    return orientation(out["weights"], normal, out["t_dirs"])


def _emptiness(out: dict[str, Tensor], geometry: Any, emptiness_scale: float) -> Float[Tensor, ""]:
    return emptiness(_needed(out, "weights", "emptiness", "use a volume renderer"), emptiness_scale)


def _reconstruction(out: dict[str, Tensor], geometry: Any, emptiness_scale: float) -> Float[Tensor, ""]:
    """Mean squared difference of the colours from those that training started from."""
    start = _needed(out, "comp_rgb_before", "reconstruction", "set system.geometry.start=texture for a textured-mesh")
    return F.mse_loss(out["comp_rgb"], start)


def _smooth(name: str, channels: slice) -> Term:
    def term(out: dict[str, Tensor], geometry: Any, emptiness_scale: float) -> Float[Tensor, ""]:
        field = getattr(geometry, "field", geometry)  # a textured mesh's colours are a field's
        if not hasattr(field, "grid"):
            raise OptionError.because(
                f"system.loss.lambda_{name} needs a voxel grid, but the geometry is a {type(field).__name__}: "
                "choose volume-grid for it, or set it to 0"
            )
        return total_variation(field.grid[:, channels])

    return term


# By name in `system.loss` (`lambda_<name>`). Each takes the renderer's output, the geometry and the scale of
# emptiness, and raises OptionError if the renderer or the geometry lacks what it needs.
TERMS: dict[str, Term] = {
    "sparsity": lambda out, *_: sparsity(out["opacity"]),
    "opaque": lambda out, *_: opaque(out["opacity"]),
    "emptiness": _emptiness,
    "orient": _orient,
    "reconstruction": _reconstruction,
    "tv_density": _smooth("tv_density", slice(0, 1)),  # volume-grid's channels: density, then features
    "tv_features": _smooth("tv_features", slice(1, None)),
}
