"""Pictures of clay against closed forms: where a sphere is, how bright it is, and that a hollow is darker."""

import torch
from latent_prior.rendering import light
from latent_prior.rendering.clay import clay_light, clay_pictures

BOX = torch.tensor([[-0.9] * 3, [0.9] * 3])


def grid(distance, size=48):
    centres = ((torch.arange(size) + 0.5) / size * 2 - 1) * 0.9
    z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
    return distance(torch.stack([x, y, z], dim=-1))[None, None]


def straight(direction, size=33, half=0.85):
    """Parallel rays along an axis."""
    direction = torch.tensor(direction)
    ticks = torch.linspace(-half, half, size)
    v, u = torch.meshgrid(-ticks, ticks, indexing="ij")
    first = torch.tensor([0.0, 1.0, 0.0])
    second = torch.linalg.cross(direction, first)
    origins = u[..., None] * first + v[..., None] * second - 3 * direction
    return origins[None], direction.expand_as(origins)[None], torch.hypot(u, v)


def picture_of(distances, origins, directions, colour=(1.0, 1.0, 1.0), **options):
    return clay_pictures(clay_light(distances, BOX, origins, directions), torch.tensor(colour), **options)


def test_a_sphere_is_where_it_is_and_as_bright_as_it_faces_sky_and_viewer():
    sphere = grid(lambda p: p.norm(dim=-1) - 0.5)
    origins, directions, away = straight([0.0, 0.0, -1.0])
    picture = picture_of(sphere, origins, directions, background=0.3)[0]
    assert (picture[away > 0.52] == 0.3).all()
    on = away < 0.4
    up = (1 - (away[on] / 0.5) ** 2).sqrt()  # the normal's z, towards sky and viewer alike
    expected = light.AMBIENT + light.SKY * (0.5 + 0.5 * up) + light.VIEWER * up
    torch.testing.assert_close(picture[on][:, 0], expected, atol=0.02, rtol=0)


def test_the_colour_is_the_clays():
    origins, directions, away = straight([-1.0, 0.0, 0.0])
    red = picture_of(grid(lambda p: p.norm(dim=-1) - 0.5), origins, directions, (1.0, 0.5, 0.0))
    seen = red[0][away < 0.4]
    torch.testing.assert_close(seen[:, 1], seen[:, 0] / 2)
    assert (seen[:, 2] == 0).all()


def test_a_hollow_is_darker_than_a_lid():
    def cup(depth):
        return grid(
            lambda p: torch.maximum(
                torch.maximum(p[..., :2].norm(dim=-1) - 0.4, p[..., 2].abs() - 0.5),
                -torch.maximum(p[..., :2].norm(dim=-1) - 0.15, 0.5 - depth - p[..., 2]),
            )
        )

    origins, directions, away = straight([0.0, 0.0, -1.0])
    light = [picture_of(cup(d), origins, directions)[0][away < 0.1].mean() for d in (0.0, 0.05, 0.6)]
    assert light[0] > 0.97 and light[0] >= light[1] > light[2] + 0.02


def test_rays_that_miss_or_start_inside_see_the_background():
    sphere = grid(lambda p: p.norm(dim=-1) - 0.95)  # it fills the ball that is drawn
    origins, directions, _ = straight([0.0, 0.0, -1.0], size=5)
    assert (picture_of(sphere, origins, directions, background=0.25) == 0.25).all()
    assert (picture_of(sphere, origins + 9, directions, background=0.25) == 0.25).all()
