"""The data modules: what they draw for training at two moments, and what they show."""

from config_fields import Refused, Table, To
from latent_prior.data.latent_codes import LatentCodesDataModule, LatentCodesDataModuleConfig
from latent_prior.data.one_picture import OnePictureDataModule, OnePictureDataModuleConfig
from latent_prior.host.embedded.camera_config import RandomCameraDataModuleConfig
from latent_prior.host.embedded.cameras import RandomCameraDataModule


def see(data):
    data.setup()
    drawn = []
    for step in (0, 10, 10, 10):
        if hasattr(data.train_dataset, "update_step"):
            data.train_dataset.update_step(0, step)
        drawn.append(data.train_dataset.collate(None))
    return {"train": drawn, "val": list(data.val_dataloader()), "test": list(data.test_dataloader())}


def see_cameras(settings, given):
    small = {"height": 2, "width": 3, "eval_height": 2, "eval_width": 3, "n_test_views": 3}
    return see(RandomCameraDataModule(small | settings))


def see_codes(settings, given):
    return see(LatentCodesDataModule({"z_dim": 3, "n_grid": 3, "n_frames": 4} | settings))


def see_crops(settings, given):
    return see(OnePictureDataModule({"image": str(given.picture), "short_side": 16} | settings))


def MASK(given):
    return str(given.mask)


STAGES = {"height": [2, 4], "width": [3, 4], "batch_size": [1, 2], "resolution_milestones": [5]}
TABLES = [
    Table(
        RandomCameraDataModuleConfig,
        see_cameras,
        {
            "height": 4,
            "width": 4,
            "batch_size": 2,
            "resolution_milestones": To([11], STAGES),
            "eval_height": 4,
            "eval_width": 4,
            "eval_batch_size": Refused(2, "eval_batch_size"),
            "n_val_views": 2,
            "n_test_views": 4,
            "elevation_range": [0, 10],
            "azimuth_range": [0, 10],
            "camera_distance_range": [3, 4],
            "fovy_range": [30, 31],
            "camera_perturb": 0.5,
            "center_perturb": 0.5,
            "up_perturb": 0.5,
            "light_position_perturb": 3.0,
            "light_distance_range": [3, 4],
            "eval_elevation_deg": 30.0,
            "eval_camera_distance": 3.0,
            "eval_fovy_deg": 30.0,
            "batch_uniform_azimuth": To(False, {"batch_size": 2}),
            "progressive_until": 20,
            "rays_d_normalize": False,
        },
    ),
    Table(
        LatentCodesDataModuleConfig,
        see_codes,
        {
            "batch_size": 2,
            "z_dim": 4,
            "eval_seed": 1,
            "n_grid": 2,
            "n_frames": 0,
            "eval_batch_size": 2,
            "width": 32,
            "height": 32,
        },
    ),
    Table(
        OnePictureDataModuleConfig,
        see_crops,
        {
            "image": lambda given: str(given.other_picture),
            "mask": MASK,
            "invert_mask": To(True, {"mask": MASK}),
            "short_side": 24,  # a multiple of 8
            "batch_size": 2,
            "crop": [0.5, 0.6],
            "flip": 1.0,
            "jitter": 0.3,
            "whole": 1.0,
        },
    ),
]
