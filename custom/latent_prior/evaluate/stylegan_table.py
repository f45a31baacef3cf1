"""The table of adapted generators: for each prompt a row a variant, and how often the variants kept what was asked.

Figures are means over a variant's runs; `±` is the standard deviation over the seeds (of the population), where there
are several. A run that failed has no figures: it is left out of the means and counted under `failed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latent_prior.evaluate.stylegan_result import REFERENCES, SOURCE, TRUTH, Result
from latent_prior.evaluate.table import Column, grid, mean_of, megabytes, spread_over_seeds, with_spread

OURS, BASELINE = "ours", "LSD"  # labels of the variants that are compared with each other
ENOUGH = 0.5  # of the source's Fréchet distance
SPREAD = ("frechet", "clip_score", "diversity", "psnr", "recognised", "seconds")


@dataclass(frozen=True)
class Row:
    """A variant's runs of one prompt. ratio: its Fréchet distance over the source's."""

    prompt: str
    label: str
    held_out: bool | None
    runs: int
    failed: int
    frechet: float | None
    ratio: float | None
    clip_score: float | None
    diversity: float | None
    psnr: float | None
    recognised: float | None
    seconds: float | None
    peak_bytes: int | None
    spread: dict[str, float]  # over the seeds; empty with a single one


def summarise(results: Sequence[Result]) -> list[Row]:
    """For each prompt the source, the variants and the truth, in this order."""
    labels = list(dict.fromkeys(result.label for result in results if result.label not in REFERENCES))
    rows = []
    for prompt in dict.fromkeys(result.prompt for result in results):
        own = [result for result in results if result.prompt == prompt]
        source = _mean("frechet", [result for result in own if result.label == SOURCE])
        for label in (SOURCE, *labels, TRUTH):
            if runs := [result for result in own if result.label == label]:
                rows.append(_row(runs, source))
    return rows


def _row(runs: Sequence[Result], source: float | None) -> Row:
    frechet = _mean("frechet", runs)
    return Row(
        runs[0].prompt,
        runs[0].label,
        runs[0].held_out,
        runs=len(runs),
        failed=sum(run.error is not None for run in runs),
        frechet=frechet,
        ratio=None if frechet is None or not source else frechet / source,
        clip_score=_mean("clip_score", runs),
        diversity=_mean("diversity", runs),
        psnr=_mean("psnr", runs),
        recognised=_mean("recognised", runs),
        seconds=_mean("seconds", runs),
        peak_bytes=max((run.peak_bytes for run in runs if run.peak_bytes is not None), default=None),
        spread=spread_over_seeds(runs, SPREAD, _mean),
    )


def _mean(key: str, runs: Sequence[Result]) -> float | None:
    return mean_of([value for run in runs if (value := getattr(run, key)) is not None])


@dataclass(frozen=True)
class Verdict:
    """A variant over all its prompts: in how many its Fréchet distance is at most ENOUGH of the source's."""

    label: str
    prompts: int
    enough: int


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One a variant; a prompt whose runs all failed counts as missed."""
    found = []
    for label in dict.fromkeys(row.label for row in rows if row.label not in REFERENCES):
        own = [row for row in rows if row.label == label]
        found.append(Verdict(label, len(own), sum(row.ratio is not None and row.ratio <= ENOUGH for row in own)))
    return found


@dataclass(frozen=True)
class Comparison:
    """In how many prompts OURS is no farther from the truth than BASELINE, and no less diverse."""

    prompts: int
    no_worse: int


def compare(rows: Sequence[Row]) -> Comparison | None:
    """None where one of the two variants is not there. A prompt that either has no figures for counts against."""
    by = {(row.prompt, row.label): row for row in rows}
    pairs = [(by[p, OURS], by[p, BASELINE]) for p, label in by if label == OURS and (p, BASELINE) in by]
    if not pairs:
        return None
    measured = [(a, b) for a, b in pairs if a.frechet is not None and b.frechet is not None]
    return Comparison(len(pairs), sum(a.frechet <= b.frechet and a.diversity >= b.diversity for a, b in measured))


def summary_lines(rows: Sequence[Row]) -> list[str]:
    """The verdicts in words."""
    lines = [
        f"- **{v.label}**: the Fréchet distance to the truth fell by at least half in {v.enough} of {v.prompts} prompts."
        for v in verdicts(rows)
    ]
    if comparison := compare(rows):
        lines.append(
            f"- **{OURS}** is at or below **{BASELINE}** in Fréchet distance, with diversity no lower, in "
            f"{comparison.no_worse} of {comparison.prompts} prompts."
        )
    return lines


def legend(count: int, truncation: float, features: str | None, judged: bool, real: str | None) -> str:
    """What the columns mean. features: the --features file, None: the judge CLIP's; real: the folder of true pictures."""
    named = f"the network in `{features}`" if features else "the judge CLIP's picture embedding, before normalisation"
    stands_in = "" if features else ", which stands in for Inception (Fréchet) and AlexNet (diversity)"
    truth = f"all pictures of `{real}`" if real else f"{count} true pictures of the prompt (other z)"
    lines = [
        f"Features: {named}{stands_in}. Pictures: {count} z, the same for all, ψ = {truncation:g}.",
        f"- **Fréchet**: between these and {truth}; in brackets its ratio to the source's.",
        "- **diversity**: mean cosine distance of the features of two pictures, over all pairs of the first 200.",
    ]
    if judged:
        lines.append("- **CLIP score**: 100 × mean cosine of picture and prompt by the judge CLIP.")
    if real is None:
        lines.append("- **PSNR**: against the true picture of the same z, mean over the first 200 z.")
        if judged:
            lines.append(
                "- **recognised**: share of pictures that the judge CLIP calls the prompt, among all captions."
            )
    lines.append("- **seconds**, **MB**: from launch to written generator, and peak memory, of the run's own process.")
    lines.append(f"- **{SOURCE}** is the generator that runs start from.")
    lines.append(f"- **{TRUTH}** are the true pictures' own figures, which a perfect adaptation has.")
    return "\n".join(lines)


def to_markdown(results: Sequence[Result], title: str, described: str, notes: Sequence[str] = ()) -> str:
    """Table, verdicts and legend."""
    rows = summarise(results)
    parts = [f"# {title}", grid(COLUMNS, rows), "\n".join(summary_lines(rows)), described, *notes]
    failed = [result for result in results if result.error is not None]
    if failed:
        lines = [f"- {r.label}, {r.prompt}{seed_of(r)}: {r.error}" for r in failed]
        parts += ["## Failures", "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def seed_of(result: Result) -> str:
    """The seed in words, if there is one."""
    return "" if result.seed is None else f", seed {result.seed}"


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return "–" if value is None else f"{100 * value:.0f} %"


def _recognised(row: Any) -> str:
    spread = f" ± {100 * row.spread['recognised']:.0f}" if "recognised" in row.spread else ""
    return percent(row.recognised) + spread


def _frechet(row: Row) -> str:
    ratio = f" ({row.ratio:.2f})" if row.ratio is not None else ""
    return with_spread("frechet", 2)(row) + ratio


COLUMNS: list[Column] = [
    ("prompt", lambda r: r.prompt + (" (held out)" if r.held_out else "")),
    ("variant", lambda r: r.label + (f" ({r.failed} of {r.runs} failed)" if r.failed else "")),
    ("Fréchet (of source)", _frechet),
    ("CLIP score", with_spread("clip_score", 1)),
    ("diversity", with_spread("diversity", 3)),
    ("PSNR", with_spread("psnr", 2)),
    ("recognised", _recognised),
    ("seconds", with_spread("seconds", 0)),
    ("peak MB", lambda r: megabytes(r.peak_bytes)),
]
