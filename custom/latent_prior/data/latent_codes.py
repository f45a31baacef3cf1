"""`latent-codes-datamodule`: standard normal codes z for a generator.

Training draws them from torch's global generator, which the host saves and restores, so a resumed run continues
exactly. Evaluation uses codes from its own seed: a grid, then a closed path through the grid's codes for a video. The
camera that threestudio's guidance contract requires is always the same one.
"""

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from latent_prior import OptionError, host


@dataclass
class LatentCodesDataModuleConfig:
    batch_size: int = 4  # pictures per step
    z_dim: int = 512  # size of the generator's z
    eval_seed: int = 0  # of the codes in evaluation
    n_grid: int = 16  # codes of the before/after grid
    n_frames: int = 120  # frames of the interpolation; 0: no video
    eval_batch_size: int = 8  # pictures per batch in evaluation
    width: int = 64  # of the pictures, passed on to the guidance
    height: int = 64


def camera(count: int) -> dict[str, Tensor]:
    """A constant camera for `count` pictures: from the front, at distance 1."""
    return {
        "elevation": torch.zeros(count),
        "azimuth": torch.zeros(count),
        "camera_distances": torch.ones(count),
    }


def path(keys: Float[Tensor, "K Z"], frames: int) -> Float[Tensor, "frames Z"]:
    """A closed path through `keys` in even steps along great circles (slerp), so every point is a likely code."""
    position = torch.arange(frames, dtype=keys.dtype) * len(keys) / frames
    start, share = position.long(), position.frac()[:, None]
    a, b = keys[start], keys[(start + 1) % len(keys)]
    cosine = (a * b).sum(1, keepdim=True) / (a.norm(dim=1, keepdim=True) * b.norm(dim=1, keepdim=True))
    angle = torch.acos(cosine.clamp(-1, 1)).clamp(min=1e-6)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


class RandomCodes(IterableDataset, host.Updateable):
    """Endless batches of codes."""

    def __init__(self, cfg: DictConfig):
        super().__init__()
        self.cfg = cfg

    def __iter__(self):
        while True:
            yield {}

    def collate(self, batch: Any) -> dict[str, Any]:
        """Draw a batch; the argument is ignored."""
        count = self.cfg.batch_size
        size = {"height": self.cfg.height, "width": self.cfg.width}
        return {"z": torch.randn(count, self.cfg.z_dim), **camera(count), **size}


class FixedCodes(Dataset):
    """The codes of the grid (`frame` -1), then with `with_path` those of the video's frames."""

    def __init__(self, cfg: DictConfig, with_path: bool):
        g = torch.Generator().manual_seed(cfg.eval_seed)
        grid = torch.randn(cfg.n_grid, cfg.z_dim, generator=g)
        frames = cfg.n_frames if with_path else 0
        self.z = torch.cat([grid, path(grid[:8], frames)]) if frames else grid
        self.frame = [-1] * cfg.n_grid + list(range(frames))

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, "z": self.z[index], "frame": self.frame[index]}


@host.register("latent-codes-datamodule")
class LatentCodesDataModule(pl.LightningDataModule):
    """Lightning's data module of the codes."""

    cfg: DictConfig  # of LatentCodesDataModuleConfig

    def __init__(self, cfg: Any = None) -> None:
        super().__init__()
        self.cfg = host.parse_structured(LatentCodesDataModuleConfig, cfg)
        for name in ("batch_size", "z_dim", "n_grid", "eval_batch_size"):
            if getattr(self.cfg, name) < 1:
                raise OptionError(f"data.{name}", getattr(self.cfg, name), "at least 1")
        if self.cfg.n_frames < 0:
            raise OptionError("data.n_frames", self.cfg.n_frames, "0 (no video) or more")
        for name in ("batch_size", "n_grid", "n_frames"):
            codes = self.cfg[name] * self.cfg.z_dim
            host.require_memory(codes, {f"data.{name}": self.cfg[name], "data.z_dim": self.cfg.z_dim})

    def setup(self, stage: str | None = None) -> None:
        self.train_dataset = RandomCodes(self.cfg)
        self.val_dataset = FixedCodes(self.cfg, with_path=False)
        self.test_dataset = FixedCodes(self.cfg, with_path=True)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, num_workers=0, batch_size=None, collate_fn=self.train_dataset.collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_dataset, num_workers=0, batch_size=self.cfg.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test_dataset, num_workers=0, batch_size=self.cfg.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        return self.val_dataloader()
