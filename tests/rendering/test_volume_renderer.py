"""The renderer against a per-ray loop in float64, and what systems rely on."""

import math

import pytest
import torch
import torch.nn.functional as F
from latent_prior import host
from latent_prior.rendering.occupancy import occupied_box
from latent_prior.rendering.rays import ray_sphere
from latent_prior.rendering.volume_renderer import DenseVolumeRenderer


@pytest.fixture
def scene():
    """Builds (renderer, geometry) over a small random grid; keywords go into the renderer's config."""

    def build(grid_size=(7, 8, 9), background="solid-color-background", channels=3, normal_type=None, **config):
        torch.manual_seed(0)
        geometry = host.find("volume-grid")(
            {"grid_size": list(grid_size), "n_feature_dims": channels, "normal_type": normal_type}
        )
        with torch.no_grad():
            geometry.grid.normal_()
        material = host.find("no-material")({"n_output_dims": channels})
        color = [0.2, 0.5, 0.9, 0.1][:channels]
        options = {"color": color} if background == "solid-color-background" else {}
        behind = host.find(background)({"n_output_dims": channels, **options})
        config = {"num_samples_per_ray": 6, **config}
        renderer = DenseVolumeRenderer(config, geometry=geometry, material=material, background=behind)
        return renderer, geometry

    return build


def camera(batch=2, size=5, distance=3.0, fov=60.0):
    """Rays from the +x side and, for odd rows, from above; the corners miss the unit box."""
    half = math.tan(math.radians(fov) / 2)
    ticks = torch.linspace(half, -half, size)
    up, side = torch.meshgrid(ticks, ticks, indexing="ij")
    front = torch.stack([-torch.ones_like(up), side, up], dim=-1)
    above = torch.stack([side, up, -torch.ones_like(up)], dim=-1)
    rays_d = torch.stack([front if row % 2 == 0 else above for row in range(batch)])
    rays_d = rays_d / rays_d.norm(dim=-1, keepdim=True)
    centers = torch.tensor([[distance, 0.0, 0.1], [0.05, 0.0, distance]])[[row % 2 for row in range(batch)]]
    return {"rays_o": centers[:, None, None].expand_as(rays_d), "rays_d": rays_d, "light_positions": centers}


def loop_render(geometry, background, rays, samples):
    """Quadrature ray by ray, sample by sample, in float64 Python numbers; middle of each bin."""
    images = {"comp_rgb": [], "opacity": [], "depth": []}
    for origin, direction in zip(rays["rays_o"].reshape(-1, 3), rays["rays_d"].reshape(-1, 3), strict=True):
        near, far = -math.inf, math.inf
        for axis in range(3):
            o, d = float(origin[axis]), float(direction[axis])
            if abs(d) < 1e-15:
                near, far = (near, far) if abs(o) < 1 else (math.inf, -math.inf)
                continue
            a, b = (-1 - o) / d, (1 - o) / d
            near, far = max(near, min(a, b)), min(far, max(a, b))
        near = max(near, 0.0)
        light, rgb, depth = 1.0, [0.0, 0.0, 0.0], 0.0
        if far > near:
            width = (far - near) / samples
            for index in range(samples):
                t = near + (index + 0.5) * width
                out = geometry((origin.double() + t * direction.double()).float()[None])
                alpha = 1 - math.exp(-out["density"].item() * width)
                color = torch.sigmoid(out["features"])[0].tolist()
                rgb = [value + light * alpha * c for value, c in zip(rgb, color, strict=True)]
                depth += light * alpha * t
                light *= 1 - alpha
        images["comp_rgb"].append([value + light * b for value, b in zip(rgb, background, strict=True)])
        images["opacity"].append([1 - light])
        images["depth"].append([depth])
    shape = rays["rays_o"].shape[:3]
    return {key: torch.tensor(value).view(*shape, -1) for key, value in images.items()}


@pytest.mark.parametrize("training", [True, False])
def test_against_a_loop(scene, training):
    renderer, geometry = scene(randomized=False)
    renderer.train(training)
    rays = camera()
    with torch.no_grad():
        out = renderer(**rays)
        expected = loop_render(geometry, [0.2, 0.5, 0.9], rays, 6)
    assert 0 < (expected["opacity"] == 0).sum() < expected["opacity"].numel()  # some rays miss
    for key, value in expected.items():
        torch.testing.assert_close(out[key], value, atol=1e-5, rtol=1e-5)  # measured 1e-6


def test_uniform_ball_against_the_closed_form():
    # constant density in a ball: opacity 1 - exp(-sigma * chord), depth by Beer-Lambert
    class Ball(torch.nn.Module):
        def forward_density(self, points):
            return torch.full_like(points[..., :1], 1.7)

        def forward(self, points, output_normal=False):
            return {"density": self.forward_density(points), "features": torch.zeros_like(points)}

    renderer = DenseVolumeRenderer(
        {"bounds": "sphere", "radius": 0.8, "num_samples_per_ray": 400, "randomized": False},
        geometry=Ball(),
        material=host.find("no-material")({}),
        background=host.find("solid-color-background")({}),
    )
    rays = {
        "rays_o": torch.tensor([3.0, 0.0, 0.3]).expand(1, 1, 1, 3),
        "rays_d": torch.tensor([-1.0, 0, 0]).expand(1, 1, 1, 3),
    }
    out = renderer(**rays)
    half = math.sqrt(0.8**2 - 0.3**2)
    near, chord, sigma = 3 - half, 2 * half, 1.7
    depth = near + 1 / sigma - math.exp(-sigma * chord) * (near + chord + 1 / sigma)
    assert out["opacity"].item() == pytest.approx(1 - math.exp(-sigma * chord), abs=1e-5)
    assert out["depth"].item() == pytest.approx(depth, abs=1e-4)


def test_training_output_is_threestudios(scene):
    renderer, geometry = scene(background="textured-background")
    renderer.train()
    out = renderer(**camera(size=6), elevation=torch.zeros(2), mvp_mtx=torch.zeros(2, 4, 4))
    for key, channels in {"comp_rgb": 3, "comp_rgb_fg": 3, "comp_rgb_bg": 3, "opacity": 1, "depth": 1}.items():
        assert out[key].shape == (2, 6, 6, channels), key
    count = len(out["weights"])
    for key, width in {"weights": 1, "t_points": 1, "t_intervals": 1, "t_dirs": 3, "points": 3}.items():
        assert out[key].shape == (count, width), key
    assert out["density"].shape == (count, 1) and out["features"].shape == (count, 3)
    assert out["ray_indices"].shape == (count,) and out["ray_indices"].dtype == torch.long
    # the flat samples compose to the pictures
    opacity = torch.zeros(72).index_add(0, out["ray_indices"], out["weights"][:, 0])
    torch.testing.assert_close(opacity.view(2, 6, 6, 1), out["opacity"])
    depth = torch.zeros(72).index_add(0, out["ray_indices"], (out["weights"] * out["t_points"])[:, 0])
    torch.testing.assert_close(depth.view(2, 6, 6, 1), out["depth"])
    torch.testing.assert_close(out["comp_rgb"], out["comp_rgb_fg"] + out["comp_rgb_bg"] * (1 - out["opacity"]))
    assert (out["points"].abs() <= 1 + 1e-5).all()


def test_gradients_by_finite_differences(scene):
    renderer, geometry = scene(grid_size=(3, 3, 3), channels=4, randomized=False)
    renderer.double()
    geometry.double()
    rays = {key: value.double() for key, value in camera(batch=1, size=3).items()}

    out = renderer(**rays)
    target = torch.randn(out["comp_rgb"].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def objective():
        out = renderer(**rays)
        return ((out["comp_rgb"] - target) ** 2).sum() + out["depth"].sum()

    objective().backward()
    grid = geometry.grid
    for index in [(0, 0, 1, 1, 1), (0, 0, 0, 2, 1), (0, 3, 1, 1, 2)]:
        with torch.no_grad():
            grid[index] += 1e-6
            above = objective().item()
            grid[index] -= 2e-6
            below = objective().item()
            grid[index] += 1e-6
        assert grid.grad[index].item() == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)


def test_chunks_do_not_change_a_picture(scene):
    renderer, _ = scene(normal_type="finite_difference")
    small, _ = scene(normal_type="finite_difference", eval_chunk_size=13)
    rays = camera()
    with torch.no_grad():
        whole, parts = renderer.eval()(**rays), small.eval()(**rays)
    assert whole.keys() == parts.keys() and "comp_normal" in whole
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key])


def test_normals_are_drawn_in_evaluation_and_on_request_in_training(scene):
    rays = camera()
    renderer, geometry = scene(normal_type="finite_difference", num_samples_per_ray=32, return_comp_normal=True)
    with torch.no_grad():  # a ball in an empty world
        geometry.grid.zero_()
        geometry.cfg.density_blob_scale = 200.0
        trained, evaluated = renderer.train()(**rays), renderer.eval()(**rays)
    assert "normal" in trained
    middle = evaluated["comp_normal"][0, 2, 2]  # seen from +x at z = 0.1, where the ball of 0.5 faces (0.98, 0, 0.2)
    torch.testing.assert_close(middle, torch.tensor([0.99, 0.5, 0.6]), atol=0.05, rtol=0)
    torch.testing.assert_close(trained["comp_normal"][0, 2, 2], middle, atol=0.1, rtol=0)
    plain, _ = scene(return_eval_normal=False, normal_type="finite_difference")
    assert "comp_normal" not in plain.eval()(**rays)
    perturbed, _ = scene(return_normal_perturb=True, normal_type="finite_difference")
    out = perturbed.train()(**rays)
    assert out["normal_perturb"].shape == out["points"].shape


def test_drawn_normals_are_the_surfaces_in_a_noisy_body(scene):
    renderer, geometry = scene(
        (48, 48, 48), normal_type="finite_difference", num_samples_per_ray=48, return_comp_normal=True, randomized=False
    )
    with torch.no_grad():  # a ball of radius 0.5 that lets a tenth of the light through, with noise all through it
        geometry.cfg.density_activation, geometry.cfg.density_bias = "softplus", 0.0
        z, y, x = torch.meshgrid(*[(torch.arange(48) + 0.5) / 24 - 1] * 3, indexing="ij")
        inside = torch.stack([x, y, z], dim=-1).norm(dim=-1) < 0.5
        geometry.grid[0, 0] = torch.where(inside, 3 + geometry.grid[0, 0], torch.tensor(-20.0))
    rays = camera(batch=2, size=24, fov=18.0)
    near, _ = ray_sphere(rays["rays_o"].reshape(-1, 3), rays["rays_d"].reshape(-1, 3), 0.5)
    truth = (rays["rays_o"] + rays["rays_d"] * near.view(2, 24, 24, 1)) / 0.5

    def agreement(out):
        hit = out["opacity"][..., 0] > 0.5
        normal = out["comp_normal"][hit] / out["opacity"][hit] * 2 - 1
        torch.testing.assert_close(normal.norm(dim=-1), torch.ones(int(hit.sum())), atol=1e-4, rtol=0)
        return (normal * F.normalize(truth[hit], dim=-1)).sum(dim=-1).mean().item()

    with torch.no_grad():
        composited, drawn = agreement(renderer.train()(**rays)), agreement(renderer.eval()(**rays))
    assert drawn > 0.9 and composited < 0.7  # measured 0.92 and 0.64


def test_normals_that_nobody_looks_at_are_left_out(scene):
    renderer, _ = scene(normal_type="finite_difference")
    rays = camera()
    with torch.no_grad():
        whole, rest = renderer.eval()(**rays), renderer(**rays, render_normal=False)
    assert whole.keys() - rest.keys() == {"comp_normal"}
    for key in rest:
        assert torch.equal(whole[key], rest[key])


def test_rays_that_all_miss(scene):
    renderer, geometry = scene()
    rays = camera()
    away = {**rays, "rays_d": -rays["rays_d"]}
    out = renderer.train()(**away)
    assert (out["opacity"] == 0).all()
    torch.testing.assert_close(out["comp_rgb"], out["comp_rgb_bg"])
    (out["comp_rgb"].sum() + out["weights"].mean()).backward()
    assert (geometry.grid.grad == 0).all()
    assert (renderer.eval()(**away)["opacity"] == 0).all()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 5, 5, 3)])
def test_bg_color_takes_the_backgrounds_place(scene, shape):
    renderer, _ = scene(randomized=False)
    color = torch.rand(shape)
    rays = camera()
    out = renderer(**rays, bg_color=color)
    full = color[:, None, None] if color.ndim == 2 else color
    torch.testing.assert_close(out["comp_rgb"], out["comp_rgb_fg"] + full * (1 - out["opacity"]))
    with pytest.raises(ValueError, match="bg_color"):
        renderer(**rays, bg_color=torch.rand(7, 3))


def test_jitter_only_while_training_and_from_the_global_generator(scene):
    renderer, _ = scene()
    rays = camera()
    torch.manual_seed(3)
    first = renderer.train()(**rays)
    second = renderer(**rays)
    torch.manual_seed(3)
    again = renderer(**rays)
    assert not torch.equal(first["t_points"], second["t_points"])
    for key in ("comp_rgb", "t_points", "weights"):
        assert torch.equal(first[key], again[key])
    state = torch.get_rng_state()
    assert torch.equal(renderer.eval()(**rays)["comp_rgb"], renderer(**rays)["comp_rgb"])
    assert torch.equal(state, torch.get_rng_state())


def test_two_runs_have_bit_equal_gradients(scene):
    gradients = []
    for _ in range(2):
        renderer, geometry = scene(grid_size=(16, 16, 16))
        torch.manual_seed(5)
        out = renderer(**camera(size=16))
        (out["comp_rgb"].square().sum() + out["weights"].mean()).backward()
        gradients.append(geometry.grid.grad)
    assert torch.equal(*gradients)


def test_occupied_box_holds_the_object_with_a_cell_to_spare():
    low, high = torch.tensor([-0.30, 0.05, -0.55]), torch.tensor([0.20, 0.40, 0.85])

    def density(points):
        return 50.0 * ((points > low) & (points < high)).all(-1, keepdim=True)

    whole = torch.tensor([[-1.0] * 3, [1.0] * 3])
    box = occupied_box(density, whole, cells=20, step=0.05, min_alpha=1e-3)
    # cells are 0.1 wide: the object's, one more on each side, but never more than the box
    torch.testing.assert_close(box, torch.tensor([[-0.4, -0.1, -0.7], [0.3, 0.5, 1.0]]), atol=1e-6, rtol=0)
    assert torch.equal(occupied_box(lambda p: 0 * p[:, :1], whole, 20, 0.05, 1e-3), whole)


def test_pruning_is_faithful_scheduled_and_resumable(scene):
    def ball(geometry):
        with torch.no_grad():
            geometry.grid.zero_()
            geometry.cfg.density_blob_scale, geometry.cfg.density_blob_std = 60.0, 0.4

    exact, geometry = scene(num_samples_per_ray=256, randomized=False)
    ball(geometry)
    pruned, geometry = scene(num_samples_per_ray=256, randomized=False, grid_prune=True, prune_every=4)
    ball(geometry)
    rays = camera(size=9)
    pruned.train()
    for step in (0, 3):
        pruned.update_step(0, step)
        assert torch.equal(pruned.occupied_bbox, pruned.bbox)
    pruned.update_step(0, 4)
    assert (pruned.occupied_bbox.abs() < 0.75).all()
    with torch.no_grad():
        a, b = exact(**rays), pruned(**rays)
    assert len(b["weights"]) < 0.6 * len(a["weights"])
    torch.testing.assert_close(a["comp_rgb"], b["comp_rgb"], atol=0.01, rtol=0)  # both are quadratures of one field
    fresh, _ = scene(num_samples_per_ray=256, grid_prune=True)
    fresh.load_state_dict(pruned.state_dict())
    assert torch.equal(fresh.occupied_bbox, pruned.occupied_bbox)


def test_pruning_by_a_sphere_is_by_its_own_bins_and_not_by_the_corners(scene):
    def estimate(alpha, corner=-20.0):
        renderer, geometry = scene(
            (32, 32, 32), num_samples_per_ray=50, bounds="sphere", grid_prune=True, prune_every=1, prune_alpha=alpha
        )
        with torch.no_grad():
            geometry.cfg.density_bias, geometry.cfg.density_activation = 0.0, "none"
            geometry.grid.zero_()
            geometry.grid[0, 0, 12:20, 12:20, 12:20] = 1.0
            geometry.grid[0, 0, :3, :3, :3] = corner
        renderer.train().update_step(0, 1)
        return renderer.occupied_bbox

    # the longest bin is 2 / 50 = 0.04, so one sample's opacity is 0.0392; the diagonal of the box would make it 0.067
    cell = 2 / 32
    torch.testing.assert_close(estimate(0.03), torch.tensor([[-5 * cell] * 3, [5 * cell] * 3]))
    torch.testing.assert_close(estimate(0.05), torch.tensor([[-1.0] * 3, [1.0] * 3]))
    torch.testing.assert_close(estimate(0.03, corner=50.0), estimate(0.03))


def test_state_dict_holds_no_geometry(scene):
    renderer, _ = scene(grid_prune=True)
    assert set(renderer.state_dict()) == {"bbox", "occupied_bbox"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bounds", "cube"),
        ("radius", -1.0),
        ("num_samples_per_ray", 0),
        ("eval_chunk_size", 0),
        ("prune_every", 0),
        ("prune_alpha", 0.0),
    ],
)
def test_bad_config_names_its_key(scene, key, value):
    with pytest.raises(ValueError, match=f"renderer.{key}"):
        scene(**{key: value})
