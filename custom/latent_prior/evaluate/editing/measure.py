"""The figures of one edited picture: against the truth, against the original, and by the judge CLIP."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, metrics
from latent_prior.files.pictures import read_picture, to_tensor
from latent_prior.pocket.captions import every_subject, parse
from latent_prior.pocket.edits import Edit, Scene
from latent_prior.pocket.judge import Judge

MEASURES_VERSION = 1  # increase when the measurements change, to invalidate stored results
PSNR_CAP = 100.0  # dB, for equal pictures; with a single byte different it is below 90


@dataclass(frozen=True)
class Figures:
    """None if there is no such figure.

    recognised: the judge calls the picture the target, among all captions; clip_score: 100 x cosine with the target,
    with the original outside the mask; outside_psnr: dB outside the mask to the original picture; perceptual: mean
    cosine distance of the judge's patch features to those of the original picture, with the original inside the mask;
    truth_psnr: dB to the truth; iou: of alpha > 0.5 and the mask.
    """

    recognised: bool | None = None
    clip_score: float | None = None
    outside_psnr: float | None = None
    perceptual: float | None = None
    truth_psnr: float | None = None
    iou: float | None = None


def in_bytes(picture: Float[Tensor, "C H W"]) -> Float[Tensor, "C H W"]:
    """A picture as read back from an 8-bit file."""
    return (picture * 255).round() / 255


class Measurer:
    """Measures edits of the pocket world with one judge."""

    def __init__(self, judge: Judge):
        self.judge = judge
        self._scenes: dict[Edit, Scene] = {}

    @property
    def digest(self) -> str:
        """Digest that identifies results of these settings."""
        return f"{MEASURES_VERSION}-{self.judge.digest[:16]}"

    def scene(self, edit: Edit) -> Scene:
        """The edit's pictures, as written for the editors."""
        if edit not in self._scenes:
            drawn = edit.scene()
            self._scenes[edit] = Scene(in_bytes(drawn.before), in_bytes(drawn.truth), drawn.mask)
        return self._scenes[edit]

    @torch.no_grad()
    def figures(
        self, edit: Edit, picture: Float[Tensor, "3 H W"], alpha: Float[Tensor, "1 H W"] | None = None
    ) -> Figures:
        """Measure a picture in [0, 1] of the scene's size. Raises OptionError for another size."""
        scene = self.scene(edit)
        if picture.shape != scene.before.shape:
            came, expected = ("x".join(map(str, reversed(p.shape[1:]))) for p in (picture, scene.before))
            raise OptionError.because(f"the picture is {came}; expected {expected}, the size of the input")
        outside = 1 - scene.mask
        only_inside = scene.mask * picture + outside * scene.before
        only_outside = outside * picture + scene.mask * scene.before
        target = self.judge.embed_texts([edit.target])
        whole, inside = self.judge.embed_images(torch.stack([picture, only_inside]))
        patches = self.judge.patch_features(torch.stack([only_outside, scene.before]))
        return Figures(
            recognised=self.judge.nearest(whole[None]).item() == every_subject().index(parse(edit.target)),
            clip_score=100 * (inside @ target[0]).item(),
            outside_psnr=metrics.psnr(picture[None], scene.before[None], outside[None], cap=PSNR_CAP).item(),
            perceptual=(1 - F.cosine_similarity(*patches.double(), dim=-1)).mean().clamp(min=0).item(),
            truth_psnr=metrics.psnr(picture[None], scene.truth[None], cap=PSNR_CAP).item(),
            iou=None if alpha is None else metrics.iou(alpha[None], scene.mask[None]).item(),
        )

    def read(self, folder: Path) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "1 H W"] | None]:
        """The pictures that a run wrote to `folder`: the composite, and alpha if there is one."""
        picture = to_tensor(read_picture(folder / "composite.png", "composite"))
        alpha_file = folder / "alpha.png"
        return picture, to_tensor(read_picture(alpha_file, "alpha"))[:1] if alpha_file.is_file() else None
