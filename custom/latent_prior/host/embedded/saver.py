"""What a system writes into its run's `save` folder: pictures, videos, arrays, meshes and files."""

import json
import os
import re
import shutil
from typing import Any

import imageio.v2 as imageio
import numpy as np
import torch
import trimesh
from omegaconf import DictConfig
from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger

from latent_prior import OptionError
from latent_prior.files import atomic_write
from latent_prior.host.embedded import pictures
from latent_prior.host.embedded.pictures import to_numpy


class SaverMixin:
    """Methods `save_*` of a system; names are relative to the save folder, and each returns the path it wrote.

    `name` and `step`, where taken, also send the picture to Weights & Biases when that is on.
    """

    _save_dir: str | None = None
    _wandb_logger: WandbLogger | None = None

    def set_save_dir(self, save_dir: str | os.PathLike) -> None:
        """Say where to save; made when the first file is."""
        self._save_dir = str(save_dir)

    def get_save_dir(self) -> str:
        """The save folder; ValueError before `set_save_dir`."""
        if self._save_dir is None:
            raise OptionError.because("nowhere to save: call system.set_save_dir(folder) first")
        return self._save_dir

    def get_save_path(self, filename: str) -> str:
        """The path of a file in the save folder, its folder made."""
        path = os.path.join(self.get_save_dir(), filename)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def create_loggers(self, cfg_loggers: DictConfig) -> None:
        """Turn on Weights & Biases where the config says {wandb: {enable: true, project: ..., name: ...}}."""
        wandb_cfg = cfg_loggers.get("wandb")
        if wandb_cfg is None or not wandb_cfg.get("enable", False):
            return
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise OptionError.because(
                "system.loggers.wandb.enable is true, but wandb is missing: pip install wandb"
            ) from error
        self._wandb_logger = WandbLogger(project=wandb_cfg.project, name=wandb_cfg.name)

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
        path = self.get_save_path(filename)
        with atomic_write(path) as beside:
            Image.fromarray(picture).save(beside)
        self._to_wandb("Image", path, name, step)
        return path

    def save_rgb_image(
        self,
        filename: str,
        img: Any,
        data_format: str = "HWC",
        data_range: tuple[float, float] = (0, 1),
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        """Write a colour image (see `pictures.rgb_picture`)."""
        return self._write_picture(filename, pictures.rgb_picture(img, data_format, data_range), name, step)

    def save_grayscale_image(
        self,
        filename: str,
        img: Any,
        data_range: tuple[float, float] | None = None,
        cmap: str | None = "jet",
        name: str | None = None,
        step: int | None = None,
    ) -> str:
        """Write a map of numbers (see `pictures.grayscale_picture`)."""
        return self._write_picture(filename, pictures.grayscale_picture(img, data_range, cmap), name, step)

    def save_image_grid(
        self,
        filename: str,
        imgs: list,
        align: Any = "max",
        name: str | None = None,
        step: int | None = None,
        texts: list | None = None,
    ) -> str:
        """Write panels side by side (see `pictures.grid_picture`), with one text per equal row of the picture."""
        picture = pictures.grid_picture(imgs, align)
        if texts is not None:
            picture = pictures.write_texts(picture, texts)
        return self._write_picture(filename, picture, name, step)

    def save_image(self, filename: str, img: Any) -> str:
        """Write an image that is uint8 already: h w, h w 3 or h w 4."""
        img = to_numpy(img)
        if img.dtype not in (np.uint8, np.uint16):
            raise OptionError.because(f"save_image takes uint8 or uint16, got {img.dtype}; save_rgb_image takes floats")
        return self._write_picture(filename, img)

    def save_data(self, filename: str, data: Any) -> str:
        """Write arrays: a dict as .npz, anything else as .npy."""
        data = to_numpy(data)
        suffix = ".npz" if isinstance(data, dict) else ".npy"
        path = self.get_save_path(filename if filename.endswith(suffix) else filename + suffix)
        if isinstance(data, dict):
            np.savez(path, **data)
        else:
            np.save(path, data)
        return path

    def save_state_dict(self, filename: str, data: Any) -> str:
        """Write tensors with torch.save."""
        path = self.get_save_path(filename)
        torch.save(data, path)
        return path

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

        img_dir: relative to the save folder; matcher: regular expression of the files' names whose first group is the
        frame's number, e.g. r"(\d+)\.png"; save_format: 'mp4' or 'gif'. ValueError when no file matches.
        """
        if save_format not in ("mp4", "gif"):
            raise OptionError.because(f"save_format must be 'mp4' or 'gif', got {save_format!r}")
        folder = os.path.join(self.get_save_dir(), img_dir)
        found = [(match, entry) for entry in os.listdir(folder) if (match := re.search(matcher, entry))]
        if not found:
            raise OptionError.because(f"no image in {folder} matches {matcher!r}")
        names = [entry for _, entry in sorted(found, key=lambda pair: int(pair[0].group(1)))]
        frames = [np.asarray(Image.open(os.path.join(folder, entry)).convert("RGB")) for entry in names]
        path = self.get_save_path(filename if filename.endswith(save_format) else f"{filename}.{save_format}")
        with atomic_write(path) as beside:
            if save_format == "gif":
                imageio.mimsave(beside, frames, duration=1000 / fps, loop=0)
            else:
                # H.264 with 4:2:0 colour wants even sides; odd ones get a repeated last row or column
                pad = [(0, side % 2) for side in frames[0].shape[:2]] + [(0, 0)]
                frames = [np.pad(frame, pad, mode="edge") for frame in frames]
                imageio.mimsave(beside, frames, fps=fps, macro_block_size=1)
        self._to_wandb("Video", path, name, step, format=save_format)
        return path

    def save_mesh(self, filename: str, v_pos: Any, t_pos_idx: Any) -> str:
        """Write bare geometry, vertices (V 3) and faces (F 3), in the format of the file's ending."""
        path = self.get_save_path(filename)
        trimesh.Trimesh(vertices=to_numpy(v_pos), faces=to_numpy(t_pos_idx), process=False).export(path)
        return path

    def save_file(self, filename: str, src_path: str) -> str:
        """Copy a file."""
        path = self.get_save_path(filename)
        with atomic_write(path) as beside:
            shutil.copyfile(src_path, beside)
        return path

    def save_json(self, filename: str, payload: Any) -> str:
        """Write plain data as JSON."""
        path = self.get_save_path(filename)
        with open(path, "w") as file:
            json.dump(payload, file)
        return path
