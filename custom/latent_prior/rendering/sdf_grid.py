"""`sdf-grid`: a field of signed distances in a pyramid of voxel grids, and its colours in another grid.

    sdf(x) = |x| - sphere - level_scale * up(up(up(levels[0]) + levels[1]) + ...)(x)
where `up` interpolates a level trilinearly at the next one's voxels, and the last sum is interpolated at x. The coarse
levels are what keeps the surface together: a step of the optimiser moves large parts of it at once, as preconditioning
would. With one fine grid alone the surface comes out as rough as that of a density grid. Finer levels may begin to
train later, so that the whole comes before its details.

Conventions. As for every field of the host: world coordinates, z up, distances in world units, negative inside. Grids
have the axes of host/embedded/voxels.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import ListConfig
from torch import Tensor, nn

from latent_prior import OptionError, host
from latent_prior.host.embedded.voxels import read_voxels


@host.register("sdf-grid")
class SDFGrid(host.BaseImplicitGeometry):
    """A sphere, minus what a pyramid of grids takes away; the same class on either host."""

    @dataclass
    class Config(host.BaseImplicitGeometry.Config):
        # Voxels along each axis, from the coarsest grid of distances to the finest.
        levels: Any = field(default_factory=lambda: [8, 16, 32, 64])
        # Distance, in world units, by which a level's parameter of 1 moves the surface.
        level_scale: float = 0.05
        # Step at which each level begins to train, and steps over which it then fades in; null: all from the start.
        level_steps: Any = None
        level_fade: int = 25
        # Radius of the sphere at the start, in world units.
        sphere: float = 0.45
        # Voxels along each axis of the grid of features.
        feature_size: int = 64
        # Feature channels: 3 for colours, 4 for Stable Diffusion's latents.
        n_feature_dims: int = 3

    cfg: Config

    def configure(self) -> None:
        super().configure()
        sizes = self._check()
        self.levels = nn.ParameterList(torch.zeros(1, 1, *[size] * 3) for size in sizes)
        self.features = nn.Parameter(torch.zeros(1, self.cfg.n_feature_dims, *[self.cfg.feature_size] * 3))
        half = 1 - 1 / sizes[-1]
        centres = torch.linspace(-half, half, sizes[-1]) * self.cfg.radius
        z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
        start = (x * x + y * y + z * z).sqrt() - self.cfg.sphere
        self.register_buffer("start", start[None, None], persistent=False)
        for coarse, fine in pairwise(sizes):
            self.register_buffer(f"up_to_{fine}", _interpolation(coarse, fine), persistent=False)
        self.register_buffer("shares", torch.ones(len(sizes)))
        self._set_shares(0)

    def _check(self) -> list[int]:
        """The levels' sizes."""
        cfg = self.cfg
        sizes = _whole_numbers(cfg.levels)
        if not sizes or min(sizes) < 2 or sorted(set(sizes)) != sizes:
            raise OptionError("system.geometry.levels", cfg.levels, "whole numbers of at least 2, in increasing order")
        for key in ("level_scale", "sphere"):
            if not cfg[key] > 0:
                raise OptionError(f"system.geometry.{key}", cfg[key], "a positive length")
        steps = None if cfg.level_steps is None else _whole_numbers(cfg.level_steps)
        if steps is not None and (len(steps) != len(sizes) or min(steps) < 0):
            expected = f"null, or {len(sizes)} steps of at least 0, one a level"
            raise OptionError("system.geometry.level_steps", cfg.level_steps, expected)
        for key, least in (("level_fade", 0), ("feature_size", 2), ("n_feature_dims", 0)):
            if cfg[key] < least:
                raise OptionError(f"system.geometry.{key}", cfg[key], f"{least} or more")
        numbers = sum(size**3 for size in sizes) + max(1, cfg.n_feature_dims) * cfg.feature_size**3
        keys = ("levels", "feature_size", "n_feature_dims")
        host.require_memory(numbers, {f"system.geometry.{key}": cfg[key] for key in keys}, trained=True)
        return sizes

    def distances(self) -> Float[Tensor, "1 1 G G G"]:
        """The distances at the voxels of the finest level."""
        total: Tensor | None = None
        for level, share in zip(self.levels, self.shares, strict=True):
            moved = level * (share * self.cfg.level_scale)
            if total is None:
                total = moved
            else:
                total = _enlarged(total, getattr(self, f"up_to_{level.shape[-1]}")) + moved
        return self.start - total

    def distances_in_ball(self) -> Float[Tensor, "1 1 G G G"]:
        """The distances of what lies in the ball within the box."""
        in_ball = self.start + (self.cfg.sphere - self.cfg.radius)
        return torch.maximum(self.distances(), in_ball)

    @property
    def spacing(self) -> float:
        """Distance between the voxels of `distances`, in world units."""
        return 2 * float(self.cfg.radius) / self.levels[-1].shape[-1]

    @property
    def settled_step(self) -> int:
        """The step from which all levels count in full."""
        steps = self.cfg.level_steps or [0]
        return max(steps) + self.cfg.level_fade if max(steps) else 0

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> dict[str, Float[Tensor, "..."]]:
        """`sdf` (*N 1) and `features`; with `output_normal` also `normal`, `shading_normal` and `sdf_grad` (*N 3)."""
        grid = self.distances()
        if output_normal:
            grid = torch.cat([grid, _gradient(grid, self.spacing)], dim=1)
        values = read_voxels(grid, points, self.bbox, "border")
        out = {"sdf": values[..., :1], **self.export(points)}
        if output_normal:
            out["sdf_grad"] = values[..., 1:]
            out["normal"] = out["shading_normal"] = F.normalize(values[..., 1:], dim=-1)
        return out

    def forward_sdf(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """The distance alone, cheaper than `forward`."""
        return read_voxels(self.distances(), points, self.bbox, "border")

    def forward_field(self, points: Float[Tensor, "*N 3"]) -> tuple[Float[Tensor, "*N 1"], None]:
        """The distance and no deformation: threestudio's contract for its own surface extraction."""
        return self.forward_sdf(points), None

    def forward_level(self, field: Float[Tensor, "*N 1"], threshold: float) -> Float[Tensor, "*N 1"]:
        """What is negative inside of the surface at `threshold`: threestudio's contract."""
        return field - threshold

    def export(self, points: Float[Tensor, "*N 3"], **kwargs) -> dict[str, Any]:
        if self.cfg.n_feature_dims == 0:
            return {}
        return {"features": read_voxels(self.features, points, self.bbox, "border")}

    @torch.no_grad()
    def reshape(self, distances: Float[Tensor, "1 1 G G G"]) -> None:
        """Make `distances` the field's, through the finest level; only once all levels count in full.

        Surfaces that come to light get the mean features of the old ones, since nothing has trained theirs.
        """
        before = self.distances()
        self.levels[-1] += (before - distances) / self.cfg.level_scale
        if self.cfg.n_feature_dims == 0:
            return
        size = self.features.shape[2:]
        old, new = (
            F.interpolate(grid, size=size, mode="trilinear", align_corners=False) for grid in (before, distances)
        )
        step = 2 * float(self.cfg.radius) / size[0]
        surface = (old.abs() < step)[0, 0]
        if surface.any():
            mean = self.features[0][:, surface].mean(dim=1)
            bare = (old < 0) & (new > old) & (new > -2 * step)
            self.features.copy_(torch.where(bare, mean[None, :, None, None, None], self.features))

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self._set_shares(global_step)

    def _set_shares(self, step: int) -> None:
        """How far each level has faded in."""
        if self.cfg.level_steps is None:
            return
        fade = self.cfg.level_fade
        shares = [
            float(step >= start) if start == 0 or fade == 0 else (step - start) / fade for start in self.cfg.level_steps
        ]
        self.shares.copy_(torch.tensor(shares).clamp(0, 1))


def _interpolation(coarse: int, fine: int) -> Float[Tensor, "F C"]:
    """The matrix that interpolates linearly, as torch's `interpolate` does."""
    return F.interpolate(torch.eye(coarse)[None], size=fine, mode="linear", align_corners=False)[0].T.contiguous()


def _enlarged(grid: Float[Tensor, "1 1 C C C"], along_an_axis: Float[Tensor, "F C"]) -> Float[Tensor, "1 1 F F F"]:
    """Trilinear interpolation axis by axis: matrix products, which take a quarter of the time of torch's own kernel."""
    for _ in range(3):
        grid = F.linear(grid.contiguous(), along_an_axis).movedim(-1, 2)
    return grid


def _gradient(grid: Float[Tensor, "1 1 G G G"], spacing: float) -> Float[Tensor, "1 3 G G G"]:
    """Central differences along x, y and z; one-sided at the border."""
    return torch.cat([torch.gradient(grid, spacing=spacing, dim=axis)[0] for axis in (4, 3, 2)], dim=1)


def _whole_numbers(given: Any) -> list[int]:
    """The numbers of a list of whole numbers; none for anything else."""
    listed = list(given) if isinstance(given, ListConfig | Sequence) and not isinstance(given, str) else []
    return listed if all(type(number) is int for number in listed) else []
