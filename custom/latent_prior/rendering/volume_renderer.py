"""Volume rendering of a field with the same number of samples on every ray, in plain torch.

    colour = sum_i w_i c_i + (1 - sum_i w_i) * background
with weights w_i from the field's density or signed distance (matter.py). Each ray is clipped to the bounds and its
chord is split into equal bins; rays that miss are never sampled. Depth is sum_i w_i t_i, not divided by the opacity, as
in threestudio.

With `grid_prune` the bounds shrink to the box around the occupied cells of a coarse grid, which makes training fast:
the rays that miss cost nothing, and the others spend their samples on the object. The box is a buffer, so a resumed run
continues with it.

If a field of densities has finite-difference normals, those drawn in evaluation are the direction of
-sum_i T_i grad sigma_i, with grad sigma over NORMAL_STEP. Unit normals composited by weight would be noisy: inside a
body that is not quite opaque the density is nearly constant, and each sample there, with its gradient normalised, counts
as much as the surface.
"""

import math
from dataclasses import dataclass
from typing import Any

import nerfacc
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.host.embedded.scalars import knot_values
from latent_prior.rendering.matter import density_of_distance, density_weights, distance_weights
from latent_prior.rendering.occupancy import occupied_box
from latent_prior.rendering.rays import ray_box, ray_sphere, sample_bins
from latent_prior.rendering.renderer import Renderer, per_pixel

NEGLIGIBLE_WEIGHT = 1e-5  # samples with less get no colour; so too in training, if the field is one of distances
POINT, SAMPLE = 3, 12  # numbers; a sample's: its point, direction, light, and three lengths
NORMAL_STEP = 1 / 20  # step of the central differences for drawn normals, in radii


@dataclass(frozen=True)
class Samples:
    """R rays with S samples each; points are flattened ray by ray."""

    starts: Float[Tensor, "R S"]
    ends: Float[Tensor, "R S"]
    t: Float[Tensor, "R S"]
    points: Float[Tensor, "N 3"]
    directions: Float[Tensor, "N 3"]
    lights: Float[Tensor, "N 3"]


@host.register("dense-volume-renderer")
class DenseVolumeRenderer(Renderer):
    """Renders (geometry, material, background) at given rays; the same class on either host."""

    @dataclass
    class Config(Renderer.Config):
        # Half the edge of the box that is sampled (or the sphere's radius), in world units.
        radius: float = 1.0
        # Shape of the sampled bounds: box, or sphere for fields that vanish in the box's corners.
        bounds: str = "box"
        # Samples on each ray that meets the bounds.
        num_samples_per_ray: int = 64
        # Nothing nearer to the camera than this is sampled, in ray lengths.
        near_plane: float = 0.0
        # Nothing farther from the camera than this is sampled, in ray lengths.
        far_plane: float = 1e10
        # Draw each sample uniformly in its bin while training; false: the bin's middle.
        randomized: bool = True
        # Samples rendered at a time in evaluation; limits memory.
        eval_chunk_size: int = 160000
        # Composite normals while training too (threestudio's key); costs the geometry's normals.
        return_comp_normal: bool = False
        # Composite normals in evaluation, where the geometry has any.
        return_eval_normal: bool = True
        # While training, also the normals at points moved by a Gaussian of 0.01, for smoothness losses.
        return_normal_perturb: bool = False
        # Shrink the bounds to the occupied part of the field during training; false: exact.
        grid_prune: bool = False
        # A cell counts as empty if one sample in it would have an opacity below this.
        prune_alpha: float = 1e-3
        # Cells along each axis of the occupancy estimate.
        prune_resolution: int = 32
        # Steps between two estimates; the first is made at this step.
        prune_every: int = 16
        # Of a field of distances: one over the thickness of its surface, in world units; a number or a schedule.
        inv_std: Any = 64.0

    cfg: Config

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        if self.cfg.bounds not in ("box", "sphere"):
            raise OptionError("system.renderer.bounds", self.cfg.bounds, "box or sphere")
        keys = ("radius", "num_samples_per_ray", "eval_chunk_size", "prune_alpha", "prune_resolution", "prune_every")
        for key in keys:
            if getattr(self.cfg, key) <= 0:
                raise OptionError(f"system.renderer.{key}", getattr(self.cfg, key), "a positive number")
        try:
            sharpest = knot_values(self.cfg.inv_std)
        except OptionError as error:
            expected = f"a number or a schedule: {error}"
            raise OptionError("system.renderer.inv_std", self.cfg.inv_std, expected) from error
        if not all(0 < value < math.inf for value in sharpest):
            raise OptionError("system.renderer.inv_std", self.cfg.inv_std, "positive numbers")
        cells = {"system.renderer.prune_resolution": self.cfg.prune_resolution}
        host.require_memory(POINT * (2 * self.cfg.prune_resolution) ** 3 if self.cfg.grid_prune else 0, cells)
        super().configure(geometry, material, background)
        radius = float(self.cfg.radius)
        self.register_buffer("bbox", torch.tensor([[-radius] * 3, [radius] * 3]))
        if self.cfg.grid_prune:
            self.register_buffer("occupied_bbox", self.bbox.clone())
        self._inv_std = float(host.C(self.cfg.inv_std, 0, 0))

    def forward(
        self,
        rays_o: Float[Tensor, "B H W 3"],
        rays_d: Float[Tensor, "B H W 3"],
        light_positions: Float[Tensor, "B 3"] | None = None,
        bg_color: Float[Tensor, "..."] | None = None,
        render_normal: bool = True,
        **kwargs,
    ) -> dict[str, Tensor]:
        """Render.

        bg_color: used instead of the background's colour: Nc, B Nc or B H W Nc. render_normal: False skips the normals
        of return_eval_normal, which are more than half of the work. Other keywords go to the material (the hosts
        pass the whole batch).

        Returns comp_rgb, comp_rgb_fg, comp_rgb_bg (B H W Nc), opacity and depth (B H W 1), comp_normal (B H W 3, drawn
        as (n + 1) / 2 * opacity). While training also weights, t_points, t_intervals (N 1), t_dirs, points (N 3),
        ray_indices (N) and whatever the geometry returned, for all N samples (no features of a field of distances).
        """
        shape = rays_o.shape[:3]
        origins, directions = rays_o.reshape(-1, 3), rays_d.reshape(-1, 3)
        lights = torch.zeros_like(rays_o[:, 0, 0]) if light_positions is None else light_positions
        near, far = self.ray_bounds(origins, directions)
        hit = (far > near).nonzero().squeeze(-1)
        if len(hit) == 0:  # one ray of zero length keeps every output and gradient defined
            hit = torch.zeros(1, dtype=torch.long, device=origins.device)
        far = torch.maximum(near, far)
        self._require_memory(shape)
        background = self.background(dirs=rays_d)

        if self.training:
            samples = self._sample(hit, origins, directions, lights, near, far)
            composed, extra = self._compose_training(samples, kwargs)
            extra["ray_indices"] = hit.repeat_interleave(self.cfg.num_samples_per_ray)
        else:
            parts = []
            for rays in hit.split(max(1, self.cfg.eval_chunk_size // self.cfg.num_samples_per_ray)):
                samples = self._sample(rays, origins, directions, lights, near, far)
                parts.append(self._compose_evaluation(samples, render_normal, kwargs))
            composed = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            extra = {}

        out = {}
        for key, values in composed.items():
            everywhere = values.new_zeros(len(origins), values.shape[-1])
            out[key] = everywhere.index_copy(0, hit, values).view(*shape, -1)
        behind = background if bg_color is None else per_pixel(bg_color, shape)
        if background.shape[-1] != (channels := out["comp_rgb_fg"].shape[-1]):
            expected = f"{channels}, the channels of the material's colours"
            raise OptionError("system.background.n_output_dims", background.shape[-1], expected)
        out["comp_rgb_bg"] = background
        out["comp_rgb"] = out["comp_rgb_fg"] + behind * (1 - out["opacity"])
        return out | extra

    def _require_memory(self, shape: tuple[int, int, int]) -> None:
        """OptionError for more samples at once than fit in memory."""
        rays, samples, prefix = math.prod(shape), self.cfg.num_samples_per_ray, "data."
        if not self.training:
            rays, prefix = min(rays, max(1, self.cfg.eval_chunk_size // samples)), "data.eval_"
        sizes = {f"{prefix}{name}": size for name, size in zip(("batch_size", "height", "width"), shape, strict=True)}
        host.require_memory(SAMPLE * rays * samples, {"system.renderer.num_samples_per_ray": samples} | sizes)

    def ray_bounds(
        self, origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"]
    ) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
        """The part of each ray that is sampled; far <= near where there is none."""
        near, far = ray_box(origins, directions, self.occupied_bbox if self.cfg.grid_prune else self.bbox)
        if self.cfg.bounds == "sphere":
            enter, leave = ray_sphere(origins, directions, self.cfg.radius)
            near, far = torch.maximum(near, enter), torch.minimum(far, leave)
        return near.clamp(min=self.cfg.near_plane), far.clamp(max=self.cfg.far_plane)

    def _sample(
        self,
        rays: Int[Tensor, "R"],
        origins: Float[Tensor, "A 3"],
        directions: Float[Tensor, "A 3"],
        lights: Float[Tensor, "B 3"],
        near: Float[Tensor, "A"],
        far: Float[Tensor, "A"],
    ) -> Samples:
        jitter = self.training and self.cfg.randomized
        starts, ends, t = sample_bins(near[rays], far[rays], self.cfg.num_samples_per_ray, jitter)
        direction = directions[rays][:, None]
        points = origins[rays][:, None] + direction * t[..., None]
        light = lights[rays // (len(origins) // len(lights))][:, None]
        return Samples(
            starts=starts,
            ends=ends,
            t=t,
            points=points.view(-1, 3),
            directions=direction.expand_as(points).reshape(-1, 3),
            lights=light.expand_as(points).reshape(-1, 3),
        )

    def _compose_training(self, samples: Samples, kwargs: dict[str, Any]) -> tuple[dict, dict]:
        wants_normal = self.material.requires_normal or self.cfg.return_comp_normal or self.cfg.return_normal_perturb
        if self.has_distance and not wants_normal:  # most samples are far from the surface and show nothing
            field = {"sdf": self.geometry.forward_sdf(samples.points)}
            weights, _ = self._weights(samples, field["sdf"])
            seen, rays = _seen(weights)
            colors = self._colors(samples, self.geometry.export(samples.points[seen]), kwargs, seen)
            foreground = nerfacc.accumulate_along_rays(weights.flatten()[seen], colors, rays, len(weights))
        else:
            field = self.geometry(samples.points, output_normal=wants_normal)
            weights, _ = self._weights(samples, field["sdf" if self.has_distance else "density"])
            colors = self._colors(samples, field, kwargs)
            foreground = nerfacc.accumulate_along_rays(weights, colors.reshape(*weights.shape, -1))
        composed = {
            "comp_rgb_fg": foreground,
            "opacity": nerfacc.accumulate_along_rays(weights),
            "depth": nerfacc.accumulate_along_rays(weights, samples.t[..., None]),
        }
        if self.cfg.return_comp_normal:
            normal = nerfacc.accumulate_along_rays(weights, field["normal"].reshape(*weights.shape, 3))
            composed["comp_normal"] = _drawn(normal, composed["opacity"])
        extra = {
            "weights": weights.view(-1, 1),
            "t_points": samples.t.view(-1, 1),
            "t_intervals": (samples.ends - samples.starts).view(-1, 1),
            "t_dirs": samples.directions,
            "points": samples.points,
            **field,
        }
        if self.cfg.return_normal_perturb:
            moved = samples.points + 1e-2 * torch.randn_like(samples.points)
            extra["normal_perturb"] = self.geometry(moved, output_normal=True)["normal"]
        return composed, extra

    def _compose_evaluation(self, samples: Samples, render_normal: bool, kwargs: dict[str, Any]) -> dict[str, Tensor]:
        forward = self.geometry.forward_sdf if self.has_distance else self.geometry.forward_density
        weights, transmittance = self._weights(samples, forward(samples.points))
        opacity = nerfacc.accumulate_along_rays(weights)
        depth = nerfacc.accumulate_along_rays(weights, samples.t[..., None])

        flat, (seen, rays) = weights.flatten(), _seen(weights)
        # a grid of distances has no type of normals, and always has them
        normal_type = getattr(self.geometry.cfg, "normal_type", "gradient" if self.has_distance else None)
        drawn = render_normal and self.cfg.return_eval_normal and normal_type is not None
        by_slope = drawn and normal_type.startswith("finite_difference") and not self.has_distance
        needed = self.material.requires_normal or (drawn and not by_slope)
        field = self.geometry(samples.points[seen], output_normal=needed)
        colors = self._colors(samples, field, kwargs, seen)
        composed = {
            "comp_rgb_fg": nerfacc.accumulate_along_rays(flat[seen], colors, rays, len(weights)),
            "opacity": opacity,
            "depth": depth,
        }
        if by_slope:
            light, slope = transmittance.reshape(-1)[seen], self._slope(samples.points[seen])
            composed["comp_normal"] = _drawn(nerfacc.accumulate_along_rays(light, slope, rays, len(weights)), opacity)
        elif drawn:
            normal = nerfacc.accumulate_along_rays(flat[seen], field["normal"], rays, len(weights))
            composed["comp_normal"] = _drawn(normal, opacity)
        return composed

    def _colors(
        self, samples: Samples, field: dict[str, Tensor], kwargs: dict[str, Any], seen: Any = slice(None)
    ) -> Float[Tensor, "K Nc"]:
        """The material's colours of those samples, at which the geometry gave `field`."""
        return self.material(
            viewdirs=samples.directions[seen],
            positions=samples.points[seen],
            light_positions=samples.lights[seen],
            **field,
            **kwargs,
        )

    def _slope(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Minus the density's gradient, up to a factor, by central differences over NORMAL_STEP."""
        steps = NORMAL_STEP * self.cfg.radius * torch.eye(3, dtype=points.dtype, device=points.device)
        before, after = (self.geometry.forward_density(points[:, None] + offset) for offset in (-steps, steps))
        return (before - after)[..., 0]

    @property
    def has_distance(self) -> bool:
        """Whether the field gives signed distances."""
        return hasattr(self.geometry, "forward_sdf")

    def density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """The field's density; of a field of distances, the one that makes its surface as thick as it is now."""
        if self.has_distance:
            return density_of_distance(self.geometry.forward_sdf(points), self._inv_std)
        return self.geometry.forward_density(points)

    def _weights(
        self, samples: Samples, values: Float[Tensor, "N 1"]
    ) -> tuple[Float[Tensor, "R S"], Float[Tensor, "R S"]]:
        """Weights, and the light that gets to each sample."""
        values = values.reshape(samples.t.shape)
        if self.has_distance:
            return distance_weights(values, self._inv_std)
        return density_weights(samples.starts, samples.ends, values)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self._inv_std = float(host.C(self.cfg.inv_std, epoch, global_step))
        due = global_step > 0 and global_step % self.cfg.prune_every == 0
        if self.cfg.grid_prune and self.training and due and not on_load_weights:
            chord = 2 * self.cfg.radius * (1 if self.cfg.bounds == "sphere" else 3**0.5)
            longest_bin = chord / self.cfg.num_samples_per_ray
            box = occupied_box(
                self._density_in_bounds, self.bbox, self.cfg.prune_resolution, longest_bin, self.cfg.prune_alpha
            )
            self.occupied_bbox.copy_(box)

    def _density_in_bounds(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        density = self.density(points)
        if self.cfg.bounds == "sphere":  # the corners are never sampled, whatever the field holds there
            density = density * (points.norm(dim=-1, keepdim=True) < self.cfg.radius)
        return density


def _seen(weights: Float[Tensor, "R S"]) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"]]:
    """The samples that show, at least one, by their place among all; and their rays."""
    seen = (weights.detach().flatten() > NEGLIGIBLE_WEIGHT).nonzero().squeeze(-1)
    if len(seen) == 0:
        seen = torch.zeros(1, dtype=torch.long, device=weights.device)
    return seen, torch.div(seen, weights.shape[1], rounding_mode="floor")


def _drawn(normal: Float[Tensor, "R 3"], opacity: Float[Tensor, "R 1"]) -> Float[Tensor, "R 3"]:
    return (F.normalize(normal, dim=-1) + 1) / 2 * opacity
