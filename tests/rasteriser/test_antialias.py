"""Silhouettes: blended values in closed form and against a loop over pairs, gradients, topologies."""

import numpy as np
import pytest
import torch
import trimesh
from latent_prior import rasteriser
from latent_prior.rasteriser.topology import opposite_half_edges
from reference.clip_meshes import octahedron, random_mesh, seen
from reference.rasteriser import antialiased, opposite

CONTEXT = rasteriser.RasterizeCudaContext()
SQUARE = torch.tensor([[0, 1, 2], [0, 2, 3]]).int()


def mask(pos, tri, size, boost=1.0):
    """The antialiased opacity of a mesh."""
    rast, _ = rasteriser.rasterize(CONTEXT, pos, tri, size)
    covered = (rast[..., 3:] > 0).to(pos.dtype)
    return rasteriser.antialias(covered, rast, pos, tri, pos_gradient_boost=boost)


def square(left, right, bottom, top, w=(1.0, 1.0, 1.0, 1.0)):
    """Clip coordinates 1 4 4 of a rectangle of the screen, tilted in depth by the corners' w."""
    corners = [[left, bottom, 0, 1], [right, bottom, 0, 1], [right, top, 0, 1], [left, top, 0, 1]]
    return (torch.tensor(corners, dtype=torch.float64) * torch.tensor(w, dtype=torch.float64)[:, None])[None]


@pytest.mark.parametrize("slope", [0.0, 0.3, -0.8])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_half_plane_covers_each_row_up_to_its_border(slope, swapped):
    size = 8
    for offset in torch.linspace(-0.16, 0.15, 8, dtype=torch.float64):
        # everything left of x = offset + slope * y, as a triangle that reaches far beyond the picture
        pos = torch.tensor([[0, -40, 0, 1], [0, 40, 0, 1], [-90, 0, 0, 1]], dtype=torch.float64)
        pos[:, 0] += offset + slope * pos[:, 1]
        pos = pos[:, [1, 0, 2, 3]] if swapped else pos
        found = mask(pos[None], torch.tensor([[0, 1, 2]]).int(), (size, size))[0, ..., 0]
        found = found.T if swapped else found
        row = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1
        border = (offset + slope * row + 1) / 2 * size  # in pixels
        wanted = (border[:, None] - torch.arange(size, dtype=torch.float64)).clamp(0, 1)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("w", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 2.0, 0.5)])
def test_a_moving_rectangle_loses_and_gains_area(w):
    # two rows of eight, with the upper and the lower border between pixels, so that the area is rows * width
    for left in (-0.371, -0.3, -0.229):
        pos = square(left, 0.512, -0.25, 0.25, w).requires_grad_()
        picture = mask(pos, SQUARE, (8, 16))
        torch.testing.assert_close(picture.sum().item(), 2 * 8 * (0.512 - left), rtol=0, atol=1e-12)
        (gradient,) = torch.autograd.grad(picture.sum(), pos)
        by_x = gradient[0, :, 0] * torch.tensor(w, dtype=torch.float64)  # of the screen's x
        torch.testing.assert_close((by_x[0] + by_x[3]).item(), -2 * 8.0)  # the left border loses by moving right
        torch.testing.assert_close((by_x[1] + by_x[2]).item(), 2 * 8.0)


def test_a_box_seen_straight_on_has_the_silhouette_of_its_face():
    # its sides are seen edge-on, neither in front nor behind
    front, back = square(-0.52, 0.47, -0.55, 0.6)[0], square(-0.52, 0.47, -0.55, 0.6)[0]
    back[:, 2] = 0.5
    sides = [[i, (i + 1) % 4, (i + 1) % 4 + 4] for i in range(4)] + [[i, (i + 1) % 4 + 4, i + 4] for i in range(4)]
    box = torch.cat([SQUARE, SQUARE + 4, torch.tensor(sides).int()])
    torch.testing.assert_close(
        mask(torch.cat([front, back])[None], box, (8, 8)), mask(front[None], SQUARE, (8, 8)), rtol=0, atol=1e-12
    )


def cases():
    vertices, tri = octahedron()
    yield "octahedron", seen(vertices, [0.3, 1.1]), tri, (9, 12)
    yield "its upper half: a boundary", seen(vertices, [0.3]), tri[[0, 1, 4, 5]], (12, 9)
    yield "two of them, one within the other", *_nested(), (13, 11)
    diamond = torch.tensor([[0.5, 0, 0, 1], [0, 0.5, 0, 1], [-0.5, 0, 0, 1], [0, -0.5, 0, 1]], dtype=torch.float64)
    yield "borders at 45 degrees", diamond[None], SQUARE, (8, 8)
    yield "three faces at an edge", seen(vertices, [0.9]), torch.cat([tri, torch.tensor([[0, 1, 4]]).int()]), (11, 11)
    yield "each face twice", seen(vertices, [0.9]), torch.cat([tri, tri.flip(1)]), (11, 11)
    for seed, name in enumerate(("a sphere", "bumps", "of any orientation", "of any orientation, with holes")):
        yield name, *_bumpy(seed), (8, 9)
    for seed in (0, 3, 6, 12, 18, 24, 30, 5):
        pos, tri, *_ = random_mesh(seed)
        if (pos[:, 3] > 0).all():
            yield f"random mesh {seed}", pos[None], tri, (11, 12)


def _nested():
    vertices, tri = octahedron()
    small = 0.7 * vertices[:, [2, 0, 1]] + torch.tensor([0.4, 0.2, 0.1], dtype=vertices.dtype)
    return seen(torch.cat([vertices, small]), [0.3]), torch.cat([tri, tri + 6])


def _bumpy(kind):
    """A sphere of triangles of a pixel's size: round, with bumps, which fold it, or worse."""
    sphere, g = trimesh.creation.icosphere(2, 0.9), torch.Generator().manual_seed(kind)
    vertices, tri = torch.tensor(np.array(sphere.vertices)), torch.tensor(np.array(sphere.faces)).int()
    vertices *= 1 + 0.3 * torch.rand(len(vertices), 1, generator=g) * (kind > 0)
    if kind >= 2:
        tri = torch.where(torch.rand(len(tri), 1, generator=g) < 0.5, tri, tri.flip(1))
    return seen(vertices, [0.3]), tri[torch.rand(len(tri), generator=g) < (0.8 if kind == 3 else 1)]


@pytest.mark.parametrize("name, pos, tri, size", cases(), ids=lambda x: x if isinstance(x, str) else "")
def test_values_are_those_of_a_loop_over_pairs(name, pos, tri, size):
    g = torch.Generator().manual_seed(0)
    color = torch.rand(len(pos), *size, 2, generator=g, dtype=torch.float64)
    rast, _ = rasteriser.rasterize(CONTEXT, pos, tri, size)
    wanted = torch.from_numpy(antialiased(color.numpy(), rast.numpy(), pos.numpy(), tri.tolist()))
    assert not torch.equal(wanted, color)
    for topology in (None, rasteriser.antialias_construct_topology_hash(tri)):
        torch.testing.assert_close(rasteriser.antialias(color, rast, pos, tri, topology), wanted)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_of_finite_differences(seed):
    pos, tri = _nested()
    g = torch.Generator().manual_seed(seed)
    pos = pos + 0.02 * torch.randn(pos.shape, generator=g, dtype=pos.dtype)
    color = torch.rand(1, 6, 7, 2, generator=g, dtype=pos.dtype)
    rast, _ = rasteriser.rasterize(CONTEXT, pos, tri, (6, 7))
    assert torch.autograd.gradcheck(
        lambda color, pos: rasteriser.antialias(color, rast, pos, tri),
        (color.requires_grad_(), pos.requires_grad_()),
        eps=1e-7, rtol=1e-3, atol=1e-5, fast_mode=True,
    )  # fmt: skip


def test_a_saturated_share_has_no_gradient():
    # the left border at the pixels' centres: t = 0; a hair beyond, the gradient is there
    for left, wanted in ((-0.375, 0.0), (-0.376, -2 * 4.0)):
        pos = square(left, 0.6, -0.25, 0.25).requires_grad_()
        (gradient,) = torch.autograd.grad(mask(pos, SQUARE, (8, 8)).sum(), pos)
        torch.testing.assert_close((gradient[0, 0, 0] + gradient[0, 3, 0]).item(), wanted)


def test_the_boost_multiplies_the_gradient_of_positions_alone():
    vertices, tri = octahedron()
    pos = seen(vertices, [0.3]).requires_grad_()
    weight = torch.rand(1, 9, 9, 1, dtype=pos.dtype, generator=torch.Generator().manual_seed(0))
    plain, boosted = mask(pos, tri, (9, 9)), mask(pos, tri, (9, 9), boost=3.0)
    torch.testing.assert_close(boosted, plain, rtol=0, atol=0)
    gradients = [torch.autograd.grad((picture * weight).sum(), pos)[0] for picture in (plain, boosted)]
    torch.testing.assert_close(gradients[1], 3 * gradients[0])
    color = torch.rand(1, 9, 9, 1, dtype=pos.dtype, requires_grad=True)
    rast = rasteriser.rasterize(CONTEXT, pos, tri, (9, 9))[0].detach()
    by_color = [
        torch.autograd.grad((rasteriser.antialias(color, rast, pos, tri, None, boost) * weight).sum(), color)[0]
        for boost in (1.0, 3.0)
    ]
    torch.testing.assert_close(*by_color)


def test_a_silhouette_with_a_corner_behind_the_camera_is_blended():
    # everything right of x = -0.3 on the screen; then the upper corner is p_1 - 2 p_0, on the same border with w = -1
    pos = torch.tensor([[-0.3, -9, 0, 1], [-0.3, 9, 0, 1], [90, 0, 0, 1]], dtype=torch.float64)
    wanted = mask(pos[None], torch.tensor([[0, 1, 2]]).int(), (6, 8))
    pos[1] -= 2 * pos[0]
    found = mask(pos[None], torch.tensor([[0, 1, 2]]).int(), (6, 8))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert set(found.unique().tolist()) > {0, 1}


@pytest.mark.parametrize("seed", range(6))
def test_opposite_half_edges_are_those_of_a_search(seed):
    g = torch.Generator().manual_seed(seed)
    tri = torch.randint(0, 7, (9, 3), generator=g).int()  # boundaries, shared edges, repeated corners and triangles
    found = [opposite(tri.tolist(), f, i) for f in range(9) for i in range(3)]
    wanted = torch.tensor([-1 if half_edge is None else 3 * half_edge[0] + half_edge[1] for half_edge in found])
    torch.testing.assert_close(opposite_half_edges(tri), wanted.reshape(9, 3))
