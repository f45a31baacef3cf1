"""`mesh-rasterizer`: pictures of a mesh, for every geometry that has one (`isosurface()`, as in threestudio).

The renderer's contract is the volume renderer's: the same outputs, whose colours come from the geometry's features by
the material. Visibility and silhouettes are the rasteriser's, in nvdiffrast's conventions. Where vertices move, the
gradients of what is seen come from the antialiased silhouettes.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError, host, rasteriser
from latent_prior.rendering.renderer import Renderer, per_pixel


@dataclass(frozen=True)
class Seen:
    """The N pixels that see the mesh, and what is seen there."""

    pixel: Int[Tensor, "N"]  # counted through all views
    view: Int[Tensor, "N"]
    faces: Int[Tensor, "N"]
    weights: Float[Tensor, "N 3"]  # of the face's corners
    points: Float[Tensor, "N 3"]
    normals: Float[Tensor, "N 3"] | None  # unit, on the viewer's side of the face; None where nobody needs them


@host.register("mesh-rasterizer")
class MeshRasterizer(Renderer):
    """Renders (geometry, material, background) by rasterisation; the same class on either host."""

    @dataclass
    class Config(Renderer.Config):
        # Pixels are rendered this many times finer along each axis, and averaged.
        supersample: int = 1
        # Draw normals while training too (threestudio's key).
        return_comp_normal: bool = False

    cfg: Config

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        if not hasattr(geometry, "isosurface"):
            raise OptionError.because(
                f"system.renderer_type is mesh-rasterizer, but a {type(geometry).__name__} has no mesh: choose "
                "system.geometry_type=textured-mesh or another renderer"
            )
        if self.cfg.supersample < 1:
            raise OptionError("system.renderer.supersample", self.cfg.supersample, "1 or more")
        super().configure(geometry, material, background)
        self._context = rasteriser.RasterizeCudaContext()
        self._last_faces: Tensor | None = None
        self._topology: Any = None

    def forward(
        self,
        mvp_mtx: Float[Tensor, "B 4 4"],
        camera_positions: Float[Tensor, "B 3"],
        rays_d: Float[Tensor, "B H W 3"],
        light_positions: Float[Tensor, "B 3"] | None = None,
        bg_color: Float[Tensor, "..."] | None = None,
        **kwargs,
    ) -> dict[str, Tensor]:
        """Render.

        mvp_mtx: world to clip space, row 0 of a picture at y / w = -1. bg_color: used instead of the background's
        colour: Nc, B Nc or B H W Nc. Other keywords go to the material (the hosts pass the whole batch).

        Returns comp_rgb, comp_rgb_fg, comp_rgb_bg (B H W Nc), opacity and depth (B H W 1; depth is the distance from
        the camera times the opacity), mesh; comp_normal (B H W 3, drawn as (n + 1) / 2 * opacity), while training only with
        return_comp_normal; and comp_rgb_before (B H W 3), the picture in the colours of the mesh's file, if it has any;
        while training only if these are the start.
        """
        views, height, width = rays_d.shape[:3]
        finer = self.cfg.supersample
        size = (height * finer, width * finer)
        mesh = self.geometry.isosurface()
        with torch.autocast(mvp_mtx.device.type, enabled=False):  # half precision would move vertices by pixels
            clip = F.pad(mesh.v_pos.float(), (0, 1), value=1.0) @ mvp_mtx.float().transpose(1, 2)
        triangles = mesh.t_pos_idx.int()
        rast, _ = rasteriser.rasterize(self._context, clip, triangles, size)
        seen = _seen(rast, mesh, camera_positions, self._draws_normals or self.material.requires_normal)
        layers = self._layers(seen, camera_positions, light_positions, kwargs)

        stacked = torch.cat([layer.float() for layer in layers.values()], dim=1)
        picture = stacked.new_zeros(views * size[0] * size[1], stacked.shape[1]).index_copy(0, seen.pixel, stacked)
        picture = rasteriser.antialias(picture.view(views, *size, -1), rast, clip, triangles, self._edges(triangles))
        if finer > 1:
            picture = F.avg_pool2d(picture.permute(0, 3, 1, 2), finer).permute(0, 2, 3, 1)
        parts = picture.split([layer.shape[1] for layer in layers.values()], dim=-1)
        out = dict(zip(layers, parts, strict=True))

        out["comp_rgb_bg"] = self.background(dirs=rays_d)
        behind = out["comp_rgb_bg"] if bg_color is None else per_pixel(bg_color, (views, height, width))
        out["comp_rgb"] = out["comp_rgb_fg"] + behind * (1 - out["opacity"])
        if "comp_rgb_before" in out:
            out["comp_rgb_before"] = out["comp_rgb_before"] + behind * (1 - out["opacity"])
        return {**out, "mesh": mesh}

    def _layers(
        self, seen: Seen, cameras: Float[Tensor, "B 3"], lights: Float[Tensor, "B 3"] | None, kwargs: dict[str, Any]
    ) -> dict[str, Float[Tensor, "N _"]]:
        """What each pixel that sees the mesh shows, in full."""
        viewer = cameras[seen.view]
        surroundings = {
            "viewdirs": F.normalize(seen.points - viewer, dim=-1),
            "positions": seen.points,
            "light_positions": viewer if lights is None else lights[seen.view],
        }
        if seen.normals is not None:
            surroundings["shading_normal"] = seen.normals
        if hasattr(self.geometry, "features_at"):  # ours: the colours may depend on the place in the mesh's file
            features = self.geometry.features_at(seen.points, seen.faces, seen.weights)
        else:
            features = self.geometry.export(points=seen.points)["features"]
        looks = {"comp_rgb_fg": features}
        if getattr(self.geometry, "has_colours", False) and not (self.training and self.geometry.cfg.start == "grey"):
            looks["comp_rgb_before"] = self.geometry.own_at(seen.faces, seen.weights)
        # in one call, since a material may draw its light
        repeated = {name: rows.repeat(len(looks), 1) for name, rows in surroundings.items()}
        colours = self.material(features=torch.cat(list(looks.values())), **repeated, **kwargs).chunk(len(looks))
        layers = {
            **dict(zip(looks, colours, strict=True)),
            "opacity": torch.ones_like(seen.points[:, :1]),
            "depth": (seen.points - viewer).norm(dim=-1, keepdim=True),
        }
        return layers | ({"comp_normal": (seen.normals + 1) / 2} if self._draws_normals else {})

    @property
    def _draws_normals(self) -> bool:
        return self.cfg.return_comp_normal or not self.training

    def _edges(self, triangles: Int[Tensor, "F 3"]) -> Any:
        """The neighbours of the mesh's faces, for a mesh that was rendered before; None for a new one."""
        if self._last_faces is not triangles:
            self._last_faces, self._topology = triangles, None
        elif self._topology is None:
            self._topology = rasteriser.antialias_construct_topology_hash(triangles)
        return self._topology


def _seen(rast: Float[Tensor, "B H W 4"], mesh: Any, cameras: Float[Tensor, "B 3"], with_normals: bool) -> Seen:
    flat = rast.reshape(-1, 4)
    pixel = (flat[:, 3] > 0).nonzero().squeeze(1)
    flat = flat.index_select(0, pixel)
    faces = flat[:, 3].detach().long() - 1
    weights = torch.stack([flat[:, 0], flat[:, 1], 1 - flat[:, 0] - flat[:, 1]], dim=1)
    corners = mesh.t_pos_idx.index_select(0, faces).long()
    places = mesh.v_pos[corners]
    points = (weights[..., None] * places).sum(dim=1)
    view = pixel // (rast.shape[1] * rast.shape[2])
    if not with_normals:
        return Seen(pixel, view, faces, weights, points, None)
    normals = (weights[..., None] * mesh.v_nrm[corners]).sum(dim=1)
    # both sides of a face may be seen, as of a leaf
    across = torch.linalg.cross(places[:, 1] - places[:, 0], places[:, 2] - places[:, 0], dim=-1)
    away = (across * (points - cameras[view])).sum(dim=-1, keepdim=True) > 0
    normals = F.normalize(torch.where(away, -normals, normals), dim=-1)
    return Seen(pixel, view, faces, weights, points, normals)
