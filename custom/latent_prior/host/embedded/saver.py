"""Writing to a run's `save` folder: pictures, videos and files."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger

from latent_prior import OptionError
from latent_prior.files import atomic_write
from latent_prior.files.films import write_film
from latent_prior.files.pictures import read_picture
from latent_prior.host import ranks
from latent_prior.host.embedded import pictures


class SaverMixin:
    """The `save_*` methods that our systems use; names are relative to the save folder.

    Each returns the path it wrote; pictures are written by the first process of a run alone. With `name` and `step`,
    where accepted, the picture is also sent to Weights & Biases if that is on.
    """

    _save_dir: str | None = None
    _wandb_logger: WandbLogger | None = None

    def set_save_dir(self, save_dir: str | os.PathLike) -> None:
        """Set the save folder; it is created with the first file."""
        self._save_dir = str(save_dir)

    def get_save_dir(self) -> str:
        """The save folder. Raises ValueError if it is not set."""
        if self._save_dir is None:
            raise ValueError("no save folder: call system.set_save_dir(folder) first")
        return self._save_dir

    def get_save_path(self, filename: str) -> str:
        """The path of a file in the save folder; creates its folder."""
        path = os.path.join(self.get_save_dir(), filename)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def create_loggers(self, cfg_loggers: DictConfig) -> None:
        """Turn on Weights & Biases if the config has {wandb: {enable: true, project: ..., name: ...}}."""
        wandb_cfg = cfg_loggers.get("wandb")
        if wandb_cfg is None or not wandb_cfg.get("enable", False):
            return
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise OptionError.because(
                "system.loggers.wandb.enable is true, but wandb is missing: pip install wandb"
            ) from error
        self._wandb_logger = WandbLogger(project=wandb_cfg.get("project"), name=wandb_cfg.get("name"))

    def get_loggers(self) -> list[Logger]:
        """The loggers that the config turned on."""
        return [self._wandb_logger] if self._wandb_logger else []

    def _to_wandb(self, kind: str, path: str, name: str | None, step: int | None, **kwargs) -> None:
        if name and self._wandb_logger:
            import wandb

            wandb.log({name: getattr(wandb, kind)(path, **kwargs), "trainer/global_step": step})

    def _write_picture(
        self, filename: str, picture: np.ndarray, name: str | None = None, step: int | None = None
    ) -> str:
        if not ranks.is_first():
            return os.path.join(self.get_save_dir(), filename)
        path = self.get_save_path(filename)
        with atomic_write(path) as beside:
            Image.fromarray(picture).save(beside)
        self._to_wandb("Image", path, name, step)
        return path

    def save_rgb_image(
        self, filename: str, img: Any, data_format: str = "HWC", name: str | None = None, step: int | None = None
    ) -> str:
        """Write a colour image (see `pictures.rgb_picture`)."""
        return self._write_picture(filename, pictures.rgb_picture(img, data_format), name, step)

    def save_image_grid(
        self, filename: str, imgs: list, align: int, name: str | None = None, step: int | None = None
    ) -> str:
        """Write panels side by side (see `pictures.grid_picture`)."""
        return self._write_picture(filename, pictures.grid_picture(imgs, align), name, step)

    def save_img_sequence(
        self,
        filename: str,
        img_dir: str,
        matcher: str,
        save_format: str = "mp4",
        fps: int = 30,
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        r"""Join the images of a folder into a video.

        img_dir: relative to the save folder; matcher: regular expression for the file names whose first group is the
        frame number, e.g. r"(\d+)\.png".
        """
        folder = os.path.join(self.get_save_dir(), img_dir)
        found = [(match, entry) for entry in os.listdir(folder) if (match := re.search(matcher, entry))]
        if not found or save_format != "mp4":
            raise ValueError(f"expected images in {folder} that match {matcher!r} and mp4, got {save_format}")
        names = [entry for _, entry in sorted(found, key=lambda pair: int(pair[0].group(1)))]
        frames = [np.asarray(read_picture(os.path.join(folder, entry), "save")) for entry in names]
        path = self.get_save_path(filename if filename.endswith(".mp4") else f"{filename}.mp4")
        write_film(Path(path), frames, fps)
        self._to_wandb("Video", path, name, step, format="mp4")
        return path

    def save_file(self, filename: str, src_path: str) -> str:
        """Copy a file."""
        path = self.get_save_path(filename)
        with atomic_write(path) as beside:
            shutil.copyfile(src_path, beside)
        return path
