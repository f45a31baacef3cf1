"""The pyramid of distances against slow sums, its gradients, and the renderer on it."""

import pytest
import torch
import torch.nn.functional as F
from latent_prior import OptionError, host
from latent_prior.rendering import volume_renderer
from latent_prior.rendering.sdf_grid import SDFGrid
from latent_prior.rendering.volume_renderer import DenseVolumeRenderer

SMALL = {"levels": [2, 4, 8], "feature_size": 4, "radius": 0.9, "sphere": 0.5}


def field(**settings) -> SDFGrid:
    """A field whose levels and features are random."""
    geometry = host.find("sdf-grid")(SMALL | settings)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in geometry.parameters():
            part.copy_(torch.randn(part.shape, generator=draw))
    return geometry


def points_in(geometry, count=200, share=0.8):
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * share * geometry.cfg.radius


def test_it_starts_as_a_sphere():
    geometry = host.find("sdf-grid")({"levels": [8, 16, 32, 64], "sphere": 0.4})
    points = points_in(geometry, 500)
    expected = points.norm(dim=-1, keepdim=True) - 0.4
    torch.testing.assert_close(geometry(points)["sdf"], expected, atol=0.02, rtol=0)
    assert (geometry(points)["features"] == 0).all()


def test_levels_add_up_from_coarse_to_fine():
    geometry = field(level_scale=0.2)
    total = torch.zeros(1, 1, 2, 2, 2)
    for level in geometry.levels:
        total = F.interpolate(total, size=level.shape[2:], mode="trilinear", align_corners=False) + 0.2 * level
    centres = (torch.arange(8) + 0.5) / 8 * 1.8 - 0.9
    z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
    expected = (x**2 + y**2 + z**2).sqrt() - 0.5 - total[0, 0]
    torch.testing.assert_close(geometry.distances()[0, 0], expected)
    at_centres = torch.stack([x, y, z], dim=-1)
    torch.testing.assert_close(geometry.forward_sdf(at_centres)[..., 0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(geometry(at_centres)["sdf"][..., 0], expected, atol=1e-5, rtol=0)
    assert geometry.spacing == pytest.approx(1.8 / 8)


def test_what_lies_in_the_ball():
    geometry = field(level_scale=0.5)
    centres = (torch.arange(8) + 0.5) / 8 * 1.8 - 0.9
    z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
    out_of_ball = (x**2 + y**2 + z**2).sqrt() - 0.9
    whole, in_ball = geometry.distances()[0, 0], geometry.distances_in_ball()[0, 0]
    assert (whole[out_of_ball > 0] < 0).any() and not (in_ball[out_of_ball > 0] < 0).any()
    torch.testing.assert_close(in_ball, torch.where(whole > out_of_ball, whole, out_of_ball))


def test_normals_are_the_gradients_direction():
    geometry = host.find("sdf-grid")({"levels": [8, 16, 32], "sphere": 0.5})
    directions = F.normalize(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    out = geometry(0.5 * directions, output_normal=True)
    assert (out["normal"] * directions).sum(-1).min() > 0.99
    torch.testing.assert_close(out["sdf_grad"].norm(dim=-1), torch.ones(100), atol=0.05, rtol=0)
    assert torch.equal(out["normal"], out["shading_normal"])


def test_finer_levels_fade_in():
    geometry = field(level_steps=[0, 0, 10], level_fade=4)
    assert geometry.settled_step == 14
    points = points_in(geometry)
    with torch.no_grad():
        coarse = geometry.forward_sdf(points)
        geometry.levels[2].zero_()
        torch.testing.assert_close(geometry.forward_sdf(points), coarse)
        geometry.levels[2].fill_(1.0)
        for step, share in ((9, 0.0), (10, 0.0), (11, 0.25), (14, 1.0), (50, 1.0)):
            geometry.update_step(0, step)
            torch.testing.assert_close(geometry.forward_sdf(points), coarse - share * 0.05, atol=1e-5, rtol=0)
    at_once = field(level_steps=[0, 0, 10], level_fade=0)
    for step, share in ((9, 0.0), (10, 1.0)):
        at_once.update_step(0, step)
        assert at_once.shares.tolist() == [1.0, 1.0, share]
    assert at_once.settled_step == 10 and field().settled_step == 0


def test_threestudios_contract():
    geometry = field(n_feature_dims=0)
    points = points_in(geometry)
    distance, deformation = geometry.forward_field(points)
    assert deformation is None and torch.equal(geometry.forward_level(distance, 0.1), distance - 0.1)
    assert geometry.export(points) == {} and set(geometry(points)) == {"sdf"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": [16, 8]}, "levels"),
        ({"levels": []}, "levels"),
        ({"levels": "8"}, "levels"),
        ({"levels": [1, 8]}, "levels"),
        ({"level_scale": 0.0}, "level_scale is 0.0; expected a positive length"),
        ({"sphere": -1.0}, "sphere"),
        ({"level_steps": [0, 5]}, "level_steps is .* 3 steps"),
        ({"level_steps": [0, 5, -1]}, "level_steps"),
        ({"level_fade": -1}, "level_fade"),
        ({"feature_size": 1}, "feature_size"),
        ({"n_feature_dims": -1}, "n_feature_dims"),
        ({"levels": [8, 100000]}, "levels"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(OptionError, match=f"system.geometry.{message}|memory"):
        host.find("sdf-grid")(SMALL | settings)


def scene(geometry, **settings):
    material, background = host.find("no-material")({}), host.find("solid-color-background")({})
    settings = {"num_samples_per_ray": 64, "radius": 0.9, "randomized": False} | settings
    return DenseVolumeRenderer(settings, geometry=geometry, material=material, background=background)


def rays(size=9):
    ticks = torch.linspace(-0.85, 0.85, size)
    z, y = torch.meshgrid(-ticks, ticks, indexing="ij")
    origins = torch.stack([torch.full_like(y, 3.0), y, z], dim=-1)[None]
    directions = torch.tensor([-1.0, 0.0, 0.0]).expand_as(origins)
    return {"rays_o": origins, "rays_d": directions, "light_positions": torch.zeros(1, 3)}


@pytest.mark.parametrize("training", [True, False])
def test_a_sphere_is_rendered_where_it_is(training):
    geometry = host.find("sdf-grid")({"levels": [8, 32, 64], "sphere": 0.5, "radius": 0.9})
    renderer = scene(geometry, inv_std=200.0).train(training)
    given = rays()
    out = renderer(**given)
    away = given["rays_o"][0, ..., 1:].norm(dim=-1)
    hit = away < 0.44
    assert (out["opacity"][0, ..., 0][hit] > 0.95).all() and (out["opacity"][0, ..., 0][away > 0.56] < 0.05).all()
    depth = 3 - (0.25 - away[hit] ** 2).sqrt()
    torch.testing.assert_close(out["depth"][0, ..., 0][hit], depth, atol=0.04, rtol=0.02)
    if not training:
        middle = out["comp_normal"][0, 4, 4] * 2 - 1
        assert middle[0] > 0.98  # towards the camera


def test_the_thickness_follows_its_schedule():
    geometry = host.find("sdf-grid")({"levels": [8, 32], "sphere": 0.5, "radius": 0.9})
    renderer = scene(geometry, inv_std=[0, 10.0, 110.0, 100])
    blur = []
    for step in (0, 50, 100):
        renderer.update_step(0, step, on_load_weights=True)
        opacity = renderer(**rays(33))["opacity"]
        blur.append(((opacity > 0.05) & (opacity < 0.95)).float().mean().item())
    assert blur[0] > blur[1] > blur[2]
    for wrong in (0.0, [0, 10.0, -1.0, 100], "thin", [1.0]):
        with pytest.raises(OptionError, match=r"system\.renderer\.inv_std"):
            scene(geometry, inv_std=wrong)


def test_pruning_keeps_the_picture():
    geometry = host.find("sdf-grid")({"levels": [8, 32], "sphere": 0.3, "radius": 0.9})
    whole, pruned = (
        scene(geometry, inv_std=60.0, num_samples_per_ray=200),
        scene(geometry, inv_std=60.0, num_samples_per_ray=200, grid_prune=True, prune_alpha=0.01),
    )
    pruned.train().update_step(0, 16)
    assert (pruned.occupied_bbox.abs() < 0.7).all()
    torch.testing.assert_close(pruned(**rays())["opacity"], whole(**rays())["opacity"], atol=0.02, rtol=0)


def test_gradients_pull_the_surface():
    geometry = host.find("sdf-grid")(SMALL)
    opacity = scene(geometry, inv_std=20.0)(**rays())["opacity"]
    opacity.mean().backward()
    assert all(level.grad.sum() > 0 for level in geometry.levels)  # more of a level is more of the body


def test_colours_are_read_only_where_a_sample_shows(monkeypatch):
    """And the picture, and its gradients, are those of all samples."""
    geometry, asked = field(), []
    renderer = scene(geometry, inv_std=40.0)
    given = rays()
    monkeypatch.setattr(
        SDFGrid,
        "export",
        lambda self, points, export=SDFGrid.export: (asked.append(len(points)), export(self, points))[1],
    )
    results = []
    for limit in (-1.0, volume_renderer.NEGLIGIBLE_WEIGHT):
        monkeypatch.setattr(volume_renderer, "NEGLIGIBLE_WEIGHT", limit)
        out = renderer(**given)
        results.append((out["comp_rgb"], *torch.autograd.grad(out["comp_rgb"].square().sum(), geometry.parameters())))
    assert asked[1] < 0.7 * asked[0] == 0.7 * len(out["weights"])
    torch.testing.assert_close(results[1], results[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("count", [6, 7])
def test_points_shared_by_two_threads(count):
    """Whatever their number: the rows of torch's kernel are equally long."""
    geometry, threads = field(), torch.get_num_threads()
    points = points_in(geometry, count)
    try:
        found = []
        for torch_threads in (1, 2):
            torch.set_num_threads(torch_threads)
            found.append(geometry(points, output_normal=True))
    finally:
        torch.set_num_threads(threads)
    assert len(found[1]["sdf"]) == count
    torch.testing.assert_close(found[1], found[0])
