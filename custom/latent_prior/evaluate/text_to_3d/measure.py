"""Measuring one run: its written mesh, and beside it its field, against the truth's pictures and the truth's mesh."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, metrics
from latent_prior.evaluate.text_to_3d import solid, surface, views
from latent_prior.evaluate.text_to_3d.solid import SolidFigures
from latent_prior.meshes.asset import Asset
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.judge import Judge

PSNR_CAP = 100.0  # dB


@dataclass(frozen=True)
class PictureFigures:
    """Figures of a mesh's pictures, in its own colours and without light. None without a judge.

    r_single: the judge names the subject at the single view; r_ring: the share of the ring's views at which it does;
    r_ring_mean: whether it does by the mean of its similarities over the ring.
    """

    r_single: bool | None
    r_ring: float | None
    r_ring_mean: bool | None
    iou: float
    psnr: float


@dataclass(frozen=True)
class FieldFigures:
    """Figures of the trained field's own pictures, by volume rendering, on the ring."""

    field_iou: float
    field_psnr: float
    fog: float


@dataclass(frozen=True)
class MeshFigures:
    """Figures of the exported mesh; a mesh that is missing or does not load has no other figures.

    mean_colour is sRGB in [0, 1]; colour is the name nearest to it (see surface.py).
    """

    loads: bool
    chamfer: float | None = None
    bodies: int | None = None
    one_body: bool = False
    colour: str | None = None
    colour_right: bool = False
    mean_colour: list[float] | None = None
    pictures: PictureFigures | None = None
    solid: SolidFigures | None = None


def measure_pictures(subject: Subject, ring: views.Views, single: views.Views, judge: Judge | None) -> PictureFigures:
    """Figures of the pictures at `views.ring()` and `views.single()`."""
    truth = views.truth_views(subject, views.ring(), ring.rgb.shape[-1])
    named: dict[str, Any] = dict.fromkeys(("r_single", "r_ring", "r_ring_mean"))
    if judge is not None:
        meant = torch.tensor([judge.subjects.index(subject)])
        at_single, at_ring = judge.similarities(single.rgb).cpu(), judge.similarities(ring.rgb).cpu()
        named = {
            "r_single": metrics.r_precision(at_single, meant) == 1,
            "r_ring": metrics.r_precision(at_ring, meant.expand(len(at_ring))),
            "r_ring_mean": metrics.r_precision(at_ring.mean(0, keepdim=True), meant) == 1,
        }
    return PictureFigures(
        **named,
        iou=metrics.iou(ring.opacity, truth.opacity).mean().item(),
        psnr=metrics.psnr(ring.rgb, truth.rgb, cap=PSNR_CAP).mean().item(),
    )


def measure_field(subject: Subject, ring: views.Views) -> FieldFigures:
    """Figures of a field's pictures at `views.ring()`."""
    truth = views.truth_views(subject, views.ring(), ring.rgb.shape[-1])
    return FieldFigures(
        field_iou=metrics.iou(ring.opacity, truth.opacity).mean().item(),
        field_psnr=metrics.psnr(ring.rgb, truth.rgb, cap=PSNR_CAP).mean().item(),
        fog=metrics.fog(ring.rgb, truth.opacity),
    )


def read_mesh(path: Path | None) -> Asset | None:
    """A mesh file written by the exporter; None for none, or one that does not load."""
    try:
        return Asset.read(path) if path is not None else None
    except Exception:  # readers may raise anything for a broken file; here that is a result, not an error
        return None


def measure_mesh(subject: Subject, asset: Asset | None, judge: Judge | None) -> MeshFigures:
    """Figures of a written mesh."""
    if asset is None:
        return MeshFigures(loads=False)
    mesh = surface.welded(*views.in_world(asset))
    bodies, rgb = int(surface.piece_of_face(mesh).max()) + 1, surface.mean_colour(asset)
    colour = surface.nearest_colour(rgb, subject.kind, subject.surface)
    pictures = (views.mesh_views(asset, angles) for angles in (views.ring(), views.single()))
    return MeshFigures(
        loads=True,
        chamfer=surface.chamfer_to_truth(mesh, subject.kind),
        bodies=bodies,
        one_body=bodies <= max(1, surface.truth_bodies(subject.kind)),
        colour=colour,
        colour_right=colour == subject.colour,
        mean_colour=rgb.tolist(),
        pictures=measure_pictures(subject, *pictures, judge),
        solid=solid.figures(mesh, subject.kind),
    )


@dataclass(frozen=True)
class Measured:
    """A run's figures and its pictures for the contact sheet: the mesh's, or the field's where there is no mesh."""

    field: FieldFigures
    mesh: MeshFigures
    pictures: Float[Tensor, "B 3 H W"]


def measure_run(folder: Path, subject: Subject, judge: Judge | None) -> Measured:
    """Measure a run folder by its newest mesh and checkpoint.

    Raises OptionError if it is not a text-to-3D run or has no checkpoint.
    """
    from latent_prior.meshes.files import newest_mesh

    system = load_system(folder)
    asset = read_mesh(newest_mesh(folder))
    if asset is None:
        pictures = views.field_views(system, views.sheet(), views.SHEET_SIZE).rgb
    else:
        pictures = views.mesh_views(asset, views.sheet(), views.SHEET_SIZE).rgb
    field = measure_field(subject, views.field_views(system, views.ring()))
    return Measured(field, measure_mesh(subject, asset, judge), pictures)


def load_system(folder: Path) -> Any:
    """The system of a run at its newest checkpoint, in evaluation mode."""
    import latent_prior
    from latent_prior import host
    from latent_prior.runs.folder import last_checkpoint

    latent_prior.register()
    checkpoint = last_checkpoint(folder)
    cfg = host.load_config(str(folder / "configs" / "parsed.yaml"))
    system = host.find(cfg.system_type)(cfg.system, resumed=True)
    if not hasattr(system, "renderer"):
        raise OptionError.because(f"{folder} is not a text-to-3D run: its {cfg.system_type} renders no field")
    state, epoch, step = host.load_module_weights(str(checkpoint))
    system.load_state_dict(state)
    system.set_resume_status(epoch, step)
    system.to(host.get_device()).eval()
    system.do_update_step(epoch, step, on_load_weights=True)
    return system
