"""The figures of one adapted generator: its pictures against true pictures of the prompt.

A generator's pictures are made from fixed z with its constant noise, and rounded to bytes as if saved. Features are the
--features file's, or the judge CLIP's picture embeddings before normalisation.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from latent_prior import OptionError, metrics
from latent_prior.evaluate.bench.evaluation import Measured
from latent_prior.evaluate.stylegan import truth as truths
from latent_prior.evaluate.stylegan.features import ScriptFeatures
from latent_prior.evaluate.stylegan.truth import BATCH, PAIRED
from latent_prior.pocket.captions import parse
from latent_prior.pocket.judge import Judge
from latent_prior.stylegan2.generator import StyleGAN2

SHEET_PICTURES = 8  # on the contact sheet
PSNR_CAP = 100.0  # dB, of equal pictures
MEASURES_VERSION = 1  # increase when the measurements change, to invalidate stored results


@dataclass(frozen=True)
class Figures:
    """None if there is no such figure.

    frechet: distance to the true pictures' features; clip_score: 100 x mean cosine with the prompt; diversity: mean
    cosine distance of the features of two of the first PAIRED pictures; psnr: dB, mean over the first PAIRED z, against
    the truth of the same z; recognised: share of pictures in which the judge sees the prompt's kind, colour and
    surface.
    """

    diversity: float
    frechet: float | None = None
    clip_score: float | None = None
    psnr: float | None = None
    recognised: float | None = None


@dataclass(frozen=True)
class Seen:
    """What is kept from many pictures: features, the judge's unit embeddings, the first pictures themselves."""

    features: Float[Tensor, "N D"]
    embeddings: Float[Tensor, "N E"] | None
    first: UInt8[Tensor, "P 3 H W"]


@dataclass(frozen=True)
class Truth:
    """The true pictures of a prompt; `paired` are those of the generator's own first z, if z determines the scene."""

    seen: Seen
    paired: UInt8[Tensor, "P 3 H W"] | None


@torch.no_grad()
def pictures_of(generator: StyleGAN2, z: Float[Tensor, "N Z"], truncation: float) -> Iterator[UInt8[Tensor, "B 3 H W"]]:
    """A generator's pictures in batches. Raises OptionError if they are not finite."""
    device = generator.mapping.w_avg.device
    for part in z.split(BATCH):
        made = generator(part.to(device), truncation, "const")
        if not made.isfinite().all():
            raise OptionError.because("the generator's pictures are not finite")
        yield truths.to_bytes((made + 1) / 2)


@dataclass(frozen=True)
class Measurer:
    """Measures generators (of one size) under one set of settings.

    judge None: no CLIP score, nothing recognised, and `extractor` is needed; extractor None: the judge's features.
    real: pictures of the domain instead of rendered ones; then z does not determine a scene. cache: folder of rendered
    ones.
    """

    judge: Judge | None
    extractor: ScriptFeatures | None
    count: int
    truncation: float
    z_dim: int
    size: int
    cache: Path
    real: Path | None = None
    device: torch.device = torch.device("cpu")

    @cached_property
    def digest(self) -> str:
        """Digest that identifies results of these settings."""
        files = truths.picture_files(self.real) if self.real else []
        parts = [
            MEASURES_VERSION,
            self.judge.digest if self.judge else "",
            self.extractor.digest if self.extractor else "",
            [self.count, self.truncation, self.z_dim, self.size],
            [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @cached_property
    def _truths(self) -> dict[str, Truth]:
        return {}

    def truth(self, prompt: str) -> Measured:
        """The true pictures' own figures, without a distance to themselves."""
        truth = self._truth_of(prompt)
        # a row of the sheet shows the same z in every column
        shown = truth.seen.first if truth.paired is None else truth.paired
        return Measured(asdict(self._figures(prompt, truth.seen)), shown[:SHEET_PICTURES].float() / 255)

    def generator(self, prompt: str, generator: StyleGAN2) -> Measured:
        """Measure a generator against a prompt. Raises OptionError if it has another size."""
        cfg = generator.cfg
        if (cfg.z_dim, cfg.resolution) != (self.z_dim, self.size):
            raise OptionError.because(
                f"the generator has {cfg.z_dim} entries of z and {cfg.resolution} pixels per side; expected "
                f"{self.z_dim} and {self.size}, as its source has"
            )
        truth = self._truth_of(prompt)
        z = truths.codes(self.count, self.z_dim)
        keep = SHEET_PICTURES if truth.paired is None else len(truth.paired)
        seen = self._look(pictures_of(generator.to(self.device).eval(), z, self.truncation), keep)
        return Measured(asdict(self._figures(prompt, seen, truth)), seen.first[:SHEET_PICTURES].float() / 255)

    def _figures(self, prompt: str, seen: Seen, truth: Truth | None = None) -> Figures:
        clip_score = recognised = psnr = None
        if self.judge is not None:
            text = self.judge.embed_texts([prompt])
            clip_score = 100 * (seen.embeddings @ text.cpu().T).mean().item()
            if self.real is None:
                recognised = self.judge.recognised(seen.embeddings, parse(prompt))
        if truth is not None and truth.paired is not None:
            psnr = metrics.psnr(seen.first.float() / 255, truth.paired.float() / 255, cap=PSNR_CAP).mean().item()
        return Figures(
            diversity=metrics.mean_cosine_distance(seen.features[:PAIRED]),
            frechet=None if truth is None else metrics.frechet_distance(seen.features, truth.seen.features),
            clip_score=clip_score,
            psnr=psnr,
            recognised=recognised,
        )

    def _truth_of(self, prompt: str) -> Truth:
        if prompt not in self._truths:
            if self.real is None:
                domain, paired = truths.rendered(self.cache, parse(prompt), self.count, self.z_dim, self.size)
                truth = Truth(self._look(domain.split(BATCH), SHEET_PICTURES), paired)
            else:
                files = truths.picture_files(self.real)
                truth = Truth(self._look(truths.read_pictures(files, self.size), SHEET_PICTURES), None)
            while len(self._truths) >= 2:  # the runs of a prompt are adjacent, but not strictly with --jobs
                del self._truths[next(iter(self._truths))]
            self._truths[prompt] = truth
        return self._truths[prompt]

    def _look(self, batches: Iterable[UInt8[Tensor, "B 3 H W"]], keep: int) -> Seen:
        features, embeddings, first, kept = [], [], [], 0
        for pictures in batches:
            projected = None
            if self.judge is not None:
                projected = self.judge.project_images(pictures.float() / 255).cpu()
                embeddings.append(F.normalize(projected, dim=1))
            features.append(projected if self.extractor is None else self.extractor(pictures).cpu())
            if kept < keep:
                first.append(pictures[: keep - kept].clone())
                kept += len(first[-1])
        return Seen(torch.cat(features), torch.cat(embeddings) if embeddings else None, torch.cat(first))
