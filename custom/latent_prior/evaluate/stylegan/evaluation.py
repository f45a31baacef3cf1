"""Runs, measurements and tables of `latent-prior evaluate stylegan`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_prior import OptionError, host
from latent_prior.evaluate.bench import arguments, existing
from latent_prior.evaluate.bench.evaluation import Evaluation, Findings, Measured
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.bench.table import DERIVED, PEAK, SECONDS, Column, Groups, Row, labels_of, named, number
from latent_prior.evaluate.stylegan import truth
from latent_prior.evaluate.stylegan.features import ScriptFeatures
from latent_prior.evaluate.stylegan.measure import SHEET_PICTURES, Measurer
from latent_prior.pocket.captions import is_held_out, parse
from latent_prior.pocket.judge import POCKET_JUDGE, Judge
from latent_prior.runs.sweep import jobs
from latent_prior.runs.sweep.jobs import Job, Task, Variant
from latent_prior.stylegan2.files import load_generator
from latent_prior.stylegan2.pretrained import POCKET_FILE

# targets for mugs: another surface, both, another colour, and other solids; chosen before any result
ADAPTATION = ("a golden mug", "a striped green mug", "a yellow mug", "a red cylinder", "a blue jug")
TUNING = ("a turquoise mug", "a checkered red mug", "a green jug")  # for tuning weights and options
SOURCE, TRUTH = "source", "truth"  # references: the generator that runs start from, and the true pictures
OURS, BASELINE = "ours", "LSD"  # labels of the variants to compare
ENOUGH = 0.5  # of the source's Fréchet distance
NO_JUDGE = "none"
FEWEST_PICTURES = 2
TILE = 64  # side in pixels on the sheet: the pocket generator's resolution
SYSTEM = "stylegan-adaptation-system"

COLUMNS = (
    Column("Fréchet", "frechet", 2, spread=True, beside=Column("of source", "ratio", 2, how=DERIVED)),
    Column("CLIP score", "clip_score", 1, spread=True),
    Column("diversity", "diversity", 3, spread=True),
    Column("PSNR", "psnr", 2, spread=True),
    Column("recognised", "recognised", spread=True, unit="%"),
    SECONDS,
    PEAK,
)


class StyleGANVariant(Variant):
    """A variant whose runs also depend on the generator that they start from."""

    @property
    def source(self) -> Path:
        return source_file(self.settings)

    def more_to_digest(self) -> list[str]:
        return [jobs.file_digest(self.source)]


def source_file(settings: Any) -> Path:
    """The generator that a run with these settings starts from."""
    from latent_prior import host

    name = host.select(settings, "system.pretrained_generator") or "pocket"
    return POCKET_FILE if name == "pocket" else Path(name)


def plan(args: argparse.Namespace, out: Path) -> Evaluation:
    """The evaluation that the flags ask for. Raises OptionError for bad ones."""
    if args.pictures < FEWEST_PICTURES:
        raise OptionError("--pictures", args.pictures, f"at least {FEWEST_PICTURES}")
    if not 0 < args.truncation < float("inf"):
        raise OptionError("--truncation", args.truncation, "a number above 0")
    if args.judge == NO_JUDGE and not args.features:
        raise OptionError.because("none leaves no features to compare: set a network with --features FILE", "--judge")
    found, source = _jobs(args, out)
    if args.real:
        _check_real(args, found)
    found = existing.with_references(found, {SOURCE: source, TRUTH: out / "truth"}, out)
    return evaluation(found, _measurer(args, source, out), args.real)


def evaluation(found: Sequence[Job], measurer: Measurer, real: str | None = None) -> Evaluation:
    """The evaluation of these jobs, including references. real: the folder of true pictures."""

    def measured(job: Job) -> Measured:
        if job.label == TRUTH:
            return measurer.truth(job.prompt)
        if not generator_file(job).is_file():
            raise OptionError.because(f"no {generator_file(job)}")
        return measurer.generator(job.prompt, load_generator(generator_file(job)))

    features = measurer.extractor.name if measurer.extractor else None
    return Evaluation(
        title="StyleGAN2 adapted to a prompt",
        jobs=found,
        measure=measured,
        products=lambda job: [] if job.label == TRUTH else [generator_file(job)],
        settings=measurer.digest,
        columns=COLUMNS,
        legend=legend(measurer.count, measurer.truncation, features, measurer.judge is not None, real),
        note=_note,
        views=SHEET_PICTURES,
        groups=groups,
        derive=set_ratios,
        findings=findings,
        held_out=lambda job: is_held_out(parse(job.prompt)) if real is None else None,
        references=(SOURCE, TRUTH),
        tile=TILE,
    )


def _jobs(args: argparse.Namespace, out: Path) -> tuple[list[Job], Path]:
    """The jobs, and the generator that all runs start from."""
    from latent_prior import host

    check = (lambda prompt, flag: None) if args.real else arguments.check_pocket_prompt
    if args.runs:
        found = existing.given([Path(run) for run in args.runs], out)
        for job in found:
            check(job.prompt, f"--runs: {job.run}")
        settings = {f"--runs: {job.run}": host.read_config(job.run / "configs" / "parsed.yaml") for job in found}
    else:
        variants = jobs.variants(args.config, args.overrides, kind=StyleGANVariant)
        settings = {f"--config: {variant.label!r}": variant.settings for variant in variants}
    jobs.require_system(settings, SYSTEM, "adapts no StyleGAN")
    sources: dict[Path, str] = {}
    for name, cfg in settings.items():
        sources.setdefault(source_file(cfg), name)
    if len(sources) > 1:
        both = " and ".join(f"{name} from {path}" for path, name in list(sources.items())[:2])
        raise OptionError.because(f"all runs must start from one generator, but {both}")
    ((source, name),) = sources.items()
    if not source.is_file():
        raise OptionError.because(f"{name}: system.pretrained_generator: there is no file {source}")
    if not args.runs:
        chosen = arguments.chosen_prompts(args, {"adaptation": ADAPTATION, "tuning": TUNING}, check)
        found = jobs.planned(variants, [Task(prompt) for prompt in chosen], args.seeds, out)
    return found, source


def _check_real(args: argparse.Namespace, found: Sequence[Job]) -> None:
    """Check that --real has a single prompt and a judge that knows its domain."""
    prompts = list(dict.fromkeys(job.prompt for job in found))
    if len(prompts) != 1:
        raise OptionError.because(
            f"--real holds pictures of one domain, but there are {len(prompts)} prompts: give one"
        )
    if args.judge is None:
        arguments.check_pocket_prompt(prompts[0], "--judge: give another CLIP than the pocket prior's, or none")
    truth.picture_files(Path(args.real))


def _measurer(args: argparse.Namespace, source: Path, out: Path) -> Measurer:
    device = host.get_device()
    extractor = ScriptFeatures(Path(args.features), device) if args.features else None
    judge = None if args.judge == NO_JUDGE else Judge.load(args.judge or POCKET_JUDGE, device)
    cfg = load_generator(source).cfg
    return Measurer(
        judge,
        extractor,
        args.pictures,
        args.truncation,
        cfg.z_dim,
        cfg.resolution,
        cache=out / "truth",
        real=Path(args.real) if args.real else None,
        device=device,
    )


def generator_file(job: Job) -> Path:
    """The generator of a job: the one exported by the run, or the source itself."""
    return job.run if job.label == SOURCE else job.run / "save" / "generator.safetensors"


def _note(result: Result) -> str:
    """FD: Fréchet distance."""
    figures = {
        "FD": number(result.figure("frechet"), 2),
        "CLIP": number(result.figure("clip_score"), 1),
        "div.": number(result.figure("diversity"), 3),
        "dB": number(result.figure("psnr"), 1),
        "rec.": Column("", "", unit="%").written(result.figure("recognised")),
    }
    return "   ".join(f"{name} {figure}" for name, figure in figures.items() if figure != "–")


def groups(results: Sequence[Result]) -> Groups:
    """For each prompt, the source, the variants and the truth."""
    labels = labels_of(results, (SOURCE, TRUTH))
    for prompt in dict.fromkeys(result.prompt for result in results):
        for label in labels:
            own = [result for result in results if (result.prompt, result.label) == (prompt, label)]
            yield {"prompt": named(own[0]) if own else prompt, "variant": label}, own


def set_ratios(rows: list[Row]) -> None:
    """Each Fréchet distance divided by that of the prompt's source."""
    sources = {row.heads["prompt"]: row.values["frechet"] for row in rows if row.label == SOURCE}
    for row in rows:
        if row.values["frechet"] is not None and (source := sources.get(row.heads["prompt"])):
            row.values["ratio"] = row.values["frechet"] / source


def findings(rows: list[Row]) -> Findings:
    """For how many prompts a variant's Fréchet distance is at most ENOUGH of the source's, and OURS against BASELINE.

    OURS must be no farther from the truth and no less diverse. A prompt without figures counts as missed.
    """
    lines, verdicts = [], []
    for label in labels_of(rows, (SOURCE, TRUTH))[1:-1]:
        own = [row.values["ratio"] for row in rows if row.label == label]
        enough = sum(ratio is not None and ratio <= ENOUGH for ratio in own)
        verdicts.append({"label": label, "prompts": len(own), "enough": enough})
        lines.append(
            f"- **{label}**: the Fréchet distance to the truth fell by at least half in {enough} of {len(own)} prompts."
        )
    by = {(row.heads["prompt"], row.label): row.values for row in rows}
    pairs = [(by[p, OURS], by[p, BASELINE]) for p, label in by if label == OURS and (p, BASELINE) in by]
    comparison = None
    if pairs:
        measured = [(a, b) for a, b in pairs if a["frechet"] is not None and b["frechet"] is not None]
        no_worse = sum(a["frechet"] <= b["frechet"] and a["diversity"] >= b["diversity"] for a, b in measured)
        comparison = {"prompts": len(pairs), "no_worse": no_worse}
        lines.append(
            f"- **{OURS}** is at or below **{BASELINE}** in Fréchet distance, with diversity no lower, in "
            f"{no_worse} of {len(pairs)} prompts."
        )
    return Findings(lines, {"verdicts": verdicts, "comparison": comparison})


def legend(count: int, truncation: float, features: str | None, judged: bool, real: str | None) -> str:
    """The legend. features: the --features file, None: the judge CLIP's; real: the folder of true pictures."""
    named = f"the network in `{features}`" if features else "the judge CLIP's picture embedding, before normalisation"
    stands_in = "" if features else ", which replaces Inception (Fréchet) and AlexNet (diversity)"
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
    lines.append(f"- **{TRUTH}** has the true pictures' own figures, those of a perfect adaptation.")
    return "\n".join(lines)
