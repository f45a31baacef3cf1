"""Texture look-ups against loops over texels, and their gradients."""

import math

import numpy as np
import pytest
import torch
from latent_prior import rasteriser
from latent_prior.rasteriser import cube_maps
from reference import textures

BOUNDARIES = ("wrap", "clamp", "zero")


def random(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pictures(sheets=1, height=4, width=8):
    """(textures, uv within and beyond the unit square) for two views of three by five pixels."""
    return random(sheets, height, width, 3), random(2, 3, 5, 2, seed=1) * 3 - 1


def loop(function, uv, *more):
    """A look-up pixel by pixel: `function(view, u, v, *values of more)`."""
    rows = [
        [[function(view, *uv[view, i, j].tolist(), *(m[view, i, j] for m in more)) for j in range(uv.shape[2])]
         for i in range(uv.shape[1])]
        for view in range(uv.shape[0])
    ]  # fmt: skip
    return torch.from_numpy(np.array(rows))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("sheets", [1, 2])
def test_one_level_is_that_of_a_loop(mode, boundary, sheets):
    tex, uv = pictures(sheets)
    found = rasteriser.texture(tex, uv, filter_mode=mode, boundary_mode=boundary)
    look_up = getattr(textures, mode)
    wanted = loop(lambda view, u, v: look_up(tex[view % sheets].numpy(), u, v, boundary), uv)
    torch.testing.assert_close(found, wanted)


def test_linear_is_automatic_and_exact_at_centres_of_texels():
    tex, _ = pictures()
    v, u = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(8) + 0.5) / 8, indexing="ij")
    uv = torch.stack([u, v], -1)[None].double()
    for boundary in BOUNDARIES:
        for shift in (0, 1, -2) if boundary == "wrap" else (0,):
            torch.testing.assert_close(rasteriser.texture(tex, uv + shift, boundary_mode=boundary), tex)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("mode", ["linear-mipmap-nearest", "linear-mipmap-linear"])
@pytest.mark.parametrize("given", ["uv_da", "bias", "both"])
def test_mip_levels_are_those_of_a_loop(mode, boundary, given):
    tex, uv = pictures(sheets=2)
    uv_da = (random(2, 3, 5, 4, seed=2) - 0.5) * 2 ** (4 * random(2, 3, 5, 1, seed=3) - 3) if given != "bias" else None
    bias = random(2, 3, 5, seed=4) * 5 - 1 if given != "uv_da" else None
    levels = [textures.mip_levels(sheet.numpy()) for sheet in tex]
    seen = []

    def look_up(view, u, v, da, bias):
        level = textures.mip_level(tex[view].numpy(), None if uv_da is None else da, float(bias), 3)
        seen.append(level)
        return textures.mip(levels[view], u, v, level, boundary, mode.endswith("linear"))

    zeros = torch.zeros(2, 3, 5, 4)
    wanted = loop(look_up, uv, zeros if uv_da is None else uv_da, zeros[..., 0] if bias is None else bias)
    mip = rasteriser.texture_construct_mip(tex)
    for made in (None, mip):
        found = rasteriser.texture(tex, uv, uv_da, bias, made, mode, boundary)
        torch.testing.assert_close(found, wanted)
    if mode.endswith("linear"):
        torch.testing.assert_close(rasteriser.texture(tex, uv, uv_da, bias, boundary_mode=boundary), wanted)
    assert min(seen) == 0 and len({math.floor(level) for level in seen}) >= 3


@pytest.mark.parametrize("height, width", [(8, 8), (2, 8), (4, 1)])
def test_mip_levels_are_means(height, width):
    tex = random(2, height, width, 3)
    made = rasteriser.texture_construct_mip(tex)
    for sheet in range(2):
        wanted = textures.mip_levels(tex[sheet].numpy())[1:]
        assert len(made) == len(wanted)
        for a, b in zip(made, wanted, strict=True):
            torch.testing.assert_close(a[sheet], torch.from_numpy(b))
    assert [len(rasteriser.texture_construct_mip(tex, most)) for most in (0, 1, 9)] == [0, 1, len(made)]
    cube = tex.new_ones(1, 6, 4, 4, 2) * torch.arange(6.0).reshape(6, 1, 1, 1)
    faces = rasteriser.texture_construct_mip(cube, cube_mode=True)
    assert [tuple(level.shape) for level in faces] == [(1, 6, 2, 2, 2), (1, 6, 1, 1, 2)]
    torch.testing.assert_close(faces[1][0, :, 0, 0, 0], torch.arange(6.0, dtype=tex.dtype))


def test_max_mip_level_limits_the_levels_used():
    tex, uv = pictures()
    bias = torch.full((2, 3, 5), 9.0, dtype=torch.float64)
    levels = textures.mip_levels(tex[0].numpy())
    for most, last in ((None, 3), (2, 2), (1, 1), (0, 0)):
        wanted = loop(lambda view, u, v, level=levels[last]: textures.linear(level, u, v, "wrap"), uv)
        torch.testing.assert_close(rasteriser.texture(tex, uv, mip_level_bias=bias, max_mip_level=most), wanted)


def test_a_texture_given_with_its_levels_may_have_any_levels():
    tex, uv = pictures()
    own = [random(1, 2, 4, 3, seed=5), random(1, 1, 2, 3, seed=6)]
    found = rasteriser.texture(tex, uv, mip_level_bias=torch.full((2, 3, 5), 1.25, dtype=tex.dtype), mip=own)
    levels = [level[0].numpy() for level in (tex, *own)]
    torch.testing.assert_close(found, loop(lambda view, u, v: textures.mip(levels, u, v, 1.25, "wrap", True), uv))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "linear-mipmap-nearest", "linear-mipmap-linear"])
def test_gradients_are_those_of_finite_differences(mode, boundary):
    tex, uv = pictures()
    inputs = [tex.requires_grad_(), uv.requires_grad_()]
    if "mipmap" in mode:
        inputs += [
            (random(2, 3, 5, 4, seed=2) - 0.5).requires_grad_(),
            (random(2, 3, 5, seed=4) - 0.5).requires_grad_(),
        ]
    assert torch.autograd.gradcheck(
        lambda *given: rasteriser.texture(*given, filter_mode=mode, boundary_mode=boundary),
        inputs, rtol=1e-3, atol=1e-6, fast_mode=True,
    )  # fmt: skip


def test_gradients_of_levels_go_to_given_levels_and_else_to_the_texture():
    tex, uv = pictures()
    tex.requires_grad_()
    bias = torch.full((2, 3, 5), 1.0, dtype=tex.dtype)
    through, _ = torch.autograd.grad(rasteriser.texture(tex, uv, mip_level_bias=bias).sum(), (tex, tex))
    assert (through > 0).all() and abs(through.sum().item() - 90) < 1e-9
    level = rasteriser.texture_construct_mip(tex, 1)[0].detach().requires_grad_()
    found = rasteriser.texture(tex, uv, mip_level_bias=bias, mip=[level])
    base, own = torch.autograd.grad(found.sum(), (tex, level))
    assert (base == 0).all() and abs(own.sum().item() - 90) < 1e-9


def test_pixels_without_a_footprint_have_finite_gradients():
    tex, uv = pictures()
    uv_da = torch.zeros(2, 3, 5, 4, dtype=tex.dtype)
    uv_da[1] = torch.tensor([0.3, 0, 0, 0.6])  # a circle of 2.4 texels
    uv_da.requires_grad_()
    found = rasteriser.texture(tex.requires_grad_(), uv, uv_da)
    for gradient in torch.autograd.grad(found.square().sum(), (tex, uv_da)):
        assert gradient.isfinite().all() and (gradient != 0).any()
    torch.testing.assert_close(found[0], rasteriser.texture(tex, uv)[0])


def directions():
    """Directions into all faces, some to the cube's edges and corners, within half a texel's distance."""
    given = torch.randn(1, 20, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    close = given.sign() * (1 + 0.02 * given)
    close[0, :10] *= torch.tensor([[1.0, 1.0, 0.3], [0.1, 1, 1], [1, 0.6, 1]], dtype=given.dtype).repeat(4, 1)
    return torch.cat([given, close], 1)


def test_faces_of_a_cube_are_opengls():
    for direction in directions().reshape(-1, 3):
        face, st, _, proper = cube_maps.project(direction[None])
        assert proper.all()
        np.testing.assert_allclose([face.item(), *st[0]], textures.cube_face(direction.numpy()), rtol=1e-12, atol=1e-12)


def test_texels_directions_are_those_whose_texels_are_read():
    at = cube_maps.texel_directions(4)
    face, st, _, _ = cube_maps.project(at.reshape(-1, 3))
    row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    torch.testing.assert_close(face, torch.arange(6).repeat_interleave(16))
    torch.testing.assert_close(st * 4 - 0.5, torch.stack([column, row], -1).float().reshape(-1, 2).repeat(6, 1))
    assert (at.abs().amax(-1) == 1).all()


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_cube_maps_are_continued_across_edges_and_corners(size):
    tex, uv = random(1, 6, size, size, 2), directions()
    found = rasteriser.texture(tex, uv, filter_mode="linear", boundary_mode="cube")
    padded = textures.padded_cube(tex[0].numpy())
    for i in range(uv.shape[1]):
        for j in range(uv.shape[2]):
            wanted = textures.cube_linear(padded, uv[0, i, j].numpy())
            torch.testing.assert_close(found[0, i, j], torch.from_numpy(wanted))


def test_the_nearest_texel_of_a_cube_map():
    tex, uv = random(1, 6, 4, 4, 2), directions()
    found = rasteriser.texture(tex, uv, filter_mode="nearest", boundary_mode="cube")
    for i in range(uv.shape[1]):
        face, s, t = textures.cube_face(uv[0, i, 0].numpy())
        torch.testing.assert_close(found[0, i, 0], tex[0, face, min(int(t * 4), 3), min(int(s * 4), 3)])


def test_mip_levels_of_a_cube_map_follow_the_footprint_on_the_face():
    tex, uv = random(2, 6, 8, 8, 2), torch.cat([directions()] * 2)
    uv_da = 0.6 * (random(*uv.shape[:3], 6, seed=3) - 0.5)
    found = rasteriser.texture(tex, uv, uv_da, boundary_mode="cube")
    step, levels, stack = 1e-6, [], [tex, *rasteriser.texture_construct_mip(tex, cube_mode=True)]
    for view, i, j in ((view, i, j) for view in range(2) for i in range(0, 40, 9) for j in range(12)):
        direction, jacobian = uv[view, i, j].numpy(), uv_da[view, i, j].reshape(3, 2).numpy()
        face = textures.cube_face(direction)[0]
        if any(textures.cube_face(direction + s * step * d)[0] != face for d in jacobian.T for s in (1, -1)):
            continue
        ends = [[textures.cube_face(direction + s * step * d)[1:] for s in (1, -1)] for d in jacobian.T]
        da = np.array([(np.array(a) - b) / (2 * step) for a, b in ends]).T
        level = textures.mip_level(tex[view, 0].numpy(), da, 0.0, 3)
        lower = math.floor(level)
        values = [
            rasteriser.texture(at[view : view + 1], uv[view, i, j][None, None, None], boundary_mode="cube").flatten()
            for at in (stack[lower], stack[min(lower + 1, 3)])
        ]
        torch.testing.assert_close(found[view, i, j], torch.lerp(*values, level - lower), rtol=1e-6, atol=1e-6)
        levels.append(level)
    assert len(levels) > 60 and min(levels) == 0 and max(levels) > 1


def test_gradients_of_a_cube_map():
    tex, uv = random(1, 6, 4, 4, 2), directions()[:, ::5, :4].contiguous()
    uv_da = random(*uv.shape[:3], 6, seed=3) - 0.5
    for given in ((tex, uv), (tex, uv, uv_da)):
        assert torch.autograd.gradcheck(
            lambda *given: rasteriser.texture(*given, boundary_mode="cube"),
            [x.requires_grad_() for x in given], eps=1e-7, rtol=1e-3, atol=1e-5, fast_mode=True,
        )  # fmt: skip


def test_directions_without_a_face_give_zero_and_no_gradient():
    tex = random(1, 6, 4, 4, 2).requires_grad_()
    uv = torch.tensor([[0.0, 0, 0], [math.nan, 1, 0], [math.inf, 0, 0], [1, 2, 3]], dtype=tex.dtype)[None, None]
    found = rasteriser.texture(tex, uv.requires_grad_(), filter_mode="linear", boundary_mode="cube")
    assert (found[0, 0, :3] == 0).all() and (found[0, 0, 3] != 0).all()
    for gradient in torch.autograd.grad(found.sum(), (tex, uv)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"filter_mode": "cubic"}, "modes 'cubic', 'wrap'; expected one of"),
        ({"boundary_mode": "mirror"}, "modes 'auto', 'mirror'"),
        ({"boundary_mode": "cube"}, "do not fit with 'cube'"),
        ({"filter_mode": "linear-mipmap-linear"}, "needs uv_da or mip_level_bias"),
        ({"tex": random(1, 6, 4, 3), "mip_level_bias": random(2, 3, 5)}, "mip level 1 has 3 x 2 texels"),
        ({"tex": random(3, 4, 4, 3)}, "do not fit with 'wrap'"),
    ],
)
def test_bad_input_is_refused(options, message):
    tex, uv = pictures()
    with pytest.raises(ValueError, match=message):
        rasteriser.texture(**({"tex": tex, "uv": uv} | options))
