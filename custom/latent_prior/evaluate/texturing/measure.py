"""The figures of one written mesh, against the truth's pictures and colours."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import metrics
from latent_prior.evaluate.text_to_3d import surface, views
from latent_prior.evaluate.text_to_3d.views import Angles, Views, mesh_views
from latent_prior.meshes.asset import Asset
from latent_prior.pocket import cameras
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.judge import Judge

ABOVE_VIEWS, ABOVE_ELEVATION = 8, 50.0
PHASES = {"striped": 16, "checkered": 8}  # of a pattern, tried for the best one; a prompt tells none
PSNR_CAP = 100.0  # dB


@dataclass(frozen=True)
class Figures:
    """Figures of a mesh's pictures.

    r_ring: the share of the ring's views at which the judge names the subject; r_ring_mean: whether it does by the mean
    of its similarities over the ring; r_above: as r_ring, from above. psnr, psnr_above: dB to the truth, mean over the
    views; best_psnr: at the best phase of a pattern. mean_colour: display values; colour: the nearest colour's name (see
    text_to_3d/surface.py).
    """

    r_ring: float
    r_ring_mean: bool
    r_above: float
    psnr: float
    best_psnr: float
    psnr_above: float
    colour: str
    colour_right: bool
    mean_colour: list[float]


def above() -> Angles:
    """Views from above, evenly spaced."""
    return Angles(*cameras.ring(ABOVE_VIEWS, ABOVE_ELEVATION))


@torch.no_grad()
def figures(subject: Subject, asset: Asset, judge: Judge) -> Figures:
    """Measure a written mesh that should show the subject."""
    ring, high = mesh_views(asset, views.ring()), mesh_views(asset, above())
    meant = torch.tensor([judge.subjects.index(subject)])
    at_ring, at_high = (judge.similarities(seen.rgb).cpu() for seen in (ring, high))
    truth = views.truth_views(subject, views.ring())
    colour = surface.mean_colour(asset)
    name = surface.nearest_colour(colour, subject.kind, subject.surface)
    return Figures(
        r_ring=metrics.r_precision(at_ring, meant.expand(len(at_ring))),
        r_ring_mean=metrics.r_precision(at_ring.mean(0, keepdim=True), meant) == 1,
        r_above=metrics.r_precision(at_high, meant.expand(len(at_high))),
        psnr=_psnr(ring, truth.rgb),
        best_psnr=_best_psnr(subject, ring),
        psnr_above=_psnr(high, views.truth_views(subject, above()).rgb),
        colour=name,
        colour_right=name == subject.colour,
        mean_colour=colour.tolist(),
    )


def _psnr(seen: Views, truth: Float[Tensor, "B 3 H W"]) -> float:
    return metrics.psnr(seen.rgb, truth, cap=PSNR_CAP).mean().item()


def _best_psnr(subject: Subject, ring: Views) -> float:
    count = PHASES.get(subject.surface, 1)
    phases = [i / count for i in range(count)]
    return max(_psnr(ring, views.truth_views(subject, views.ring(), phase=phase).rgb) for phase in phases)


def sheet(asset: Asset) -> Float[Tensor, "B 3 H W"]:
    """The pictures for the contact sheet."""
    return mesh_views(asset, views.sheet(), views.SHEET_SIZE).rgb
