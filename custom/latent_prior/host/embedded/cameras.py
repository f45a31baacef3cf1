"""Random training cameras and the rings of cameras for validation and test: `random-camera-datamodule`.

A training batch is drawn from Python's and torch's global random number generators, in threestudio's order, so that a
seed gives the same sequence of cameras on either host. The dataset's only state is what `update_step` derives from the
global step; see runs/resume.py for how Lightning's prefetching affects resuming.
"""

import bisect
import math
import random
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from latent_prior.host import ranks
from latent_prior.host.embedded import camera_geometry as geometry
from latent_prior.host.embedded.base import Updateable
from latent_prior.host.embedded.camera_config import RandomCameraDataModuleConfig, check_cameras, resolution_stages
from latent_prior.host.embedded.config import full_key, parse_structured
from latent_prior.host.embedded.logs import warn
from latent_prior.host.embedded.registry import register


def _uniform(count: int, limits: Any) -> Float[Tensor, "B"]:
    return torch.rand(count) * (limits[1] - limits[0]) + limits[0]


class RandomCameraIterableDataset(IterableDataset, Updateable):
    """An endless stream of random cameras; they are drawn in `collate`, at the resolution of the current step."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        self.cfg = cfg
        check_cameras(cfg)
        self._stages = resolution_stages(cfg)
        self._milestones = list(cfg.resolution_milestones)
        if len(self._stages) == 1 and self._milestones:
            warn(f"{full_key(cfg, 'resolution_milestones')} has no effect: there is one resolution only")
            self._milestones = []
        self._directions = [geometry.ray_directions(height, width) for height, width, _ in self._stages]
        self._enter_stage(0)
        self.elevation_range = cfg.elevation_range
        self.azimuth_range = cfg.azimuth_range

    def _enter_stage(self, index: int) -> None:
        self.height, self.width, self.batch_size = self._stages[index]
        self.directions_unit_focal = self._directions[index]

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Set resolution and view ranges for the batches drawn from now on."""
        self._enter_stage(bisect.bisect_right(self._milestones, global_step))
        r = min(1.0, global_step / (self.cfg.progressive_until + 1))
        start = self.cfg.eval_elevation_deg
        self.elevation_range = [(1 - r) * start + r * limit for limit in self.cfg.elevation_range]
        self.azimuth_range = [(1 - r) * 0.0 + r * limit for limit in self.cfg.azimuth_range]

    def __iter__(self) -> Iterator[dict]:
        while True:
            yield {}

    def _draw_elevation(self) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Elevations in (radians, degrees): half of the batches uniform in angle, half uniform on the sphere."""
        low, high = self.elevation_range
        if random.random() < 0.5:
            degrees = _uniform(self.batch_size, (low, high))
            return degrees * math.pi / 180, degrees
        low, high = math.sin(low / 180.0 * math.pi), math.sin(high / 180.0 * math.pi)
        radians = torch.asin(_uniform(self.batch_size, (low, high)))
        return radians, radians / math.pi * 180.0

    def _draw_azimuth(self) -> Float[Tensor, "B"]:
        """Azimuths in degrees; uniform over the batch of all processes, each of which has its sectors."""
        if not self.cfg.batch_uniform_azimuth:
            return _uniform(self.batch_size, self.azimuth_range)
        low, high = self.azimuth_range
        sector = torch.rand(self.batch_size) + torch.arange(self.batch_size) + ranks.rank() * self.batch_size
        return sector / (ranks.world() * self.batch_size) * (high - low) + low

    def _draw_light(self, camera: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
        """Light positions around the camera's (DreamFusion, Poole et al. 2022)."""
        distance = _uniform(self.batch_size, self.cfg.light_distance_range)
        noise = torch.randn(self.batch_size, 3) * self.cfg.light_position_perturb
        return F.normalize(camera + noise, dim=-1) * distance[:, None]

    def collate(self, batch: Any) -> dict[str, Any]:
        """Draw a batch of cameras; the argument is ignored. The order of the draws is part of the contract."""
        cfg, count = self.cfg, self.batch_size
        elevation, elevation_deg = self._draw_elevation()
        azimuth_deg = self._draw_azimuth()
        distance = _uniform(count, cfg.camera_distance_range)
        position = geometry.spherical_to_cartesian(elevation, azimuth_deg * math.pi / 180, distance)
        position = position + (torch.rand(count, 3) * 2 * cfg.camera_perturb - cfg.camera_perturb)
        center = torch.randn(count, 3) * cfg.center_perturb
        up = torch.tensor([0.0, 0.0, 1.0]) + torch.randn(count, 3) * cfg.up_perturb
        fovy = _uniform(count, cfg.fovy_range) * math.pi / 180
        light = self._draw_light(position)
        c2w = geometry.look_at(position, center, up)
        rays_o, rays_d = geometry.camera_rays(self.directions_unit_focal, fovy, c2w, cfg.rays_d_normalize)
        proj = geometry.projection_matrix(fovy, self.width / self.height)
        return {
            "rays_o": rays_o,
            "rays_d": rays_d,
            "mvp_mtx": geometry.mvp_matrix(c2w, proj),
            "camera_positions": position,
            "c2w": c2w,
            "light_positions": light,
            "elevation": elevation_deg,
            "azimuth": azimuth_deg,
            "camera_distances": distance,
            "height": self.height,
            "width": self.width,
            "fovy": fovy,
            "proj_mtx": proj,
        }


class RandomCameraDataset(Dataset):
    """A ring of cameras around the object at one elevation, the light at the camera; split is 'val' or 'test'."""

    def __init__(self, cfg: DictConfig, split: str) -> None:
        super().__init__()
        check_cameras(cfg)
        self.cfg = cfg
        self.split = split
        self.n_views = cfg.n_val_views if split == "val" else cfg.n_test_views
        # a validation ring omits the last view, which equals the first one; a turntable keeps it to close the loop
        count = self.n_views + 1 if split == "val" else self.n_views
        azimuth_deg = torch.linspace(0, 360.0, count)[: self.n_views]
        elevation_deg = torch.full_like(azimuth_deg, cfg.eval_elevation_deg)
        distance = torch.full_like(azimuth_deg, cfg.eval_camera_distance)
        fovy = torch.full_like(azimuth_deg, cfg.eval_fovy_deg) * math.pi / 180
        position = geometry.spherical_to_cartesian(elevation_deg * math.pi / 180, azimuth_deg * math.pi / 180, distance)
        up = torch.tensor([0.0, 0.0, 1.0]).expand(self.n_views, 3)
        c2w = geometry.look_at(position, torch.zeros_like(position), up)
        proj = geometry.projection_matrix(fovy, cfg.eval_width / cfg.eval_height)
        self._directions = geometry.ray_directions(cfg.eval_height, cfg.eval_width)
        self._views = {
            "mvp_mtx": geometry.mvp_matrix(c2w, proj),
            "c2w": c2w,
            "camera_positions": position,
            "light_positions": position,
            "elevation": elevation_deg,
            "azimuth": azimuth_deg,
            "camera_distances": distance,
            "fovy": fovy,
            "proj_mtx": proj,
        }

    def __len__(self) -> int:
        return self.n_views

    def __getitem__(self, index: int) -> dict[str, Any]:
        view = {key: value[index] for key, value in self._views.items()}
        # rays are computed on demand: those of 120 views at 512 x 512 would take 750 MB
        rays_o, rays_d = geometry.camera_rays(
            self._directions, view["fovy"][None], view["c2w"][None], self.cfg.rays_d_normalize
        )
        size = {"height": self.cfg.eval_height, "width": self.cfg.eval_width}
        return {"index": index, "rays_o": rays_o[0], "rays_d": rays_d[0], **view, **size}

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack views into a batch; height and width stay ints."""
        return {**default_collate(batch), "height": self.cfg.eval_height, "width": self.cfg.eval_width}


@register("random-camera-datamodule")
class RandomCameraDataModule(pl.LightningDataModule):
    """Lightning's access to the cameras. No worker processes: the training dataset changes while it is in use."""

    cfg: RandomCameraDataModuleConfig

    def __init__(self, cfg: dict | DictConfig | None = None) -> None:
        super().__init__()
        self.cfg = parse_structured(RandomCameraDataModuleConfig, cfg)
        check_cameras(self.cfg)
        resolution_stages(self.cfg)

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.train_dataset = RandomCameraIterableDataset(self.cfg)
        if stage in (None, "fit", "validate"):
            self.val_dataset = RandomCameraDataset(self.cfg, "val")
        if stage in (None, "test", "predict"):
            self.test_dataset = RandomCameraDataset(self.cfg, "test")

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, num_workers=0, batch_size=None, collate_fn=self.train_dataset.collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_dataset, num_workers=0, batch_size=1, collate_fn=self.val_dataset.collate)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test_dataset, num_workers=0, batch_size=1, collate_fn=self.test_dataset.collate)

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()
