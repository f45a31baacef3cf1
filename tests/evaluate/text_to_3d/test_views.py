"""The evaluation's pictures: its cameras are the host's, and the truth agrees with itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from latent_prior.evaluate.text_to_3d import measure, views
from latent_prior.host.embedded.cameras import RandomCameraDataModule
from latent_prior.pocket import cameras
from latent_prior.pocket.captions import Subject, parse
from torch.testing import assert_close

MUG = parse("a red mug")
CONFIG = Path(__file__).parents[3] / "custom" / "latent_prior.yaml"


def host_views(count, elevation, size):
    data = RandomCameraDataModule(
        {
            "n_val_views": count,
            "eval_elevation_deg": elevation,
            "eval_camera_distance": cameras.DISTANCE,
            "eval_fovy_deg": cameras.FOVY,
            "eval_height": size,
            "eval_width": size,
        }
    )
    data.setup("validate")
    return data.val_dataset.collate([data.val_dataset[i] for i in range(count)])


def test_the_ring_is_the_hosts_validation_ring():
    theirs = host_views(views.RING_VIEWS, views.RING_ELEVATION, views.SIZE)
    ours = views.rays(views.ring(), views.SIZE)
    assert_close(ours.directions, theirs["rays_d"], rtol=0, atol=1e-6)
    assert_close(ours.origins, theirs["rays_o"], rtol=0, atol=3e-6)
    assert_close(views.ring().azimuth, theirs["azimuth"], rtol=0, atol=1e-4)


def test_the_single_view_is_the_hosts_at_those_angles():
    theirs = host_views(12, views.SINGLE_ELEVATION, 32)  # every 30 degrees
    ours = views.rays(views.single(), 32)
    assert_close(ours.directions[0], theirs["rays_d"][1], rtol=0, atol=1e-6)
    assert_close(ours.origins[0], theirs["rays_o"][1], rtol=0, atol=3e-6)


@pytest.fixture(scope="module")
def true_ring():
    return views.truth_views(MUG, views.ring())


def test_the_truth_against_itself_is_perfect(true_ring):
    single = views.truth_views(MUG, views.single())
    figures, field = measure.measure_pictures(MUG, true_ring, single, judge=None), measure.measure_field(MUG, true_ring)
    assert (figures.iou, figures.psnr) == (field.field_iou, field.field_psnr) == (1, 100)
    assert field.fog == 0
    assert figures.r_single is figures.r_ring is figures.r_ring_mean is None


def test_another_colour_costs_psnr_and_another_kind_the_silhouette(true_ring):
    single = views.truth_views(MUG, views.single())
    green = measure.measure_pictures(Subject("mug", "green"), true_ring, single, judge=None)
    assert green.iou == 1 and green.psnr < 20
    duck = measure.measure_pictures(Subject("duck", "red"), true_ring, single, judge=None)
    assert duck.iou < 0.7 and measure.measure_field(Subject("duck", "red"), true_ring).fog > 0.02


def test_r_precision_is_of_the_prompts_own_caption(true_ring, fixed_judge):
    single = views.truth_views(MUG, views.single())
    other = Subject("mug", "pink")
    opinions = [{MUG: 0.9, other: 0.1}] * 4 + [{MUG: 0.3, other: 0.4}] * 12
    figures = measure.measure_pictures(MUG, true_ring, single, fixed_judge(opinions))
    assert figures.r_single is True  # the single view gets the first opinion
    assert figures.r_ring == 4 / 16
    assert figures.r_ring_mean is True  # (4 * 0.9 + 12 * 0.3) / 16 = 0.45 against 0.325
    figures = measure.measure_pictures(MUG, true_ring, single, fixed_judge([{other: 0.5, MUG: 0.4}] * 16))
    assert (figures.r_single, figures.r_ring, figures.r_ring_mean) == (False, 0, False)


class Box:
    """A renderer of nothing at all: opacity 0, the background as it is."""

    def __call__(self, rays_o, rays_d, light_positions, bg_color, render_normal):
        assert not render_normal
        assert bg_color.shape[:3] == rays_d.shape[:3]
        assert_close(light_positions, rays_o[:, 0, 0])
        self.sizes = [*getattr(self, "sizes", []), rays_d.shape[1]]
        return {"comp_rgb": bg_color, "opacity": torch.zeros_like(rays_d[..., :1])}


def test_an_empty_field_is_white():
    system = SimpleNamespace(cfg=SimpleNamespace(space="rgb"), device=torch.device("cpu"), renderer=Box())
    pictures = views.field_views(system, views.ring())
    assert_close(pictures.rgb, torch.ones(16, 3, 64, 64))
    assert pictures.opacity.shape == (16, 1, 64, 64) and pictures.opacity.max() == 0


def test_latents_are_rendered_at_their_own_size_over_the_latents_of_white():
    class Autoencoder:
        """Latents are pictures twice smaller, times two."""

        downscale = 2

        def encode(self, pictures):
            return torch.nn.functional.avg_pool2d(pictures, 2) * 2

    guidance = SimpleNamespace(
        prior=SimpleNamespace(autoencoder=Autoencoder(), denoiser=SimpleNamespace(sample_size=(16, 16))),
        decode_latents=lambda latents: torch.nn.functional.interpolate(latents / 2, scale_factor=2),
    )
    system = SimpleNamespace(
        cfg=SimpleNamespace(space="latent"),
        device=torch.device("cpu"),
        renderer=Box(),
        guidance=guidance,
        load_guidance=lambda: None,
    )
    pictures = views.field_views(system, views.single())
    assert system.renderer.sizes == [16, 64]
    assert_close(pictures.rgb, torch.ones(1, 3, 64, 64))
    assert pictures.opacity.shape == (1, 1, 64, 64)


def test_a_latent_field_that_is_empty_is_white_through_the_autoencoder(tiny_prior):
    import latent_prior
    from latent_prior import host

    latent_prior.register()
    changes = {
        "system.geometry.grid_size": "[8,8,8]",
        "system.geometry.density_bias": -40.0,
        "system.guidance.pretrained_model_name_or_path": tiny_prior,
    }
    config = CONFIG.parents[1] / "configs" / "pocket_jacobian_nerf.yaml"
    cfg = host.load_config(str(config), cli_args=[f"{key}={value}" for key, value in changes.items()])
    system = host.find(cfg.system_type)(cfg.system).eval()
    pictures = views.field_views(system, views.single())
    autoencoder = system.guidance.prior.autoencoder
    with torch.no_grad():
        white = autoencoder.decode(autoencoder.encode(torch.ones(1, 3, 64, 64)))
    assert_close(pictures.rgb, white, rtol=0, atol=1e-5)
    assert pictures.opacity.max() < 1e-6
