"""`one-picture-datamodule`: random crops of one picture for training, all of it for evaluation; its mask if any.

The picture is resized to `short_side`, keeping its aspect ratio; a crop has the same aspect ratio and is resized to the
same size, so all steps have one size. Crops are drawn from torch's global generator, which the host saves and restores,
so a resumed run continues exactly. The camera that threestudio's guidance contract requires is always the same one.
"""

from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from latent_prior import OptionError, host
from latent_prior.data.latent_codes import camera
from latent_prior.files import pictures as picture_files


@dataclass
class OnePictureDataModuleConfig:
    image: str = ""  # the picture to edit: PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or PPM
    # White where the edit goes, of the picture's size; alpha: the picture's own alpha, so the edit goes where it is
    # opaque; empty: no mask.
    mask: str = ""
    invert_mask: bool = False  # the edit goes where the mask is black
    short_side: int = 64  # of the picture in training, pixels
    batch_size: int = 1  # crops per step
    crop: list[float] = field(default_factory=lambda: [0.85, 1.0])  # range of a crop's sides, relative to the picture's
    flip: float = 0.5  # probability that a crop is mirrored
    jitter: float = 0.0  # largest relative change of a crop's brightness and contrast
    whole: float = 0.02  # probability of the whole picture instead of a crop


@dataclass(frozen=True)
class Picture:
    """A picture and its mask at training size, in [0, 1], and the picture at its own size, with its alpha if any."""

    pixels: Float[Tensor, "3 H W"]
    mask: Float[Tensor, "1 H W"] | None
    original: Image.Image


def read(cfg: DictConfig) -> Picture:
    """The picture that a config names. Raises OptionError, naming the key, if it cannot be used."""
    if not cfg.image:
        raise OptionError.because("data.image is empty; say which picture to edit, e.g. data.image=photo.png")
    if cfg.invert_mask and not cfg.mask:
        raise OptionError("data.invert_mask", True, "false where data.mask is empty")
    original = picture_files.read_with_alpha(cfg.image)
    picture_files.require_size(original, cfg.image)
    width, height = picture_files.scaled_size(original.size, cfg.short_side)
    sizes = {"data.short_side": cfg.short_side, "data.batch_size": cfg.batch_size}
    host.require_memory(3 * width * height * cfg.batch_size, sizes)
    pixels = picture_files.scaled(picture_files.flattened(original), cfg.short_side)
    mask = None
    if cfg.mask:
        whole = picture_files.read_mask(cfg.mask, original, invert=cfg.invert_mask)
        mask = picture_files.to_tensor(picture_files.scaled(whole, cfg.short_side))
    return Picture(picture_files.to_tensor(pixels), mask, original)


def cropped(
    pixels: Float[Tensor, "C H W"], share: float, at: tuple[float, float], mirrored: bool, mode: str = "bilinear"
) -> Float[Tensor, "C H W"]:
    """A crop of `share` of both sides at `at` (down, right; fractions of the free room), resized to full size."""
    height, width = pixels.shape[1:]
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = round(at[0] * (height - h)), round(at[1] * (width - w))
    part = pixels[:, top : top + h, left : left + w]
    if (h, w) != (height, width):
        smooth = {} if mode == "nearest" else {"align_corners": False}
        part = F.interpolate(part[None], (height, width), mode=mode, **smooth)[0]
    return part.flip(-1) if mirrored else part


class RandomCrops(IterableDataset, host.Updateable):
    """Endless batches of crops of one picture."""

    def __init__(self, cfg: DictConfig, picture: Picture):
        super().__init__()
        self.cfg = cfg
        self.picture = picture

    def __iter__(self):
        while True:
            yield {}

    def collate(self, batch: Any) -> dict[str, Any]:
        """Draw a batch; the argument is ignored."""
        pairs = [self._draw() for _ in range(self.cfg.batch_size)]
        out = {"picture": torch.stack([picture for picture, _ in pairs])}
        if self.picture.mask is not None:
            out["mask"] = torch.stack([mask for _, mask in pairs])
        return out | camera(len(pairs)) | {"height": out["picture"].shape[2], "width": out["picture"].shape[3]}

    def _draw(self) -> tuple[Tensor, Tensor | None]:
        # always the same number of draws, so that one setting does not affect the others
        whole, share, down, right, mirrored, brightness, contrast = torch.rand(7).tolist()
        low, high = self.cfg.crop
        share = 1.0 if whole < self.cfg.whole else low + (high - low) * share
        where = (share, (down, right), mirrored < self.cfg.flip)
        picture, mask = cropped(self.picture.pixels, *where), self.picture.mask
        if self.cfg.jitter > 0:
            brightness, contrast = (1 + self.cfg.jitter * (2 * u - 1) for u in (brightness, contrast))
            mean = picture.mean()
            picture = ((picture - mean) * contrast + mean).mul(brightness).clamp(0, 1)
        return picture, None if mask is None else cropped(mask, *where, mode="nearest")


class WholePicture(Dataset):
    """The picture once."""

    def __init__(self, picture: Picture):
        self.picture = picture

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        original = picture_files.to_tensor(self.picture.original)
        out = {"index": index, "picture": self.picture.pixels, "original": original}
        return out if self.picture.mask is None else out | {"mask": self.picture.mask}


@host.register("one-picture-datamodule")
class OnePictureDataModule(pl.LightningDataModule):
    """Lightning's data module of the picture."""

    cfg: DictConfig  # of OnePictureDataModuleConfig

    def __init__(self, cfg: Any = None) -> None:
        super().__init__()
        self.cfg = host.parse_structured(OnePictureDataModuleConfig, cfg)
        for name, least in (("batch_size", 1), ("short_side", picture_files.SMALLEST)):
            if self.cfg[name] < least:
                raise OptionError(f"data.{name}", self.cfg[name], f"at least {least}")
        crop = list(self.cfg.crop)
        if len(crop) != 2 or not 0 < crop[0] <= crop[1] <= 1:
            raise OptionError("data.crop", crop, "[low, high] in (0, 1]")
        for name in ("flip", "jitter", "whole"):
            if not 0 <= self.cfg[name] <= 1:
                raise OptionError(f"data.{name}", self.cfg[name], "a number in [0, 1]")
        # read now, so that an unusable file is reported before a model is loaded
        self.picture = read(self.cfg)

    def setup(self, stage: str | None = None) -> None:
        self.train_dataset = RandomCrops(self.cfg, self.picture)
        self.val_dataset = self.test_dataset = WholePicture(self.picture)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, num_workers=0, batch_size=None, collate_fn=self.train_dataset.collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_dataset, num_workers=0, batch_size=1)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        return self.val_dataloader()
