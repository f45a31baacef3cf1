"""Runs, measurements and tables of `latent-prior evaluate editing`.

Layered editors are configs, run by `latent-prior generate`; the masked editor is `latent-prior edit-masked`, which
always gets the mask. pictures/ in the evaluation's folder holds the input pictures.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from latent_prior import OptionError, host
from latent_prior.evaluate.bench import existing
from latent_prior.evaluate.bench.evaluation import Evaluation, Findings, Measured
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.bench.table import PEAK, SECONDS_AND_MOST, Column, Groups, Row, labels_of, number
from latent_prior.evaluate.editing.measure import PSNR_CAP, Measurer
from latent_prior.pocket import edits
from latent_prior.pocket.captions import is_held_out, parse
from latent_prior.pocket.edits import EDITS, TUNING_EDITS, Edit
from latent_prior.pocket.judge import Judge
from latent_prior.runs.sweep import jobs
from latent_prior.runs.sweep.jobs import Job, RunsTasks, Task, Variant

BEFORE, TRUTH = "before", "truth"  # references: the original picture, and the true one
REFERENCES = (BEFORE, TRUTH)
OURS, LSD, CLIP, BLENDED = "ours", "LSD", "CLIP", "blended"
MASKED = ", mask given"  # suffix of the label of a layered variant that gets the mask
SYSTEM = "layered-editing-system"
RESERVED = jobs.RESERVED | {
    "system.prompt_processor.prompt": "the edits are fixed, use --edits",
    "data.image": "the edits are fixed, use --edits",
    "data.mask": "use --with-mask",
    "system.source_prompt": "it is the edit's",
}
LEGEND = f"""\
Pictures are 64 × 64. The mask is 1 wherever the solid is, before or after.
- **recognised**: the judge CLIP calls the composite the target (kind, colour and surface) among all captions.
- **CLIP score**: 100 × cosine of picture and target by the judge CLIP, with the original outside the mask.
- **outside**: PSNR outside the mask against the original picture, mean and (in brackets) minimum; {PSNR_CAP:.0f} \
means
  no difference at all.
- **perceptual**: mean cosine distance of the judge CLIP's patch features outside (with the original inside) to those
  of the original picture; it replaces LPIPS, whose weights are another download.
- **truth**: PSNR of the whole picture against the true one: same camera, light and background, edited.
- **IoU**: of alpha > 0.5 and the mask.
- **seconds**, **MB**: from launch to written picture, and peak memory, of the run's own process.
- **{BEFORE}** is the original picture; **{TRUTH}** is the true one, the result of a perfect edit."""
COLUMNS = (
    Column("recognised", "recognised", how="share", missing=0),
    Column("CLIP score", "clip_score", 1),
    Column("outside", "outside_psnr", 1, beside=Column("least", "outside_psnr", 1, how="least")),
    Column("perceptual", "perceptual", 4),
    Column("truth", "truth_psnr", 2),
    Column("IoU", "iou", 2),
    SECONDS_AND_MOST,
    PEAK,
)


class MaskGiven(Variant):
    """A layered editor that also gets the mask."""

    def values(self, task: Task) -> Mapping[str, Any]:
        return {**task.values, "data.mask": task.values["data.image"].replace(".before.", ".mask.")}


@dataclass(frozen=True)
class Blended:
    """The masked editor."""

    pictures: Path
    label: str = BLENDED

    @cached_property
    def folder(self) -> str:
        return f"{BLENDED}-{hashlib.sha256(f'edit-masked {jobs.prior_digest()}'.encode()).hexdigest()[:6]}"

    def command(self, task: Task, run: Path, seed: int) -> list[str]:
        before, _, mask = edits.paths(task.about, self.pictures)
        own = ["--mask", str(mask), "--prompt", task.given, "--seed", str(seed), "--out", str(run)]
        return ["latent_prior", "edit-masked", str(before), *own]


def plan(args: argparse.Namespace, out: Path) -> Evaluation:
    """The evaluation that the flags ask for. Raises OptionError for bad ones."""
    chosen = _chosen(args.list, args.edits)
    variants = jobs.variants(args.config, args.overrides, RESERVED)
    with_mask = args.with_mask
    if with_mask is None:
        with_mask = [OURS] if any(variant.label == OURS for variant in variants) else []
    pictures = out / "pictures"
    by = editors(variants, with_mask, Blended(pictures) if not args.no_blended else None)
    found = jobs.planned(by, [task_of(edit, pictures) for edit in chosen], args.seeds, out)
    found = existing.with_references(found, dict.fromkeys(REFERENCES, pictures), out)
    measurer = Measurer(Judge.load(device=host.get_device()))
    for edit in chosen:
        edits.write(edit, pictures)
    return evaluation(found, measurer)


def evaluation(found: Sequence[Job], measurer: Measurer) -> Evaluation:
    """The evaluation of these jobs, including references."""

    def measured(job: Job) -> Measured:
        if job.label in REFERENCES:
            picture, alpha = getattr(measurer.scene(job.task.about), job.label), None
        else:
            picture, alpha = measurer.read(_composite(job).parent)
        right = torch.ones_like(picture) if alpha is None else alpha.expand_as(picture)
        return Measured(asdict(measurer.figures(job.task.about, picture, alpha)), torch.stack([picture, right]))

    return Evaluation(
        title="Edits of pocket pictures",
        jobs=found,
        measure=measured,
        products=lambda job: [] if job.label in REFERENCES else [_composite(job)],
        settings=measurer.digest,
        columns=COLUMNS,
        legend=LEGEND,
        note=_note,
        views=2,
        groups=groups,
        findings=findings,
        missed=lambda result: result.label != BEFORE and not result.figure("recognised"),
        held_out=lambda job: is_held_out(parse(job.task.about.target)),
        references=REFERENCES,
    )


def task_of(edit: Edit, pictures: Path) -> Task:
    """The task of an edit whose picture is in `pictures`."""
    # the camera is part of the name, so that results of another one are never mistaken for these
    name = f"{edit.name}-{hashlib.sha256(repr(edit).encode()).hexdigest()[:4]}"
    values = {"data.image": str(edits.paths(edit, pictures)[0]), "system.source_prompt": edit.source}
    return Task(edit.description, given=edit.target, name=name, values=values, about=edit)


def editors(variants: Sequence[Variant], with_mask: Sequence[str], blended: Blended | None) -> list[RunsTasks]:
    """Every variant, then those of `with_mask` (labels) with the mask, then the masked editor.

    Raises OptionError for a label that is unknown or taken, and for a config that does not edit a picture.
    """
    settings = {f"--config: {variant.label!r}": variant.settings for variant in variants}
    jobs.require_system(settings, SYSTEM, "edits no picture")
    labels = [variant.label for variant in variants]
    for label in labels:
        if label == BLENDED or label.endswith(MASKED):
            raise OptionError.because(
                f"the label {label!r} is taken; choose another with --config LABEL=NAME", "--config"
            )
    for label in with_mask:
        if label not in labels:
            raise OptionError.because(
                f"there is no variant {label!r}; expected some of {', '.join(labels)}", "--with-mask"
            )
    given = [MaskGiven(v.label + MASKED, v.config, v.overrides) for v in variants if v.label in with_mask]
    return [*variants, *given, *([blended] if blended else [])]


def _chosen(name: str, wanted: Sequence[str] | None) -> list[Edit]:
    listed = {"editing": EDITS, "tuning": TUNING_EDITS}[name]
    for words in wanted or ():
        if not any(words.replace(" ", "_") in edit.name for edit in listed):
            known = ", ".join(edit.description for edit in listed)
            raise OptionError.because(f"no edit of the list {name} contains {words!r}; there are: {known}", "--edits")
    return [edit for edit in listed if not wanted or any(words.replace(" ", "_") in edit.name for words in wanted)]


def _composite(job: Job) -> Path:
    """A layered run writes it to `save`, the masked editor to its own folder."""
    save = job.run / "save"
    return (save if save.is_dir() else job.run) / "composite.png"


def _note(result: Result) -> str:
    """PSNR to the truth, PSNR outside the mask to the original, IoU."""
    parts = [f"{number(result.figure('truth_psnr'), 1)} dB", f"out {number(result.figure('outside_psnr'), 0)}"]
    iou = result.figure("iou")
    return "  ".join(parts if iou is None else [*parts, f"IoU {number(iou, 2)}"])


def groups(results: Sequence[Result]) -> Groups:
    """The original picture, the editors, the truth."""
    for label in labels_of(results, REFERENCES):
        yield {"variant": label}, [result for result in results if result.label == label]


def findings(rows: list[Row]) -> Findings:
    """Which bars, set before any result, are met; only those that can be judged from the rows."""
    by = {row.label: row for row in rows}
    bars = []

    def judge(label: str, asked: str, figure: str, least: float, digits: int = 0) -> None:
        row = by.get(label)
        if row is not None and (value := row.values[figure]) is not None:
            met = value <= -least if least < 0 else value >= least
            bars.append({"asked": f"{label}: {asked}", "found": number(value, digits), "met": met})

    ours = by.get(OURS)
    if ours is not None and ours.failed < ours.runs:
        share = ours.values["recognised"]
        found = f"{share} of {ours.runs}"
        bars.append({"asked": f"{OURS}: recognised in 9 of 10", "found": found, "met": share >= 0.9 * ours.runs})
    judge(OURS, "outside at least 30 dB", "least_outside_psnr", 30, 1)
    judge(OURS + MASKED, "outside at least 35 dB", "least_outside_psnr", 35, 1)
    judge(OURS, "IoU at least 0.7 on the mean", "iou", 0.7, 2)
    for other in (LSD, CLIP):
        pair = [by[label].values["truth_psnr"] for label in (OURS, other) if label in by]
        if len(pair) == 2 and None not in pair:
            found = f"{number(pair[0], 2)} dB against {number(pair[1], 2)}"
            asked = f"{OURS}: nearer to the truth than {other} on the mean"
            bars.append({"asked": asked, "found": found, "met": pair[0] > pair[1]})
    judge(BLENDED, "outside at least 40 dB", "least_outside_psnr", 40, 1)
    for label in (OURS, OURS + MASKED, BLENDED):
        judge(label, "at most 180 seconds", "most_seconds", -180)
    lines = [f"- {bar['asked']}: **{'met' if bar['met'] else 'missed'}** ({bar['found']})" for bar in bars]
    return Findings(lines, {"bars": bars})
