"""Pictures of a mesh: against ray casting, and what systems rely on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError, host
from latent_prior.host.embedded import camera_geometry
from latent_prior.meshes.textured_mesh import SurfaceMesh
from latent_prior.rendering.mesh_rasterizer import MeshRasterizer
from torch.testing import assert_close


class Painted:
    """A mesh whose features are its points', in front of everything else that a geometry is."""

    def __init__(self, mesh: trimesh.Trimesh):
        rows = (mesh.vertices, mesh.vertex_normals)
        self.mesh = SurfaceMesh(
            *(torch.tensor(np.array(row), dtype=torch.float32) for row in rows), torch.tensor(np.array(mesh.faces))
        )

    def isosurface(self):
        return self.mesh

    def export(self, points, **kwargs):
        return {"features": points}


def cameras(count=2, size=24, elevation=20.0):
    """A batch of cameras as the hosts make them."""
    azimuth = torch.arange(count) * 140.0 + 10
    like = torch.ones(count)
    radians = torch.deg2rad(torch.full((count,), elevation)), torch.deg2rad(azimuth)
    position = camera_geometry.spherical_to_cartesian(*radians, 3 * like)
    c2w = camera_geometry.look_at(position, torch.zeros(count, 3), torch.tensor([[0.0, 0, 1]]).expand(count, 3))
    fovy = torch.deg2rad(40 * like)
    rays_o, rays_d = camera_geometry.camera_rays(camera_geometry.ray_directions(size, size), fovy, c2w)
    mvp = camera_geometry.mvp_matrix(c2w, camera_geometry.projection_matrix(fovy, 1.0))
    return {
        "mvp_mtx": mvp,
        "camera_positions": position,
        "rays_o": rays_o,
        "rays_d": rays_d,
        "light_positions": position,
    }


def renderer_of(mesh: trimesh.Trimesh, activation="none", **config):
    material = host.find("no-material")({"color_activation": activation})
    behind = host.find("solid-color-background")({"color": [0.1, 0.2, 0.3]})
    return MeshRasterizer(config, geometry=Painted(mesh), material=material, background=behind)


def cast(mesh: trimesh.Trimesh, origins, directions):
    """Distance along each ray to the nearest face, infinite for a miss (Möller and Trumbore 1997)."""
    first, *others = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    along, across = others[0] - first, others[1] - first
    normal = np.cross(directions[:, None], across)
    scale = (along * normal).sum(-1)
    offset = origins[:, None] - first
    u = (offset * normal).sum(-1) / scale
    turned = np.cross(offset, along)
    v = (directions[:, None] * turned).sum(-1) / scale
    distance = (across * turned).sum(-1) / scale
    return np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0), distance, np.inf).min(axis=1)


KNOT = trimesh.creation.torus(0.55, 0.2, 40, 24)


def test_every_pixel_inside_shows_the_point_that_its_ray_meets():
    """Rays and projection are the host's, so this also fixes the order of the picture's rows."""
    batch = cameras()
    out = renderer_of(KNOT)(**batch)
    origins, directions = (batch[key].reshape(-1, 3).double().numpy() for key in ("rays_o", "rays_d"))
    depth = torch.tensor(cast(KNOT, origins, directions), dtype=torch.float32).view(2, 24, 24)
    hit = depth.isfinite()
    inside = hit & (out["opacity"][..., 0] == 1)
    assert inside.sum() > 200 and not (hit ^ (out["opacity"][..., 0] > 0.5)).sum() > 0.05 * hit.sum()
    points = batch["rays_o"] + batch["rays_d"] * depth[..., None]
    off = (out["comp_rgb"] - points)[inside].abs().amax(dim=-1)
    assert (off < 2e-4).double().mean() > 0.9  # the others are blended, where the ring hides a part of itself
    assert_close(out["depth"][..., 0][inside][off < 2e-4], depth[inside][off < 2e-4], rtol=0, atol=2e-4)
    empty = out["opacity"][..., 0] == 0
    assert (out["comp_rgb"][empty] == torch.tensor([0.1, 0.2, 0.3])).all() and empty.sum() > 200


def test_silhouettes_are_blended_over_any_background():
    batch = cameras()
    renderer = renderer_of(KNOT)
    plain, grey = renderer(**batch), renderer(**batch, bg_color=torch.tensor([[0.5] * 3, [0.9] * 3]))
    partly = (plain["opacity"] > 0) & (plain["opacity"] < 1)
    assert partly.sum() > 20
    for out, behind in ((plain, torch.tensor([0.1, 0.2, 0.3])), (grey, torch.tensor([0.5, 0.9])[:, None, None, None])):
        assert_close(out["comp_rgb"], out["comp_rgb_fg"] + behind * (1 - out["opacity"]), rtol=0, atol=1e-6)


def test_supersampling_is_the_mean_of_a_finer_picture():
    fine = renderer_of(KNOT)(**cameras(size=48))
    coarse = renderer_of(KNOT, supersample=2)(**cameras(size=24))
    mean = fine["comp_rgb_fg"].unflatten(1, (24, 2)).unflatten(3, (24, 2)).mean((2, 4))
    assert_close(coarse["comp_rgb_fg"], mean, rtol=0, atol=1e-5)


def test_normals_face_the_viewer_on_both_sides_of_a_sheet():
    sheet = trimesh.Trimesh([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], [[0, 1, 2], [0, 2, 3]], process=False)
    seen = []
    renderer = renderer_of(sheet)

    def material(features, shading_normal, viewdirs, **_):
        seen.append((shading_normal, viewdirs))
        return features

    material.requires_normal = True
    renderer.sub_modules = SimpleNamespace(
        geometry=renderer.geometry, material=material, background=renderer.background
    )
    renderer(**cameras(elevation=5.0))  # one camera before it, one behind
    ((normals, directions),) = seen
    assert (normals.norm(dim=-1) - 1).abs().max() < 1e-6
    assert (normals[:, 0] > 0).any() and (normals[:, 0] < 0).any()
    assert ((normals * directions).sum(-1) < 0).all()


def test_normals_are_drawn_while_training_only_where_they_are_asked_for():
    plain, asked = renderer_of(KNOT), renderer_of(KNOT, return_comp_normal=True)
    shown = plain.eval()(**cameras())["comp_normal"]
    assert "comp_normal" not in plain.train()(**cameras())
    assert torch.equal(asked.train()(**cameras())["comp_normal"], shown)


def test_a_view_of_nothing_is_the_background():
    far = trimesh.creation.box((0.1,) * 3)
    far.apply_translation([0, 0, 50])
    out = renderer_of(far)(**cameras())
    assert (out["comp_rgb"] == out["comp_rgb_bg"]).all() and (out["opacity"] == 0).all()


def test_gradients_reach_moving_vertices_through_silhouettes():
    """A larger mesh covers more: the derivative of the covered area by the scale, against finite differences."""
    renderer, batch = renderer_of(trimesh.creation.icosphere(3, 0.6)), cameras(1, 96)
    still = renderer.geometry.mesh

    def area(scale):
        mesh = SurfaceMesh(still.v_pos * scale, still.v_nrm, still.t_pos_idx)
        renderer.geometry.isosurface = lambda: mesh
        return renderer(**batch)["opacity"].sum()

    scale = torch.tensor(1.0, requires_grad=True)
    (slope,) = torch.autograd.grad(area(scale), scale)
    with torch.no_grad():
        difference = (area(torch.tensor(1.02)) - area(torch.tensor(0.98))) / 0.04
    assert slope.item() == pytest.approx(difference.item(), rel=0.15)


def test_it_needs_a_mesh():
    parts = {"material": host.find("no-material")({}), "background": host.find("solid-color-background")({})}
    with pytest.raises(OptionError, match="system.renderer_type is mesh-rasterizer, but a VolumeGrid has no mesh"):
        MeshRasterizer({}, geometry=host.find("volume-grid")({"grid_size": [4, 4, 4]}), **parts)
    with pytest.raises(OptionError, match="system.renderer.supersample is 0; expected 1 or more"):
        renderer_of(KNOT, supersample=0)


def test_mixed_precision_moves_nothing():
    """Rounded to bfloat16, clip coordinates are off by pixels, and triangles beyond 256 have no number."""
    mesh, batch = trimesh.creation.icosphere(3), cameras()
    plain = renderer_of(mesh)(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = renderer_of(mesh)(**batch)
    for key in ("comp_rgb", "opacity", "depth"):
        assert mixed[key].dtype == torch.float32
        assert_close(mixed[key], plain[key])
