"""Tables of results: one row a run, and one a variant and group, as CSV and as Markdown.

A run that failed before it could be measured counts as missed by the judge and as IoU 0; its other figures are absent
and left out of the means, and it is counted under `failed`. `±` is the standard deviation over the seeds of a seed's
mean (of the population), where there are several seeds.
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latent_prior.evaluate.results import Result
from latent_prior.evaluate.views import RING_ELEVATION, RING_VIEWS, SINGLE_AZIMUTH, SINGLE_ELEVATION
from latent_prior.metrics.pictures import FOG_MARGIN

MISSED_IS_ZERO = ("iou", "r_ring")  # figures that a run without them has as 0
GROUPS = {
    "training": lambda result: not result.held_out,
    "held out": lambda result: result.held_out,
    "all": lambda result: True,
}
LEGEND = f"""\
Cameras as in `pocket/cameras.py`: distance 3, field of view 36°, pictures of 64 × 64 on white. "Ring" is {RING_VIEWS}
views at elevation {RING_ELEVATION:g}°, evenly around.
- **R@1**: the judge CLIP ranks the prompt's caption first among all captions of the pocket world, at azimuth
  {SINGLE_AZIMUTH:g}°, elevation {SINGLE_ELEVATION:g}°.
- **R@1 ring**: the share of the ring's views at which it does; then, by count or tick, whether it does by the mean
  similarity over the ring.
- **IoU**, **PSNR**: silhouette (opacity > 0.5) and picture against the truth's, mean over the ring's views.
- **fog**: mean |picture − white| outside the truth's silhouette dilated by {FOG_MARGIN} pixels, over the ring.
- **Chamfer**: mean distance between 30,000 points on the mesh and as many on the truth, both ways averaged, in world
  units (the solids fit in a ball of radius 0.8; the truth against itself gives about 0.006).
- **body**: the mesh loads in trimesh and has no more connected pieces than the truth. **colour**: of all colours of
  that kind and surface, the prompt's is nearest to the mesh's mean colour (CIELAB).
- **seconds**, **MB**: from launch to written mesh, and peak memory, of the run's own process.
"""


@dataclass(frozen=True)
class Summary:
    """The runs of a variant and group of prompts. Counts, and means (None of nothing)."""

    label: str
    group: str
    runs: int
    failed: int
    r_single: int
    r_ring: float
    r_ring_mean: int
    judged: bool
    iou: float
    psnr: float | None
    fog: float | None
    worst_fog: float | None
    chamfer: float | None
    one_body: int
    colour_right: int
    seconds: float | None
    most_seconds: float | None
    peak_bytes: int | None
    spread: dict[str, float]  # over the seeds; empty with a single one


def summarise(results: Sequence[Result]) -> list[Summary]:
    """Every variant's groups; groups without runs are left out."""
    summaries = []
    for label in dict.fromkeys(result.label for result in results):
        own = [result for result in results if result.label == label]
        for group, belongs in GROUPS.items():
            if rows := [result for result in own if belongs(result)]:
                summaries.append(_summary(label, group, rows))
    return summaries


def _summary(label: str, group: str, rows: Sequence[Result]) -> Summary:
    def present(key: str, among: Sequence[Result] = rows) -> list[float]:
        return [value for row in among if (value := getattr(row, key)) is not None]

    def mean(key: str, among: Sequence[Result] = rows) -> float | None:
        if key in MISSED_IS_ZERO:
            return mean_of([getattr(row, key) or 0.0 for row in among])
        return mean_of(present(key, among))

    def most(key: str) -> Any:
        return max(present(key), default=None)

    spread = spread_over_seeds(rows, ("iou", "psnr", "chamfer", "fog"), mean)
    return Summary(
        label,
        group,
        runs=len(rows),
        failed=sum(row.error is not None for row in rows),
        r_single=sum(bool(row.r_single) for row in rows),
        r_ring=mean("r_ring"),
        r_ring_mean=sum(bool(row.r_ring_mean) for row in rows),
        judged=bool(present("r_ring")),
        iou=mean("iou"),
        psnr=mean("psnr"),
        fog=mean("fog"),
        worst_fog=most("fog"),
        chamfer=mean("chamfer"),
        one_body=sum(row.one_body for row in rows),
        colour_right=sum(row.colour_right for row in rows),
        seconds=mean("seconds"),
        most_seconds=most("seconds"),
        peak_bytes=most("peak_bytes"),
        spread=spread,
    )


def spread_over_seeds(
    rows: Sequence[Any], keys: Sequence[str], mean: Callable[[str, Sequence[Any]], float | None]
) -> dict[str, float]:
    """The standard deviation over the seeds of `mean(key, a seed's rows)`; without the keys that a seed has nothing of."""
    seeds = sorted({row.seed for row in rows})
    if len(seeds) < 2:
        return {}
    means = {key: [mean(key, [row for row in rows if row.seed == seed]) for seed in seeds] for key in keys}
    return {key: statistics.pstdev(values) for key, values in means.items() if None not in values}


def to_csv(rows: Sequence[Any]) -> str:
    """One line a row (any dataclass) under the fields' names; what is absent is empty."""
    out = io.StringIO()
    records = [_flat(asdict(row)) for row in rows]
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def to_markdown(results: Sequence[Result], title: str, notes: Sequence[str] = ()) -> str:
    """Both tables with their legend."""
    parts = [f"# {title}", "## Means", grid(SUMMARY_COLUMNS, summarise(results)), LEGEND.rstrip(), *notes, "## Runs"]
    for group in ("training", "held out"):
        if rows := [result for result in results if GROUPS[group](result)]:
            parts += [f"### {group.capitalize()} prompts", grid(RESULT_COLUMNS, rows)]
    failed = [result for result in results if result.error is not None]
    if failed:
        parts += ["## Failures", "\n".join(f"- {r.label}, {r.prompt}, seed {r.seed}: {r.error}" for r in failed)]
    return "\n\n".join(parts) + "\n"


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def tick(value: bool | None) -> str:
    """A yes, a no, or a dash."""
    return "–" if value is None else "✓" if value else "✗"


def mean_of(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return statistics.fmean(values) if values else None


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{key}": inner for key, inner in value.items()}
        else:
            flat[name] = " ".join(f"{part:.4f}" for part in value) if isinstance(value, tuple) else value
    return flat


def megabytes(size: int | None) -> str:
    """Bytes in millions, or a dash."""
    return "–" if size is None else f"{size / 1e6:,.0f}"


def with_spread(key: str, digits: int) -> Callable[[Any], str]:
    """The column's cell for a figure of a summary, with its `spread` where there is one."""

    def cell(s: Any) -> str:
        tail = f" ± {s.spread[key]:.{digits}f}" if key in s.spread else ""
        return number(getattr(s, key), digits) + tail

    return cell


Column = tuple[str, Callable[[Any], str]]
SUMMARY_COLUMNS: list[Column] = [
    ("variant", lambda s: s.label),
    ("prompts", lambda s: s.group),
    ("runs", lambda s: f"{s.runs}" + (f" ({s.failed} failed)" if s.failed else "")),
    ("R@1", lambda s: f"{s.r_single}/{s.runs}" if s.judged else "–"),
    ("R@1 ring", lambda s: f"{s.r_ring:.3f} ({s.r_ring_mean}/{s.runs})" if s.judged else "–"),
    ("IoU", with_spread("iou", 3)),
    ("PSNR", with_spread("psnr", 2)),
    ("fog (worst)", lambda s: f"{with_spread('fog', 4)(s)} ({number(s.worst_fog, 4)})"),
    ("Chamfer", with_spread("chamfer", 4)),
    ("body", lambda s: f"{s.one_body}/{s.runs}"),
    ("colour", lambda s: f"{s.colour_right}/{s.runs}"),
    ("seconds (most)", lambda s: f"{number(s.seconds, 0)} ({number(s.most_seconds, 0)})"),
    ("peak MB", lambda s: megabytes(s.peak_bytes)),
]
RESULT_COLUMNS: list[Column] = [
    ("prompt", lambda r: r.prompt),
    ("variant", lambda r: r.label),
    ("seed", lambda r: str(r.seed)),
    ("R@1", lambda r: tick(r.r_single)),
    ("R@1 ring", lambda r: "–" if r.r_ring is None else f"{r.r_ring:.2f} {tick(r.r_ring_mean)}"),
    ("IoU", lambda r: number(r.iou, 3)),
    ("PSNR", lambda r: number(r.psnr, 2)),
    ("fog", lambda r: number(r.fog, 4)),
    ("Chamfer", lambda r: number(r.chamfer, 4)),
    ("body", lambda r: tick(r.one_body) + (f" {r.bodies}" if r.bodies not in (None, 1) else "")),
    ("colour", lambda r: tick(r.colour_right) + (f" {r.colour}" if r.colour and not r.colour_right else "")),
    ("seconds", lambda r: number(r.seconds, 0)),
    ("peak MB", lambda r: megabytes(r.peak_bytes)),
]


def grid(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """A Markdown table, words to the left and figures to the right."""
    words = ("variant", "prompts", "prompt")
    lines = [[name for name, _ in columns], [":--" if name in words else "--:" for name, _ in columns]]
    lines += [[cell(row).replace("|", "\\|") for _, cell in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
