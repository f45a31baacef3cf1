"""MP4 films of pictures."""

from collections.abc import Sequence
from pathlib import Path

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8

from latent_prior.files import atomic_write


def write_film(path: Path, frames: Sequence[UInt8[np.ndarray, "H W 3"]], fps: int) -> None:
    """Write pictures of one size as an H.264 film, atomically.

    Its 4:2:0 colour needs even sides; for odd ones the last row or column is repeated.
    """
    pad = [(0, side % 2) for side in frames[0].shape[:2]] + [(0, 0)]
    with atomic_write(path) as beside:
        imageio.mimsave(beside, [np.pad(frame, pad, mode="edge") for frame in frames], fps=fps, macro_block_size=1)
        imageio_ffmpeg.count_frames_and_secs(beside)  # an error if it is cut short, which mimsave passes over
