"""Random cameras against geometry done by hand, one camera at a time, in float64."""

import math
import random

import numpy as np
import pytest
import torch
from latent_prior.host.embedded import camera_geometry
from latent_prior.host.embedded.cameras import RandomCameraDataModule


def data_module(stage="fit", **cfg):
    module = RandomCameraDataModule(cfg)
    module.setup(stage)
    return module


def train_batch(seed=0, step=None, **cfg):
    dataset = data_module(**cfg).train_dataset
    if step is not None:
        dataset.update_step(0, step)
    random.seed(seed)
    torch.manual_seed(seed)
    return dataset.collate({})


def unit(v):
    return v / np.linalg.norm(v)


@pytest.mark.parametrize("uniform_azimuth", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_batch_follows_the_documented_order_of_draws(seed, uniform_azimuth):
    count = 3
    batch = train_batch(seed, batch_size=count, height=6, width=8, batch_uniform_azimuth=uniform_azimuth)
    random.seed(seed)
    torch.manual_seed(seed)
    coin = random.random()
    u_elevation, u_azimuth, u_distance = (torch.rand(count).double().numpy() for _ in range(3))
    u_camera = torch.rand(count, 3).double().numpy()
    n_center, n_up = (torch.randn(count, 3).double().numpy() for _ in range(2))
    u_fovy, u_light = (torch.rand(count).double().numpy() for _ in range(2))
    n_light = torch.randn(count, 3).double().numpy()
    for b in range(count):
        if coin < 0.5:
            elevation = math.radians(-10 + 100 * u_elevation[b])
        else:
            low, high = math.sin(math.radians(-10)), math.sin(math.radians(90))
            elevation = math.asin(low + (high - low) * u_elevation[b])
        share = (u_azimuth[b] + b) / count if uniform_azimuth else u_azimuth[b]
        azimuth = math.radians(-180 + 360 * share)
        distance = 1 + 0.5 * u_distance[b]
        position = distance * np.array(
            [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
        )
        position = position + (2 * u_camera[b] - 1) * 0.1
        fovy = math.radians(40 + 30 * u_fovy[b])
        light_distance = 0.8 + 0.7 * u_light[b]
        light = unit(position + n_light[b]) * light_distance
        forward = unit(0.2 * n_center[b] - position)
        right = unit(np.cross(forward, np.array([0, 0, 1]) + 0.02 * n_up[b]))
        rotation = np.stack([right, np.cross(right, forward), -forward], axis=1)

        def close(key, expected, b=b):
            np.testing.assert_allclose(batch[key][b].numpy(), expected, rtol=1e-5, atol=2e-5, err_msg=key)

        close("elevation", math.degrees(elevation))
        close("azimuth", math.degrees(azimuth))
        close("camera_distances", distance)
        close("camera_positions", position)
        close("fovy", fovy)
        close("light_positions", light)
        close("c2w", np.block([[rotation, position[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]))
    assert (batch["height"], batch["width"]) == (6, 8)
    assert batch["rays_o"].shape == batch["rays_d"].shape == (count, 6, 8, 3)


def test_rays_go_through_pixel_centres():
    batch = train_batch(batch_size=2, height=5, width=7)
    for b in range(2):
        c2w, proj = batch["c2w"][b].double(), batch["proj_mtx"][b].double()
        for i in range(5):
            for j in range(7):
                point = batch["rays_o"][b, i, j].double() + 0.9 * batch["rays_d"][b, i, j].double()
                clip = proj @ torch.linalg.inv(c2w) @ torch.cat([point, torch.ones(1)]).double()
                ndc = clip[:2] / clip[3]
                # y points down in this projection, as image rows do
                expected = torch.tensor([(j + 0.5) / 7 * 2 - 1, (i + 0.5) / 5 * 2 - 1], dtype=torch.float64)
                torch.testing.assert_close(ndc, expected, rtol=0, atol=1e-5)


def test_matrices_are_consistent():
    batch = train_batch(batch_size=4)
    rotation = batch["c2w"][:, :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(4, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(4))
    torch.testing.assert_close(batch["mvp_mtx"], batch["proj_mtx"] @ torch.linalg.inv(batch["c2w"]), rtol=0, atol=1e-4)
    torch.testing.assert_close(batch["rays_d"].norm(dim=-1), torch.ones(4, 64, 64))
    torch.testing.assert_close(batch["rays_o"][:, 3, 5], batch["camera_positions"])


def test_the_point_looked_at_projects_to_the_middle():
    batch = train_batch(batch_size=3, center_perturb=0.0)
    middle = batch["mvp_mtx"] @ torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(middle[:, :2] / middle[:, 3:], torch.zeros(3, 2), rtol=0, atol=1e-5)
    ndc_depth = middle[:, 2] / middle[:, 3]
    depth = batch["camera_positions"].norm(dim=-1)
    near, far = camera_geometry.NEAR, camera_geometry.FAR
    torch.testing.assert_close(ndc_depth, (far + near) / (far - near) - 2 * far * near / (far - near) / depth)


def test_depth_range_of_the_projection():
    proj = camera_geometry.projection_matrix(torch.tensor([0.7]), 1.5, near=0.5, far=4.0)[0]
    for z, expected in ((0.5, -1.0), (4.0, 1.0)):
        clip = proj @ torch.tensor([0.0, 0.0, -z, 1.0])
        assert float(clip[2] / clip[3]) == pytest.approx(expected, abs=1e-5)


def test_unnormalised_rays_have_unit_depth():
    batch = train_batch(rays_d_normalize=False, height=4, width=4)
    forward = -batch["c2w"][0, :3, 2]
    torch.testing.assert_close(batch["rays_d"][0] @ forward, torch.ones(4, 4))


def test_views_widen_from_the_front():
    options = {"progressive_until": 99, "eval_elevation_deg": 20.0, "batch_size": 64}
    start = train_batch(step=0, **options)
    torch.testing.assert_close(start["azimuth"], torch.zeros(64))
    torch.testing.assert_close(start["elevation"], torch.full((64,), 20.0))
    half = train_batch(step=50, **options)
    assert half["azimuth"].abs().max() <= 90 and half["azimuth"].abs().max() > 80
    assert half["elevation"].min() >= 5 and half["elevation"].max() <= 55
    assert train_batch(step=1000, **options)["azimuth"].abs().max() > 170


def test_resolution_changes_at_milestones():
    dataset = data_module(
        height=[4, 8, 16], width=[6, 12, 24], batch_size=[3, 2, 1], resolution_milestones=[10, 20]
    ).train_dataset
    for step, shape in (
        (0, (3, 4, 6)),
        (9, (3, 4, 6)),
        (10, (2, 8, 12)),
        (19, (2, 8, 12)),
        (20, (1, 16, 24)),
        (500, (1, 16, 24)),
    ):
        dataset.update_step(0, step)
        batch = dataset.collate({})
        assert batch["rays_d"].shape[:3] == shape and (batch["height"], batch["width"]) == shape[1:]


def test_validation_and_test_rings():
    module = data_module(None, n_val_views=4, n_test_views=5, eval_height=6, eval_width=4, eval_elevation_deg=30.0)
    assert [view["azimuth"].item() for view in module.val_dataset] == [0.0, 90.0, 180.0, 270.0]
    assert [view["azimuth"].item() for view in module.test_dataset] == [0.0, 90.0, 180.0, 270.0, 360.0]
    batches = list(module.test_dataloader())
    first = batches[0]
    assert first["rays_o"].shape == (1, 6, 4, 3) and (first["height"], first["width"]) == (6, 4)
    assert [int(batch["index"]) for batch in batches] == [0, 1, 2, 3, 4]
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    torch.testing.assert_close(first["camera_positions"][0], 1.5 * torch.tensor([c, 0.0, s]))
    torch.testing.assert_close(first["light_positions"], first["camera_positions"])
    torch.testing.assert_close(first["c2w"][0, :3, 2], torch.tensor([c, 0.0, s]))
    torch.testing.assert_close(first["c2w"][0, :3, 0], torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(first["rays_d"].norm(dim=-1), torch.ones(1, 6, 4))


def test_three_cameras_are_crossed_along_the_right_axis():
    module = data_module("test", n_test_views=3)
    rotation = torch.stack([view["c2w"][:3, :3] for view in module.test_dataset])
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "cfg, message",
    [
        ({"heigth": 64}, "unknown config key 'heigth'; did you mean 'height'"),
        ({"height": [64, 128]}, "height, width, batch_size need as many entries"),
        ({"height": [8, 9], "width": [8, 9], "batch_size": [1, 1]}, "resolution_milestones: 2 resolutions need 1"),
        ({"height": 0}, "positive ints"),
        ({"eval_batch_size": 4}, "eval_batch_size"),
        ({"fovy_range": [40.0]}, "fovy_range"),
        ({"fovy_range": [[40.0], 50.0]}, "fovy_range"),
        ({"elevation_range": [0.0, None]}, "elevation_range"),
    ],
)
def test_bad_configs_name_the_key(cfg, message):
    with pytest.raises(ValueError, match=message):
        RandomCameraDataModule(cfg)
