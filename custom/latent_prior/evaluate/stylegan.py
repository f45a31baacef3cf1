"""`latent-prior evaluate stylegan`: run or read adaptations of StyleGAN2, measure them, write tables and a sheet."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_prior import OptionError
from latent_prior.evaluate import arguments

if TYPE_CHECKING:
    from latent_prior.evaluate.jobs import Job
    from latent_prior.evaluate.launches import Launch

HELP = """Measure StyleGAN2 generators that were adapted to a prompt.

Launches `latent-prior generate` for every prompt, seed and config, each in a process of its own, or reads runs that are
there (--runs); then compares each generator's pictures with true pictures of what the prompt names: rendered ones, or
those of a folder (--real). The generator that runs start from is measured beside them. Whatever is in --out already is
not made again, so an evaluation that was stopped goes on when the same command is given again."""

EXAMPLES = """examples:
  five fixed prompts: LSD alone, StyleGAN-NADA and ours (LSD + FM + KL) side by side
    latent-prior evaluate stylegan

  three seeds, fewer pictures
    latent-prior evaluate stylegan --seeds 0 1 2 --pictures 500

  a weight on the prompts that may be tuned on
    latent-prior evaluate stylegan --list tuning --config ours=pocket_stylegan \\
        --config "more FM=pocket_stylegan" system.loss.lambda_fm=0.1

  runs that are there
    latent-prior evaluate stylegan --runs outputs/pocket_stylegan --out outputs/old_runs

  the real world: pictures of the domain, Inception as TorchScript, another CLIP for the CLIP score
    latent-prior evaluate stylegan --runs outputs/sd_stylegan_cat --real pictures/foxes --truncation 0.7 \\
        --features inception-2015-12-05.pt --judge openai/clip-vit-base-patch32

written to --out:
  table.md, runs.csv, summary.json, contact_sheet-seed0.png (one a seed); runs/ launches/ results/ truth/
"""

CONFIGS = [["LSD=pocket_stylegan_lsd"], ["NADA=pocket_stylegan_nada"], ["ours=pocket_stylegan"]]
NO_JUDGE = "none"
FEWEST_PICTURES = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.set_defaults(action=evaluate)
    parser.epilog = EXAMPLES
    arguments.add_what(
        parser,
        ("adaptation", "tuning"),
        "fixed prompts: the 5 that results are told of (default), or 3 others",
        '"a golden mug" "a blue jug"',
    )
    arguments.add_how(
        parser,
        "LSD=pocket_stylegan_lsd, NADA=pocket_stylegan_nada, ours=pocket_stylegan",
        "outputs/evaluation_stylegan",
    )
    parser.add_argument("--pictures", type=int, default=2000, metavar="N", help="of each generator (default: 2000)")
    parser.add_argument(
        "--truncation", type=float, default=1.0, metavar="PSI", help="default: 1, with which z fixes the pocket scene"
    )
    parser.add_argument(
        "--real", metavar="DIR", help="true pictures of the one prompt, instead of rendered ones; then there is no PSNR"
    )
    parser.add_argument(
        "--features",
        metavar="FILE",
        help="TorchScript network (a program: use none that you do not trust) from pictures in [0, 1], or NVIDIA's "
        "Inception, for Fréchet distance and diversity (default: the judge's picture embeddings)",
    )
    parser.add_argument(
        "--judge",
        metavar="CLIP",
        help="folder in transformers' layout or hub id (default: the pocket prior's judge); none: no CLIP score",
    )


def evaluate(args: argparse.Namespace) -> None:
    """The command. Raises ValueError for bad input, naming the flag."""
    out = arguments.checked_out(args)
    _check_values(args)
    jobs, source = _jobs(args, out)
    if args.real:
        _check_real(args, jobs)

    from latent_prior.evaluate import stylegan_report

    jobs = stylegan_report.with_references(jobs, source, out)
    files = _measure_all(jobs, _measurer(args, source, out), args, out)
    print("\n" + "\n".join(str(path) for path in files))


def _check_values(args: argparse.Namespace) -> None:
    if args.pictures < FEWEST_PICTURES:
        raise OptionError.because(f"--pictures is {args.pictures}; expected at least {FEWEST_PICTURES}")
    if not 0 < args.truncation < float("inf"):
        raise OptionError.because(f"--truncation is {args.truncation:g}; expected a number above 0")
    if args.judge == NO_JUDGE and not args.features:
        raise OptionError.because("--judge none leaves no features to compare: give a network with --features FILE")


def _check_real(args: argparse.Namespace, jobs: "Sequence[Job]") -> None:
    """One domain, and a judge that knows it."""
    named = list(dict.fromkeys(job.prompt for job in jobs))
    if len(named) != 1:
        raise OptionError.because(f"--real holds pictures of one domain, but there are {len(named)} prompts: give one")
    if args.judge is None:
        arguments.check_pocket_prompt(named[0], "--judge: give another CLIP than the pocket prior's, or none")


def _jobs(args: argparse.Namespace, out: Path) -> "tuple[list[Job], Path]":
    """What is to be measured, and the generator that all of it starts from."""
    from omegaconf import OmegaConf

    from latent_prior.evaluate import jobs, prompts

    check = (lambda prompt, flag: None) if args.real else arguments.check_pocket_prompt
    if args.runs:
        found = arguments.given_jobs(args, out)
        for job in found:
            check(job.prompt, f"--runs: {job.run}")
        origins = {f"--runs: {job.run}": OmegaConf.load(job.run / "configs" / "parsed.yaml") for job in found}
    else:
        variants = jobs.variants(args.config or CONFIGS, args.overrides)
        origins = {f"--config: {variant.label!r}": variant.settings for variant in variants}
    sources = {}
    for name, settings in origins.items():
        if settings.get("system_type") != jobs.STYLEGAN_SYSTEM:
            raise OptionError.because(f"{name} adapts no StyleGAN: its system_type is {settings.get('system_type')!r}")
        sources.setdefault(jobs.source_file(settings), name)
    if len(sources) > 1:
        both = " and ".join(f"{name} from {path}" for path, name in list(sources.items())[:2])
        raise OptionError.because(f"all runs must start from one generator, but {both}")
    ((source, name),) = sources.items()
    if not source.is_file():
        raise OptionError.because(f"{name}: system.pretrained_generator: there is no file {source}")
    if not args.runs:
        found = arguments.planned_jobs(args, out, prompts.ADAPTATION_LISTS, variants, check)
    return found, source


def _measurer(args: argparse.Namespace, source: Path, out: Path) -> Any:
    import latent_prior
    from latent_prior import host
    from latent_prior.evaluate import stylegan_truth
    from latent_prior.evaluate.stylegan_features import ScriptFeatures
    from latent_prior.evaluate.stylegan_measure import Measurer
    from latent_prior.generators.stylegan2_files import load_generator
    from latent_prior.pocket.judge import Judge

    device = host.get_device()
    if args.real:
        stylegan_truth.picture_files(Path(args.real))
    extractor = ScriptFeatures(Path(args.features), device) if args.features else None
    judge = None
    if args.judge != NO_JUDGE:
        pocket = Path(latent_prior.__file__).parent / "pocket" / "weights" / "judge"
        judge = Judge.load(args.judge or str(pocket), device)
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


def _measure_all(jobs: "Sequence[Job]", measurer: Any, args: argparse.Namespace, out: Path) -> list[Path]:
    """Launch and measure what is not measured yet; tables are written after every run, the sheet at the end."""
    from latent_prior.evaluate import loop, stylegan_report, stylegan_table

    features = measurer.extractor.name if measurer.extractor else None
    judged = measurer.judge is not None
    described = stylegan_table.legend(args.pictures, args.truncation, features, judged, args.real)
    report = stylegan_report.Report(jobs, out, args.jobs, described)

    def measure(job: "Job", launch: "Launch") -> str:
        result = stylegan_report.measure_job(job, launch, measurer)
        report.write_tables()
        return result.error or stylegan_report.told(result)

    todo = [job for job in jobs if args.measure_again or not stylegan_report.is_current(job, measurer.digest)]
    loop.run_all(jobs, todo, args.jobs, measure)
    files = report.write_tables() + report.write_sheets()
    print(report.summary())
    return files
