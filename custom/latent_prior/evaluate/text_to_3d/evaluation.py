"""Runs, measurements and tables of `latent-prior evaluate text-to-3d`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.evaluate.bench import arguments, existing
from latent_prior.evaluate.bench.evaluation import Evaluation, Measured
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.bench.table import PEAK, SECONDS_AND_MOST, Column, Groups, labels_of, number, tick
from latent_prior.evaluate.text_to_3d import measure, prompts, views
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.pocket.captions import is_held_out, parse
from latent_prior.pocket.judge import Judge
from latent_prior.runs import folder as run_folder
from latent_prior.runs.sweep import jobs
from latent_prior.runs.sweep.jobs import Job, Task

NO_JUDGE = "none"
MEASURES_VERSION = 2  # increase when the measurements change, to invalidate stored results
AREA_WITHIN, VOLUME_WITHIN = 0.15, 0.20  # of the truth's
LEGEND = f"""\
All figures but "field" are of the written mesh: its pictures are in its own colours, without light. Cameras are those of
`pocket/cameras.py`: distance 3, field of view 36°, pictures of 64 × 64 on white. "Ring" is {views.RING_VIEWS} views at
elevation {views.RING_ELEVATION:g}°, evenly spaced.
- **R@1 ring**: the share of the ring's views at which the judge CLIP ranks the prompt's caption first among all captions
  of the pocket world; then, as a count or tick, whether it does for the mean similarity over the ring. **R@1**: at
  azimuth {views.SINGLE_AZIMUTH:g}°, elevation {views.SINGLE_ELEVATION:g}°.
- **IoU**, **PSNR**: silhouette (opacity > 0.5) and picture against the truth's, mean over the ring's views; **field**:
  the same of the trained field by volume rendering.
- **normals**: mean angle in degrees between the normals of points on the mesh and of the nearest points on the truth;
  then the other way round. **area**, **volume**: as multiples of the truth's, and as a share of the runs how often they
  are within {AREA_WITHIN:.0%} and {VOLUME_WITHIN:.0%} of it.
- **Chamfer**: mean distance between 30,000 points on the mesh and as many on the truth, averaged over both directions,
  in world units (the solids fit in a ball of radius 0.8; the truth against itself gives about 0.006).
- **fog** (in comparisons alone): mean distance from white, per channel, of the field's pictures away from the truth's
  silhouette.
- **whole**: the mesh is watertight, has no more connected pieces than the truth, and no face through which an edge of
  another one passes; then, how many pieces no view from outside shows. **wall**: the thickness that one percent of its
  surface stays below.
- **hollow**: of a mug, wine glass or jug: how deep its inside lies below its top, seen from above, as a multiple of the
  truth's.
- **colour**: of all colours of that kind and surface, the prompt's is nearest to the mesh's mean colour (CIELAB).
- **seconds**, **MB**: from launch to written mesh, and peak memory, of the run's own process.
"""


def _other_colour(result: Result) -> str:
    return "" if result.figure("colour_right") else result.figure("colour") or ""


def _faults(result: Result) -> str:
    """What a mesh that is not whole has."""
    found = []
    if result.figure("bodies") not in (None, 1):
        found.append(f"{result.figure('bodies')} pieces")
    if result.figure("watertight") is False:
        found.append("open")
    if result.figure("crossings"):
        found.append(f"{result.figure('crossings')} crossed")
    return ", ".join(found)


def _whole(figures: dict[str, Any]) -> bool:
    return bool(figures["one_body"] and figures["watertight"] and not figures["crossings"])


# a failed run counts as not recognised, as IoU 0, and as failing what is counted
COLUMNS = (
    Column(
        "R@1 ring",
        "r_ring",
        3,
        missing=0,
        beside=Column("", "r_ring_mean", how="share", missing=0),
        detail=lambda result: tick(result.figure("r_ring_mean")),
        better="more",
    ),
    Column("R@1", "r_single", how="share", missing=0),
    Column("IoU", "iou", 3, missing=0, spread=True, better="more", beside=Column("field", "field_iou", 3)),
    Column("PSNR", "psnr", 2, spread=True, better="more", beside=Column("field", "field_psnr", 2)),
    Column("normals", "normals_to", 1, better="less", beside=Column("", "normals_from", 1)),
    Column("area", "area", 2, beside=Column("", "area_right", how="share", missing=0)),
    Column("volume", "volume", 2, beside=Column("", "volume_right", how="share", missing=0)),
    Column("Chamfer", "chamfer", 4, spread=True, better="less"),
    Column("whole", "whole", how="share", missing=0, detail=_faults, beside=Column("hidden", "hidden", 0, how="most")),
    Column("wall", "thinnest", 3),
    Column("hollow", "hollow", 2),
    Column("colour", "colour_right", how="share", missing=0, detail=_other_colour),
    SECONDS_AND_MOST,
    PEAK,
)

# Compared run by run beside those of the table's columns that say which way is better.
FOG = Column("fog", "fog", 4, better="less")


def plan(args: argparse.Namespace, out: Path) -> Evaluation:
    """The evaluation that the flags ask for. Raises OptionError for bad ones."""
    if args.runs:
        found = existing.given([Path(run) for run in args.runs], out)
        for job in found:
            arguments.check_pocket_prompt(job.prompt, f"--runs: {job.run}")
    else:
        variants = jobs.variants(args.config, args.overrides)
        lists = {"benchmark": prompts.benchmark(), "tuning": prompts.tuning(), "study": prompts.study()}
        chosen = arguments.chosen_prompts(args, lists, arguments.check_pocket_prompt)
        found = jobs.planned(variants, [Task(prompt) for prompt in chosen], args.seeds, out)
    judge = None if args.judge == NO_JUDGE else _load_judge(Path(args.judge or POCKET_FOLDER))
    return evaluation(found, judge)


def evaluation(found: Sequence[Job], judge: Judge | None) -> Evaluation:
    """The evaluation of these jobs with this judge."""
    return Evaluation(
        title="Text to 3D against the truth of the pocket world",
        jobs=found,
        measure=lambda job: _measured(job, judge),
        products=_products,
        settings=f"{MEASURES_VERSION}-{judge.digest[:12] if judge else NO_JUDGE}",
        columns=COLUMNS,
        also_compared=(FOG,),
        legend=LEGEND,
        note=_note,
        views=len(views.SHEET_AZIMUTHS),
        groups=_groups,
        with_runs=True,
        missed=lambda result: result.figure("r_ring_mean") is False,
        held_out=lambda job: is_held_out(parse(job.prompt)),
        truth=lambda prompt: views.truth_views(parse(prompt), views.sheet(), views.SHEET_SIZE).rgb,
        halves=True,
    )


def _load_judge(folder: Path) -> Judge:
    if not any((folder / "judge").glob("*.safetensors")):
        raise OptionError.because(
            f"{folder} has no judge/*.safetensors; `--judge none` leaves out R-precision", "--judge"
        )
    return Judge.load(str(folder / "judge"))


def _has_checkpoint(run: Path) -> bool:
    return (run / "configs" / "parsed.yaml").is_file() and any((run / "ckpts").glob("[!.]*.ckpt"))


def _products(job: Job) -> list[Path]:
    from latent_prior.meshes.files import newest_mesh

    files = [run_folder.last_checkpoint(job.run), newest_mesh(job.run)] if _has_checkpoint(job.run) else []
    return [path for path in files if path]


def _measured(job: Job, judge: Judge | None) -> Measured:
    if not _has_checkpoint(job.run):
        raise OptionError.because(f"no checkpoint in {job.run / 'ckpts'}")
    found = measure.measure_run(job.run, parse(job.prompt), judge)
    figures = dataclasses.asdict(found.field) | dataclasses.asdict(found.mesh)
    for part in ("pictures", "solid"):
        figures |= figures.pop(part) or {}
    if figures["loads"]:
        figures["area_right"] = abs(figures["area"] - 1) <= AREA_WITHIN
        figures["volume_right"] = abs(figures["volume"] - 1) <= VOLUME_WITHIN
        figures["whole"] = _whole(figures)
    return Measured(figures, found.pictures)


def _note(result: Result) -> str:
    note = f"IoU {number(result.figure('iou'), 2)}   {number(result.figure('psnr'), 1)} dB"
    if result.figure("r_ring") is not None:
        note += f"   judge {round(result.figure('r_ring') * views.RING_VIEWS)}/{views.RING_VIEWS}"
    return note


def _groups(results: Sequence[Result]) -> Groups:
    """Every variant's training prompts, held-out prompts, and all prompts."""
    for label in labels_of(results):
        own = [result for result in results if result.label == label]
        yield {"variant": label, "prompts": "training"}, [result for result in own if not result.held_out]
        yield {"variant": label, "prompts": "held out"}, [result for result in own if result.held_out]
        yield {"variant": label, "prompts": "all"}, own
