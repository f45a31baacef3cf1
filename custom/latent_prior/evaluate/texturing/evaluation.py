"""Runs, measurements and tables of `latent-prior evaluate texturing`.

meshes/ in the evaluation's folder holds the input meshes.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from latent_prior import OptionError
from latent_prior.evaluate.bench import arguments, existing
from latent_prior.evaluate.bench.evaluation import Evaluation, Measured
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.bench.table import PEAK, SECONDS_AND_MOST, Column, Groups, labels_of, number, tick
from latent_prior.evaluate.text_to_3d import prompts, views
from latent_prior.evaluate.texturing import measure
from latent_prior.evaluate.texturing.solids import other_look, write_painted, write_solid
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.files import newest_mesh
from latent_prior.pocket.captions import is_held_out, parse
from latent_prior.pocket.judge import Judge
from latent_prior.runs.sweep import jobs
from latent_prior.runs.sweep.jobs import Job, Task

GEOMETRY = "textured-mesh"
RESERVED = jobs.RESERVED | {"system.geometry.mesh": "the meshes are those of the prompts"}
MEASURES_VERSION = 1  # increase when the measurements change, to invalidate stored results
LEGEND = f"""\
The meshes are the pocket world's own solids, so shape is given and silhouettes agree but for antialiasing. Pictures are
64 × 64 on white, of the written GLB in its own colours, without light, from the cameras of `evaluate text-to-3d`. "Ring"
is {views.RING_VIEWS} views at elevation {views.RING_ELEVATION:g}°, "above" {measure.ABOVE_VIEWS} views at elevation \
{measure.ABOVE_ELEVATION:g}°.
- **R@1 ring**: the share of the ring's views at which the judge CLIP ranks the prompt's caption first among all captions
  of the pocket world; then, as a count or tick, whether it does for the mean similarity over the ring. **above**: the
  share of the views from above.
- **PSNR**: to the truth, mean over the ring's views. **best phase**: the same, for stripes and checks at their best
  phase, which no prompt tells. **PSNR above**: from above.
- **colour**: of all colours of that kind and surface, the prompt's is nearest to the mesh's mean colour (CIELAB).
- **seconds**, **MB**: from launch to written mesh, and peak memory, of the run's own process.
"""
COLUMNS = (
    Column(
        "R@1 ring",
        "r_ring",
        3,
        missing=0,
        beside=Column("", "r_ring_mean", how="share", missing=0),
        detail=lambda result: tick(result.figure("r_ring_mean")),
    ),
    Column("above", "r_above", 3, missing=0),
    Column("PSNR", "psnr", 2, spread=True),
    Column("best phase", "best_psnr", 2, spread=True),
    Column("PSNR above", "psnr_above", 2),
    Column(
        "colour",
        "colour_right",
        how="share",
        missing=0,
        detail=lambda result: "" if result.figure("colour_right") else result.figure("colour") or "",
    ),
    SECONDS_AND_MOST,
    PEAK,
)


def plan(args: argparse.Namespace, out: Path) -> Evaluation:
    """The evaluation that the flags ask for. Raises OptionError for bad ones."""
    judge = Judge.load()
    if args.runs:
        found = existing.given([Path(run) for run in args.runs], out)
        for job in found:
            arguments.check_pocket_prompt(job.prompt, f"--runs: {job.run}")
        return evaluation(found, judge)
    variants = jobs.variants(args.config, args.overrides, RESERVED)
    lists = {"benchmark": prompts.benchmark(), "tuning": prompts.tuning(), "restyling": prompts.benchmark()}
    chosen = arguments.chosen_prompts(args, lists, arguments.check_pocket_prompt)
    _require_meshes(variants)
    restyling = args.list == "restyling" and not (args.prompts or args.prompts_file)
    tasks = [task_of(prompt, (out / "meshes").absolute(), restyling) for prompt in chosen]
    return evaluation(jobs.planned(variants, tasks, args.seeds, out), judge)


def task_of(prompt: str, meshes: Path, restyling: bool) -> Task:
    """The task of a prompt; its mesh is written."""
    subject = parse(prompt)
    if not restyling:
        return Task(prompt, values={"system.geometry.mesh": str(write_solid(subject.kind, meshes))})
    before = other_look(subject)
    values = {"system.geometry.mesh": str(write_painted(before, meshes)), "system.geometry.start": "texture"}
    return Task(f"{before.caption} → {subject.caption}", given=prompt, values=values)


def evaluation(found: Sequence[Job], judge: Judge) -> Evaluation:
    """The evaluation of these jobs with this judge."""
    return Evaluation(
        title="Texturing of the pocket world's solids",
        jobs=found,
        measure=lambda job: _measured(job, judge),
        products=lambda job: [path for path in [newest_mesh(job.run, (".glb",))] if path],
        settings=f"{MEASURES_VERSION}-{judge.digest[:12]}",
        columns=COLUMNS,
        legend=LEGEND,
        note=_note,
        views=len(views.SHEET_AZIMUTHS),
        groups=_groups,
        with_runs=True,
        missed=lambda result: result.figure("r_ring_mean") is False,
        held_out=lambda job: is_held_out(parse(_given(job))),
        truth=lambda prompt: views.truth_views(parse(prompt.split(" → ")[-1]), views.sheet(), views.SHEET_SIZE).rgb,
        halves=True,
    )


def _given(job: Job) -> str:
    return job.task.given or job.prompt


def _require_meshes(variants: Sequence[jobs.Variant]) -> None:
    from latent_prior import host

    for variant in variants:
        kind = host.select(variant.settings, "system.geometry_type")
        if kind != GEOMETRY:
            raise OptionError.because(
                f"--config: {variant.label!r} textures no mesh: its system.geometry_type is {kind!r}"
            )


def _measured(job: Job, judge: Judge) -> Measured:
    written = newest_mesh(job.run, (".glb",))
    if written is None:
        raise OptionError.because(f"no GLB in {job.run / 'save'}")
    asset = Asset.read(written)
    return Measured(dataclasses.asdict(measure.figures(parse(_given(job)), asset, judge)), measure.sheet(asset))


def _note(result: Result) -> str:
    return (
        f"{number(result.figure('psnr'), 1)} dB ({number(result.figure('best_psnr'), 1)})   "
        f"judge {round(result.figure('r_ring') * views.RING_VIEWS)}/{views.RING_VIEWS}"
    )


def _groups(results: Sequence[Result]) -> Groups:
    """Every variant's training prompts, held-out prompts, and all prompts."""
    for label in labels_of(results):
        own = [result for result in results if result.label == label]
        yield {"variant": label, "prompts": "training"}, [result for result in own if not result.held_out]
        yield {"variant": label, "prompts": "held out"}, [result for result in own if result.held_out]
        yield {"variant": label, "prompts": "all"}, own
