"""The tables of edited pictures: a row an editor, a row an edit and editor, and whether the bars are met.

Figures are means over an editor's runs. A run that failed has no figures: it counts as not recognised, is left out of
the means, and is counted under `failed`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latent_prior.evaluate.editing_measure import SAME, Result
from latent_prior.evaluate.table import Column, grid, mean_of, megabytes, number, tick

BEFORE, TRUTH = "before", "truth"  # labels of what is no run: the picture as it was, and as it should be
REFERENCES = (BEFORE, TRUTH)
OURS, LSD, CLIP, BLENDED = "ours", "LSD", "CLIP", "blended"
MASKED = ", mask given"  # ends the label of a layered variant that was given the mask

LEGEND = f"""\
Pictures of 64 × 64. The mask is 1 wherever the solid is, before or after.
- **recognised**: the judge CLIP calls the composite the target (kind, colour and surface) among all captions.
- **CLIP score**: 100 × cosine of picture and target by the judge CLIP, the outside of the mask as it was.
- **outside**: PSNR outside the mask against the picture as it was, the mean and in brackets the least; {SAME:.0f} stands
  for no difference at all.
- **perceptual**: mean cosine distance of the judge CLIP's patch features outside (the inside as it was) to those of the
  picture as it was; it stands in for LPIPS, whose weights are another download.
- **truth**: PSNR of the whole picture against the true one: same camera, light and background, edited.
- **IoU**: of alpha > 0.5 and the mask.
- **seconds**, **MB**: from launch to written picture, and peak memory, of the run's own process.
- **{BEFORE}** is the picture as it was; **{TRUTH}** is the true one: what a perfect edit has."""


@dataclass(frozen=True)
class Row:
    """An editor's runs."""

    label: str
    runs: int
    failed: int
    recognised: int
    clip_score: float | None
    outside_psnr: float | None
    least_outside: float | None
    perceptual: float | None
    truth_psnr: float | None
    iou: float | None
    seconds: float | None
    most_seconds: float | None
    peak_bytes: int | None


def summarise(results: Sequence[Result]) -> list[Row]:
    """The picture as it was, the editors, the truth."""
    editors = list(dict.fromkeys(result.label for result in results if result.label not in REFERENCES))
    rows = []
    for label in (BEFORE, *editors, TRUTH):
        if own := [result for result in results if result.label == label]:
            rows.append(_row(label, own))
    return rows


def _row(label: str, own: Sequence[Result]) -> Row:
    def figures(name: str) -> list[float]:
        return [value for result in own if (value := getattr(result, name)) is not None]

    seconds = [result.seconds for result in own if result.seconds is not None]
    return Row(
        label,
        runs=len(own),
        failed=sum(result.error is not None for result in own),
        recognised=sum(bool(result.recognised) for result in own),
        clip_score=mean_of(figures("clip_score")),
        outside_psnr=mean_of(figures("outside_psnr")),
        least_outside=min(figures("outside_psnr"), default=None),
        perceptual=mean_of(figures("perceptual")),
        truth_psnr=mean_of(figures("truth_psnr")),
        iou=mean_of(figures("iou")),
        seconds=mean_of(seconds),
        most_seconds=max(seconds, default=None),
        peak_bytes=max((result.peak_bytes for result in own if result.peak_bytes is not None), default=None),
    )


@dataclass(frozen=True)
class Bar:
    """What was asked beforehand, and what came; `met` None where there is nothing to judge by."""

    asked: str
    found: str
    met: bool | None


def bars(rows: Sequence[Row]) -> list[Bar]:
    """Those that the rows let one judge."""
    by = {row.label: row for row in rows}
    found = []

    def judge(label: str, asked: str, told: Callable[[Row], str], met: Callable[[Row], bool]) -> None:
        row = by.get(label)
        if row is not None and row.failed < row.runs:
            found.append(Bar(f"{label}: {asked}", told(row), met(row)))

    judge(OURS, "recognised in 9 of 10", _share, lambda r: r.recognised >= 0.9 * r.runs)
    judge(OURS, "outside at least 30 dB", _outside, lambda r: r.least_outside >= 30)
    judge(OURS + MASKED, "outside at least 35 dB", _outside, lambda r: r.least_outside >= 35)
    judge(OURS, "IoU at least 0.7 on the mean", lambda r: number(r.iou, 2), lambda r: (r.iou or 0) >= 0.7)
    for other in (LSD, CLIP):
        if other in by and by[other].truth_psnr is not None:
            theirs = by[other].truth_psnr
            judge(
                OURS,
                f"nearer to the truth than {other} on the mean",
                lambda r, theirs=theirs: f"{number(r.truth_psnr, 2)} dB against {number(theirs, 2)}",
                lambda r, theirs=theirs: r.truth_psnr > theirs,
            )
    judge(BLENDED, "outside at least 40 dB", _outside, lambda r: r.least_outside >= 40)
    for label in (OURS, OURS + MASKED, BLENDED):
        if label in by and by[label].most_seconds is not None:
            judge(
                label,
                "at most 180 seconds",
                lambda r: f"{number(r.most_seconds, 0)} at most",
                lambda r: r.most_seconds <= 180,
            )
    return found


def _share(row: Row) -> str:
    return f"{row.recognised} of {row.runs}"


def _outside(row: Row) -> str:
    return f"{number(row.least_outside, 1)} dB at least, {number(row.outside_psnr, 1)} on the mean"


def bar_lines(rows: Sequence[Row]) -> list[str]:
    """The bars in words."""
    return [f"- {bar.asked}: **{'met' if bar.met else 'missed'}** ({bar.found})" for bar in bars(rows)]


def to_markdown(results: Sequence[Result], title: str, notes: Sequence[str] = ()) -> str:
    """Means, bars, legend, and every run."""
    rows = summarise(results)
    parts = [f"# {title}", grid(SUMMARY_COLUMNS, rows), "\n".join(bar_lines(rows)), LEGEND, *notes]
    parts += ["## Runs", grid(RESULT_COLUMNS, sorted_runs(results))]
    if failed := [result for result in results if result.error is not None]:
        parts += ["## Failures", "\n".join(f"- {r.label}, {r.edit}: {r.error}" for r in failed)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sorted_runs(results: Sequence[Result]) -> list[Result]:
    """Edit by edit, in the order they came."""
    edits = list(dict.fromkeys(result.edit for result in results))
    return sorted(results, key=lambda result: edits.index(result.edit))


def _named(result: Result) -> str:
    return result.edit + (" (held out)" if result.held_out else "")


SUMMARY_COLUMNS: list[Column] = [
    ("variant", lambda r: r.label + (f" ({r.failed} of {r.runs} failed)" if r.failed else "")),
    ("recognised", lambda r: f"{r.recognised}/{r.runs}"),
    ("CLIP score", lambda r: number(r.clip_score, 1)),
    ("outside (least)", lambda r: f"{number(r.outside_psnr, 1)} ({number(r.least_outside, 1)})"),
    ("perceptual", lambda r: number(r.perceptual, 4)),
    ("truth", lambda r: number(r.truth_psnr, 2)),
    ("IoU", lambda r: number(r.iou, 2)),
    ("seconds (most)", lambda r: f"{number(r.seconds, 0)} ({number(r.most_seconds, 0)})"),
    ("peak MB", lambda r: megabytes(r.peak_bytes)),
]
RESULT_COLUMNS: list[Column] = [
    ("prompt", _named),
    ("variant", lambda r: r.label),
    ("recognised", lambda r: tick(r.recognised)),
    ("CLIP score", lambda r: number(r.clip_score, 1)),
    ("outside", lambda r: number(r.outside_psnr, 1)),
    ("perceptual", lambda r: number(r.perceptual, 4)),
    ("truth", lambda r: number(r.truth_psnr, 2)),
    ("IoU", lambda r: number(r.iou, 2)),
    ("seconds", lambda r: number(r.seconds, 0)),
]
