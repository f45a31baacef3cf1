"""Barycentric coordinates, depth and their derivatives, interpolation, and the gradients of all of it."""

import numpy as np
import pytest
import torch
from latent_prior import rasteriser
from latent_prior.rasteriser.visibility import visible_triangles
from reference.clip_meshes import octahedron, random_mesh, seen
from reference.rasteriser import centre, weights_over_w

CONTEXT = rasteriser.RasterizeCudaContext()


def test_values_have_their_closed_form_in_a_triangle_seen_in_perspective():
    # corners (-1, -1), (3, -1), (-1, 3) of the screen at w = 1, 2, 4: the weights are (1 - s - t, s/2, t/4), normalised,
    # with s = (X + 1) / 4 and t = (Y + 1) / 4
    pos = torch.tensor([[[-1.0, -1, 0.5, 1], [6, -2, 1, 2], [-4, 12, -1, 4]]], dtype=torch.float64)
    rast, rast_db = rasteriser.rasterize(CONTEXT, pos, torch.tensor([[0, 1, 2]]).int(), (2, 3))
    for row in range(2):
        for column in range(3):
            s, t = (centre(column, 3) + 1) / 4, (centre(row, 2) + 1) / 4
            total = 1 - s - t + s / 2 + t / 4
            u, v = (1 - s - t) / total, s / 2 / total
            z = 0.5 * (1 - s - t) + 0.5 * s - 0.25 * t
            by_s, by_t = 1 / 6, 1 / 4  # of s by a column, of t by a row
            derivatives = [
                (-1 + u / 2) / total * by_s,
                (-1 + u * 3 / 4) / total * by_t,
                (1 / 2 + v / 2) / total * by_s,
                v * 3 / 4 / total * by_t,
            ]
            torch.testing.assert_close(rast[0, row, column], torch.tensor([u, v, z, 1], dtype=torch.float64))
            torch.testing.assert_close(rast_db[0, row, column], torch.tensor(derivatives, dtype=torch.float64))


def test_values_on_random_meshes_solve_the_triangles_equations():
    step, count = 1e-5, 0
    for seed in range(0, 60):
        pos, tri, height, width = random_mesh(seed)
        rast, rast_db = rasteriser.rasterize(CONTEXT, pos[None], tri, (height, width))
        for row, column in (rast[0, ..., 3] > 0).nonzero().tolist():
            corners = pos[tri[int(rast[0, row, column, 3]) - 1].long()].numpy()

            def weights(right=0.0, down=0.0, corners=corners, row=row, column=column, size=(height, width)):
                b = weights_over_w(corners, centre(column + right, size[1]), centre(row + down, size[0]))
                return b, (b / b.sum())[:2]

            b, uv = weights()
            if abs(b).min() < 1e-3:
                continue  # nearly degenerate: the differences below would be inexact
            by_x = (weights(right=step)[1] - weights(right=-step)[1]) / (2 * step)
            by_y = (weights(down=step)[1] - weights(down=-step)[1]) / (2 * step)
            np.testing.assert_allclose(rast[0, row, column, :3], [*uv, b @ corners[:, 2]], atol=1e-8)
            np.testing.assert_allclose(
                rast_db[0, row, column], [by_x[0], by_y[0], by_x[1], by_y[1]], rtol=1e-4, atol=1e-6
            )
            count += 1
    assert count > 300


def test_range_mode_is_instanced_mode_of_each_part():
    meshes = [random_mesh(seed) for seed in (0, 5, 6)]
    size = (7, 9)
    pos = torch.cat([mesh[0] for mesh in meshes])
    starts = np.cumsum([0] + [len(mesh[0]) for mesh in meshes])
    tri = torch.cat([mesh[1] + int(start) for mesh, start in zip(meshes, starts, strict=False)])
    firsts = np.cumsum([0] + [len(mesh[1]) for mesh in meshes])
    ranges = torch.tensor([[int(first), len(mesh[1])] for mesh, first in zip(meshes, firsts, strict=False)]).int()
    attr = torch.rand(len(pos), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rast, rast_db = rasteriser.rasterize(CONTEXT, pos, tri, size, ranges)
    out, out_da = rasteriser.interpolate(attr, rast, tri, rast_db, "all")
    smooth = rasteriser.antialias(out, rast, pos, tri)
    assert (rast[..., 3] > 0).flatten(1).any(1).all()
    for view, (its_pos, its_tri, *_) in enumerate(meshes):
        alone, alone_db = rasteriser.rasterize(CONTEXT, its_pos[None], its_tri, size)
        its_attr = attr[None, starts[view] : starts[view + 1]]
        its_out, its_da = rasteriser.interpolate(its_attr, alone, its_tri, alone_db, "all")
        its_smooth = rasteriser.antialias(its_out, alone, its_pos[None], its_tri)
        numbered = alone.clone()
        numbered[..., 3] += (alone[..., 3] > 0) * int(firsts[view])
        for whole, part in zip(
            (rast, rast_db, out, out_da, smooth), (numbered, alone_db, its_out, its_da, its_smooth), strict=True
        ):
            torch.testing.assert_close(whole[view], part[0])


def test_views_of_a_batch_are_those_seen_alone():
    vertices, tri = octahedron()
    pos = seen(vertices, [0.3, 1.7])
    attr = torch.rand(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rast, rast_db = rasteriser.rasterize(CONTEXT, pos, tri, (9, 12))
    out, out_da = rasteriser.interpolate(attr, rast, tri, rast_db, [1])
    for view in range(2):
        alone, alone_db = rasteriser.rasterize(CONTEXT, pos[view : view + 1], tri, (9, 12))
        torch.testing.assert_close((rast[view], rast_db[view]), (alone[0], alone_db[0]))
        for its_attr in (attr[view : view + 1], attr[view]):
            its_out, its_da = rasteriser.interpolate(its_attr, alone, tri, alone_db, [1])
            torch.testing.assert_close((out[view], out_da[view]), (its_out[0], its_da[0]))
    shared, _ = rasteriser.interpolate(attr[:1], rast, tri)
    torch.testing.assert_close(shared[1], rasteriser.interpolate(attr[:1], rast[1:], tri)[0][0])


def test_interpolation_is_exact_for_what_is_linear_on_the_surface():
    vertices, tri = octahedron()
    pos = seen(vertices, [0.3])
    rast, rast_db = rasteriser.rasterize(CONTEXT, pos, tri, (16, 16))
    out, out_da = rasteriser.interpolate(pos, rast, tri, rast_db, [3, -4])
    inside = rast[0, ..., 3] > 0
    y, x = torch.meshgrid(*2 * [centre(torch.arange(16.0, dtype=torch.float64), 16)], indexing="ij")
    for component, wanted in ((0, x), (1, y), (2, rast[0, ..., 2])):  # the clip coordinates of the point seen
        torch.testing.assert_close(out[0, ..., component][inside], (wanted * out[0, ..., 3])[inside])
    assert (out[0][~inside] == 0).all() and (out_da[0][~inside] == 0).all() and (~inside).any()
    # x = X w, so dx/dX = w * (2 / 16) + X dw/dX, and dx/dY = X dw/dY
    w, (dw_dx, dw_dy, dx_dx, dx_dy) = out[0, ..., 3], out_da[0].unbind(-1)
    torch.testing.assert_close(dx_dx[inside], (w / 8 + x * dw_dx)[inside])
    torch.testing.assert_close(dx_dy[inside], (x * dw_dy)[inside])


def test_without_diff_attrs_there_are_no_derivatives():
    vertices, tri = octahedron()
    rast, rast_db = rasteriser.rasterize(CONTEXT, seen(vertices, [0.3]), tri, (4, 6))
    for chosen in (None, []):
        assert rasteriser.interpolate(vertices, rast, tri, rast_db, chosen)[1].shape == (1, 4, 6, 0)
    with pytest.raises(ValueError, match="rast_db is None"):
        rasteriser.interpolate(vertices, rast, tri, None, "all")


@pytest.mark.parametrize("seed", [0, 12, 13, 16, 23, 37, 38, 40])
def test_gradients_of_positions_and_attributes_are_those_of_finite_differences(seed):
    pos, tri, height, width = random_mesh(seed)
    g = torch.Generator().manual_seed(seed)
    attr = torch.rand(1, len(pos), 2, generator=g, dtype=torch.float64)
    pos = pos[None]
    # a pixel near an edge would change hands under the differences
    rast, _ = rasteriser.rasterize(CONTEXT, pos, tri, (height, width))
    least = torch.stack([rast[..., 0], rast[..., 1], 1 - rast[..., 0] - rast[..., 1]]).amin(0)
    interior = ((rast[..., 3] > 0) & (least > 1e-3))[..., None]
    assert interior.any()

    def render(pos, attr):
        rast, rast_db = rasteriser.rasterize(CONTEXT, pos, tri, (height, width))
        out, out_da = rasteriser.interpolate(attr, rast, tri, rast_db, "all")
        return [picture * interior for picture in (rast[..., [0, 1, 3]], rast_db, out, out_da)]

    assert torch.autograd.gradcheck(
        render, (pos.requires_grad_(), attr.requires_grad_()), eps=1e-6, rtol=1e-3, atol=1e-6, fast_mode=True
    )


def test_depth_has_no_gradient_and_grad_db_cuts_that_of_the_derivatives():
    vertices, tri = octahedron()
    pos = seen(vertices, [0.3]).requires_grad_()
    rast, rast_db = rasteriser.rasterize(CONTEXT, pos, tri, (8, 8))
    (by_depth,) = torch.autograd.grad(rast[..., 2:].sum(), pos, retain_graph=True)
    assert (by_depth == 0).all()
    assert rast_db.requires_grad
    assert not rasteriser.rasterize(CONTEXT, pos, tri, (8, 8), grad_db=False)[1].requires_grad


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.float64, 0.0)])
def test_results_keep_the_type_of_the_input(dtype, tolerance):
    vertices, tri = octahedron()
    exact = seen(vertices, [0.3, 2.0]).float().double()
    attr = torch.eye(6, dtype=dtype)[None]
    wanted, _ = rasteriser.rasterize(CONTEXT, exact, tri, (16, 16))
    pos = exact.to(dtype).requires_grad_()
    rast, rast_db = rasteriser.rasterize(CONTEXT, pos, tri, (16, 16))
    out, out_da = rasteriser.interpolate(attr, rast, tri, rast_db, "all")
    smooth = rasteriser.antialias(out, rast, pos, tri)
    assert {x.dtype for x in (rast, rast_db, out, out_da, smooth)} == {dtype}
    torch.testing.assert_close(rast.double(), wanted, rtol=0, atol=tolerance)
    smooth.square().sum().backward()
    assert pos.grad.dtype == dtype and pos.grad.isfinite().all()


def test_a_view_without_triangles_is_empty_and_can_be_differentiated():
    vertices, tri = octahedron()
    pos = (seen(vertices, [0.3]) + torch.tensor([50.0, 0, 0, 0], dtype=torch.float64)).requires_grad_()
    for triangles in (tri, tri[:0]):
        rast, rast_db = rasteriser.rasterize(CONTEXT, pos, triangles, (5, 4))
        out, _ = rasteriser.interpolate(vertices, rast, triangles, rast_db, "all")
        smooth = rasteriser.antialias(out, rast, pos, triangles)
        (gradient,) = torch.autograd.grad(smooth.sum() + rast.sum() + rast_db.sum(), pos)
        assert (rast == 0).all() and (smooth == 0).all() and (gradient == 0).all()


def test_bad_input_is_refused():
    vertices, tri = octahedron()
    pos = seen(vertices, [0.3])
    with pytest.raises(ValueError, match=r"pos is \(6, 4\); expected"):
        rasteriser.rasterize(CONTEXT, pos[0], tri, (4, 4))
    with pytest.raises(ValueError, match=r"pos is \(1, 6, 4\); expected"):
        rasteriser.rasterize(CONTEXT, pos, tri, (4, 4), torch.tensor([[0, 8]]).int())
    many = torch.zeros(1, 3, dtype=torch.int32).expand(2**24 + 1, 3)
    with pytest.raises(ValueError, match="16777217 triangles"):
        rasteriser.rasterize(CONTEXT, pos.float(), many, (4, 4))
    assert visible_triangles(pos, tri, 4, 4).max() >= 0


def test_the_triangle_of_nvdiffrasts_first_sample_has_its_published_picture():
    # samples/torch/triangle.py and docs/img/tri.png, read from below; the diagonal passes through pixel centres, which
    # nvdiffrast leaves out
    pos = torch.tensor([[[-0.8, -0.8, 0, 1], [0.8, -0.8, 0, 1], [-0.8, 0.8, 0, 1]]])
    tri = torch.tensor([[0, 1, 2]]).int()
    rast, _ = rasteriser.rasterize(CONTEXT, pos, tri, (256, 256))
    picture = rasteriser.interpolate(torch.eye(3)[None], rast, tri)[0][0].mul(255).round().int()
    pixel = torch.arange(256)
    off_diagonal = pixel[:, None] + pixel != 255
    assert ((rast[0, ..., 3] > 0) & off_diagonal).sum() == 20706
    for (row, column), colour in {
        (26, 26): [253, 1, 1],
        (60, 40): [193, 19, 43],
        (100, 100): [68, 93, 93],
        (30, 220): [6, 243, 6],
        (210, 30): [19, 6, 230],
        (126, 127): [2, 127, 126],
        (128, 128): [0, 0, 0],
    }.items():
        assert picture[row, column].tolist() == colour
