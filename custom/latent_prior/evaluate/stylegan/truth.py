"""True pictures of a prompt: rendered in the pocket world, or from a folder.

The rendered ones are stored in the evaluation's folder, so that they are rendered only once. Pictures are uint8, B 3 R
R.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from latent_prior import OptionError
from latent_prior.files import atomic_write
from latent_prior.files.pictures import read_picture
from latent_prior.files.tensors import read_tensors
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.mug_scenes import SCENE_ENTRIES, truth
from latent_prior.runs.sweep.jobs import slug

BATCH = 50  # pictures at a time
PAIRED = 200  # number of a generator's z whose own truth is rendered
Z_SEED, TRUTH_SEED = 700_000, 700_001  # for the generator's z, and for the z of the truth it is compared with
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def codes(count: int, z_dim: int, seed: int = Z_SEED) -> Float[Tensor, "N Z"]:
    """The z used for every generator."""
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(seed))


def to_bytes(pictures: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    """Pictures in [0, 1], rounded to bytes."""
    return (pictures.clamp(0, 1) * 255).round().byte().cpu()


def rendered(folder: Path, subject: Subject, count: int, z_dim: int, size: int) -> tuple[Tensor, Tensor]:
    """`count` true pictures of `subject`, and those of the first PAIRED z of `codes`; rendered if not in `folder`.

    Raises OptionError if z is too short to describe a scene.
    """
    if z_dim < SCENE_ENTRIES:
        raise OptionError.because(
            f"the generator's z has {z_dim} entries, but a scene of the pocket world needs {SCENE_ENTRIES}: compare it "
            "with pictures of the domain (--real DIR)"
        )
    path = folder / f"{slug(subject.caption)}-{count}x{size}-z{z_dim}.safetensors"
    if not path.is_file():
        z = torch.cat([codes(count, z_dim, TRUTH_SEED), codes(count, z_dim)[:PAIRED]])
        parts = []
        with tqdm(total=len(z), desc=f"truth: {subject.caption}", unit="picture", leave=False, disable=None) as bar:
            for part in z.split(BATCH):
                parts.append(to_bytes(truth(part, subject, size)))
                bar.update(len(part))
        pictures = torch.cat(parts)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as beside:
            save_file({"domain": pictures[:count], "paired": pictures[count:]}, beside)
    kept = read_tensors(path)
    return kept["domain"], kept["paired"]


def picture_files(folder: Path) -> list[Path]:
    """The pictures below a folder, sorted. Raises OptionError naming --real if there are fewer than two."""
    if not folder.is_dir():
        raise OptionError.because(f"--real: there is no folder {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(found) < 2:
        raise OptionError.because(
            f"--real: {folder} holds {len(found)} pictures ({', '.join(SUFFIXES)}); expected two or more"
        )
    return found


def read_pictures(files: list[Path], size: int) -> Iterator[UInt8[Tensor, "B 3 H W"]]:
    """Pictures in batches, centre-cropped to a square and resized to `size`."""
    for start in range(0, len(files), BATCH):
        parts = []
        for path in files[start : start + BATCH]:
            square = ImageOps.fit(read_picture(path, "--real"), (size, size), Image.Resampling.LANCZOS)
            parts.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
        yield torch.stack(parts)
