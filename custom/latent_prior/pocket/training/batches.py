"""The batches that the pocket denoisers are trained on: latents of pictures, their captions, and how noisy they become.

Of a batch, one share are the prior's pictures, some of which are without caption (for classifier-free guidance), without
view words, or without camera words. As many are pictures from all round, which always have camera words: from most of
these cameras the prior's own pictures, and so samples for plain captions, never are. The rest are of either, with camera
words as well, and noisy, where only the words determine the camera. Few solids look different from behind, and with
uniform sampling a denoiser ignores front and back: half of the rest are fronts and backs that look different.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTokenizer

from latent_prior.files import atomic_write
from latent_prior.files.torch_file import read_torch
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.pictures import PictureSet, joined
from latent_prior.pocket.renderer import render
from latent_prior.pocket.solids import KINDS
from latent_prior.pocket.training.autoencoder import encode_all
from latent_prior.pocket.training.clip import tokens_of

USUAL_SHARE, ALL_ROUND_SHARE = 3 / 8, 3 / 8
NO_CAPTION, NO_VIEW, NO_CAMERA = 0.12, 0.12, 0.2
NOISY = 0.3  # the rest's timesteps are from this fraction of the schedule on
TWO_SIDED_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Batch:
    """N latents, the token ids of their captions, their timesteps as fractions of the schedule, and which are which."""

    v: Float[Tensor, "N C h w"]
    ids: Int[Tensor, "N L"]
    t: Float[Tensor, "N"]
    parts: dict[str, int]  # how many rows of each kind, in their order

    def means(self, each: Float[Tensor, "N"]) -> dict[str, float]:
        """The mean of each kind's rows."""
        split = each.detach().split(list(self.parts.values()))
        return {name: rows.mean().item() for name, rows in zip(self.parts, split, strict=True)}


class Batches:
    """Draws batches of `size` from two sets of pictures, whose latents are kept in `folder`."""

    def __init__(
        self,
        folder: Path,
        vae: AutoencoderKL,
        tokenizer: CLIPTokenizer,
        pictures: PictureSet,
        all_round: PictureSet,
        device: torch.device,
        size: int,
    ):
        every = joined(pictures, all_round)
        self._sizes = len(pictures), len(all_round)
        self._ids, said = caption_ids(tokenizer, every)
        self._plain, self._viewed, self._placed = said.T
        file = folder / "latents.pt"
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with atomic_write(file) as beside:
                torch.save(encode_all(vae, every.images, device) * vae.config.scaling_factor, beside)
        self._latents = read_torch(file)
        self._sided = two_sided(every)
        self._usual, self._around = int(size * USUAL_SHARE), int(size * ALL_ROUND_SHARE)
        self._known = int((size - self._usual - self._around) * TWO_SIDED_SHARE) if len(self._sided) else 0
        self._rest = size - self._usual - self._around - self._known

    def draw(self, g: torch.Generator) -> Batch:
        """A batch, on the CPU."""
        usual, around, known = self._usual, self._around, self._known
        own, others = self._sizes
        first = torch.randint(own, (usual,), generator=g)
        chance = torch.rand(usual, generator=g)
        said = torch.where(chance < NO_CAMERA + NO_VIEW, self._viewed[first], self._placed[first])
        said = torch.where(chance < NO_VIEW, self._plain[first], said)
        said = torch.where(chance > 1 - NO_CAPTION, 0, said)
        more = own + torch.randint(others, (around,), generator=g)
        noisy = torch.randint(own + others, (self._rest,), generator=g)
        if known:
            noisy = torch.cat([noisy, self._sided[torch.randint(len(self._sided), (known,), generator=g)]])
        rows = torch.cat([first, more, noisy])
        said = torch.cat([said, self._placed[more], self._placed[noisy]])
        t = torch.cat([_spread(g, usual), _spread(g, around), NOISY + (1 - NOISY) * _spread(g, len(noisy))])
        parts = {"usual": usual, "all_round": around, "noisy": len(noisy)}
        return Batch(self._latents[rows], self._ids[said], t, parts)


def _spread(g: torch.Generator, count: int) -> Float[Tensor, "N"]:
    """Fractions spread over a batch: the loss varies more between timesteps than between pictures."""
    return (torch.arange(count) + torch.rand(count, generator=g)) / max(count, 1)


def caption_ids(tokenizer: CLIPTokenizer, pictures: PictureSet) -> tuple[Int[Tensor, "K L"], Int[Tensor, "N 3"]]:
    """Token ids of all distinct captions (row 0: the empty one), and per picture the rows of its caption alone, with its
    view, and with view and camera."""
    plain = [s.caption for s in pictures.subjects]
    viewed = [f"{c}, {v}" for c, v in zip(plain, pictures.views, strict=True)]
    placed = [f"{c}, {w}" for c, w in zip(viewed, pictures.cameras, strict=True)]
    unique = ["", *sorted({*plain, *viewed, *placed})]
    row = {c: i for i, c in enumerate(unique)}
    said = [[row[c] for c in three] for three in zip(plain, viewed, placed, strict=True)]
    return tokens_of(tokenizer, unique), torch.tensor(said)


def two_sided(pictures: PictureSet, least: float = 0.01) -> Int[Tensor, "M"]:
    """Indices of pictures from the front or back of a solid that looks different from behind.

    The criterion is a mean difference of more than `least` between pixels in [0, 1] of red renders on white.
    """
    azimuth = torch.tensor([0.0, 30.0, -30.0])
    around, level = torch.cat([azimuth, azimuth + 180]), torch.full((6,), 20.0)

    def differs(kind: str) -> bool:
        rgb = render([Subject(kind, "red")] * 6, level, around, torch.ones(6, 3), size=32).rgb
        return (rgb[:3] - rgb[3:]).abs().mean().item() > least

    kinds = {kind for kind in KINDS if differs(kind)}
    said = zip(pictures.subjects, pictures.views, strict=True)
    return torch.tensor([i for i, (s, v) in enumerate(said) if s.kind in kinds and v in ("front view", "back view")])
