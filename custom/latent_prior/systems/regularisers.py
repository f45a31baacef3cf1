"""Regularisers of fields, each a scalar of order one, so that weights mean the same at any picture size.

In a run of several processes the mean of a term over them is the term of all their pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.host import ranks

Term = Callable[[dict[str, Tensor], Any, float], Float[Tensor, ""]]
# World units over which a field that is held to a guide is to be opaque. About one and a half of the renderer's steps
# and two voxels of the shipped configs, but fixed, so that the weight means the same at any resolution.
THICKNESS = 0.05
# Of fields of distances: points nearer to the surface than this, in world units, count for its curvature.
BAND = 0.08
# Of fields without voxels: how many samples of a step are looked at, and how far around each, in world units.
STENCILS, STENCIL_STEP = 2048, 0.025
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
    return torch.log1p(scale * weights).mean() * ranks.share(len(weights))


def orientation(
    weights: Float[Tensor, "N 1"], normal: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"]
) -> Float[Tensor, ""]:
    """Mean of w * max(0, n . d)^2 over the samples with any weight: visible surfaces must face the camera.

    Ref-NeRF's eq. 11 with detached weights; there, and in threestudio, it is summed along each ray instead.
    """
    facing_away = (normal * directions).sum(-1, keepdim=True).clamp(min=0)
    visible = (weights.detach() > 0).sum()
    return (weights.detach() * facing_away**2).sum() / visible.clamp(min=1) * ranks.share(visible)


def total_variation(grid: Float[Tensor, "1 C D H W"]) -> Float[Tensor, ""]:
    """Mean squared difference between neighbouring voxels, averaged over channels and axes."""
    return _TotalVariation.apply(grid)


class _TotalVariation(torch.autograd.Function):
    """Its gradient comes with its value: autograd's way through the differences takes five times as long."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor) -> Tensor:
        gradient, total = torch.zeros_like(grid), grid.new_zeros(())
        for axis in (2, 3, 4):
            last = grid.shape[axis] - 1
            step = grid.narrow(axis, 1, last) - grid.narrow(axis, 0, last)
            total += step.square().mean() / 3
            gradient.narrow(axis, 1, last).add_(step, alpha=2 / (3 * step.numel()))
            gradient.narrow(axis, 0, last).sub_(step, alpha=2 / (3 * step.numel()))
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * upstream


@dataclass(frozen=True)
class Stencil:
    """Distances f at points, and a step further along each of three axes, forwards and backwards; all of one shape."""

    here: Tensor
    forwards: Sequence[Tensor]
    backwards: Sequence[Tensor]
    step: float


def eikonal(around: Stencil) -> Float[Tensor, ""]:
    """Mean of (|grad f| - 1)^2: distances, and not any function with that surface (IGR, Gropp et al. 2020, eq. 2)."""
    slope = sum(((there - around.here) / around.step).square() for there in around.forwards)
    return ((slope + 1e-9).sqrt() - 1).square().mean() * ranks.share(slope.numel())


def curvature(around: Stencil) -> Float[Tensor, ""]:
    """Mean of |laplacian f| * step near the surface: how much it bends from one point to the next (Neuralangelo's
    L_curv, Li et al. 2023, eq. 9, which is not multiplied by the step)."""
    neighbours = (*around.forwards, *around.backwards)
    bend = ((sum(neighbours) - len(neighbours) * around.here) / around.step).abs()
    near = around.here.detach().abs() < BAND
    return (bend * near).sum() / near.sum().clamp(min=1) * ranks.share(near.sum())


def voxel_stencil(grid: Float[Tensor, "1 1 D H W"], spacing: float) -> Stencil:
    """At all voxels that are not at the border."""

    def moved(axis: int, step: int) -> Tensor:
        window = [slice(1, -1)] * 3
        window[axis] = slice(1 + step, grid.shape[2 + axis] - 1 + step)
        return grid[0, 0][tuple(window)]

    forwards, backwards = ([moved(axis, step) for axis in range(3)] for step in (1, -1))
    return Stencil(moved(0, 0), forwards, backwards, spacing)


def sample_stencil(distance: Callable[[Tensor], Tensor], points: Float[Tensor, "N 3"], step: float) -> Stencil:
    """At points of space; distance: (..., 3) to (..., 1)."""
    steps = step * torch.eye(3, dtype=points.dtype, device=points.device)
    moved = torch.stack([torch.zeros_like(steps[:1]).expand(3, -1), steps, -steps])  # 3 3 3
    values = distance(points[:, None, None] + moved)[..., 0]
    return Stencil(values[:, 0, 0], values[:, 1].unbind(1), values[:, 2].unbind(1), step)


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


def _stencil(out: dict[str, Any], geometry: Any, name: str) -> Stencil:
    """Made once for the terms of a step, which share its place in `out`."""
    if "stencil" not in out:
        out["stencil"] = _new_stencil(out, geometry, name)
    return out["stencil"]


def _new_stencil(out: dict[str, Any], geometry: Any, name: str) -> Stencil:
    if hasattr(geometry, "distances"):
        return voxel_stencil(geometry.distances(), geometry.spacing)
    points = _needed(out, "points", name, "use a volume renderer")
    distance = _needed(out, "sdf", name, "choose sdf-grid or implicit-sdf for the geometry")
    near = (distance.detach()[:, 0].abs() < BAND).nonzero()[:, 0]
    chosen = near if len(near) else torch.arange(len(points), device=points.device)
    if len(chosen) > STENCILS:
        chosen = chosen[torch.randperm(len(chosen), device=chosen.device)[:STENCILS]]
    return sample_stencil(geometry.forward_sdf, points[chosen].detach(), STENCIL_STEP)


def _emptiness(out: dict[str, Tensor], geometry: Any, emptiness_scale: float) -> Float[Tensor, ""]:
    return emptiness(_needed(out, "weights", "emptiness", "use a volume renderer"), emptiness_scale)


def _reconstruction(out: dict[str, Tensor], geometry: Any, emptiness_scale: float) -> Float[Tensor, ""]:
    """Mean squared difference of the colours from those that training started from."""
    start = _needed(out, "comp_rgb_before", "reconstruction", "set system.geometry.start=texture for a textured-mesh")
    return F.mse_loss(out["comp_rgb"], start)


def _smooth(name: str, part: Callable[[Any], Tensor], types: str) -> Term:
    def term(out: dict[str, Tensor], geometry: Any, emptiness_scale: float) -> Float[Tensor, ""]:
        field = getattr(geometry, "field", geometry)  # a textured mesh's colours are a field's
        try:
            grid = part(field)
        except AttributeError:
            raise OptionError.because(
                f"system.loss.lambda_{name} needs a voxel grid, but the geometry is a {type(field).__name__}: "
                f"choose {types} for it, or set it to 0"
            ) from None
        return total_variation(grid)

    return term


def _voxel_features(field: Any) -> Float[Tensor, "1 C D H W"]:
    return field.features if hasattr(field, "distances") else field.grid[:, 1:]


# By name in `system.loss` (`lambda_<name>`). Each takes the renderer's output, the geometry and the scale of
# emptiness, and raises OptionError if the renderer or the geometry lacks what it needs.
TERMS: dict[str, Term] = {
    "sparsity": lambda out, *_: sparsity(out["opacity"]),
    "opaque": lambda out, *_: opaque(out["opacity"]),
    "emptiness": _emptiness,
    "orient": _orient,
    "eikonal": lambda out, geometry, _: eikonal(_stencil(out, geometry, "eikonal")),
    "curvature": lambda out, geometry, _: curvature(_stencil(out, geometry, "curvature")),
    "reconstruction": _reconstruction,
    "tv_density": _smooth("tv_density", lambda field: field.grid[:, :1], "volume-grid"),
    "tv_features": _smooth("tv_features", _voxel_features, "volume-grid or sdf-grid"),
}
