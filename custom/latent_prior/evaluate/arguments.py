"""Flags that every evaluation has: which prompts, seeds and configs, or which run folders, and where results go."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latent_prior import OptionError

if TYPE_CHECKING:
    from latent_prior.evaluate.jobs import Job, Variant

PromptLists = Mapping[str, Callable[[], Sequence[str]]]


def add_what(parser: argparse.ArgumentParser, lists: Sequence[str], lists_help: str, example: str) -> None:
    """Overrides, and what is measured: a fixed list, own prompts, or run folders."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="config values to override in every run; before the flags"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", choices=tuple(lists), help=lists_help)
    what.add_argument("--prompts", nargs="+", metavar="PROMPT", help=f"e.g. {example}")
    what.add_argument("--prompts-file", metavar="FILE", help="a prompt a line; lines that begin with # are skipped")
    what.add_argument(
        "--runs", nargs="+", metavar="DIR", help="measure these run folders (or all below these) instead of launching"
    )


def add_how(parser: argparse.ArgumentParser, configs: str, out: str) -> None:
    """Configs, seeds and folder. configs: how the help names the default ones."""
    parser.add_argument(
        "--config",
        nargs="+",
        action="append",
        metavar=("[LABEL=]NAME", "key=value"),
        help=f"YAML file or name of a shipped config (default: {configs}), with overrides of its own; repeat it to "
        "set configs side by side",
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds of the runs (default: 0)")
    parser.add_argument("--out", default=out, metavar="DIR", help=f"default: {out}")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, the cores shared out; seconds are those of a machine to oneself only with 1 (default)",
    )
    parser.add_argument("--gpu", default="0", help="GPUs to use; without a GPU the CPU is used")
    parser.add_argument("--measure-again", action="store_true", help="measure again; finished runs are not repeated")


def checked_out(args: argparse.Namespace) -> Path:
    """The folder of --out. Raises ValueError if it cannot be one, and for a bad --jobs."""
    if args.jobs < 1:
        raise OptionError.because(f"--jobs is {args.jobs}; expected at least 1")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise OptionError.because(f"--out: {out} is a file; expected a folder")
    return out


def given_jobs(args: argparse.Namespace, out: Path) -> "list[Job]":
    """The jobs of --runs."""
    from latent_prior.evaluate import jobs

    if args.config or args.overrides or args.seeds:
        raise OptionError.because(
            "--runs measures runs as they are: --config, --seeds and key=value have no meaning with it"
        )
    return jobs.given([Path(run) for run in args.runs], out)


def planned_jobs(
    args: argparse.Namespace,
    out: Path,
    lists: PromptLists,
    variants: "Sequence[Variant]",
    check: Callable[[str, str], None],
) -> "list[Job]":
    """Every chosen prompt (the first list's where none is named) and seed under every variant.

    check: called with each prompt and the flag it came from. Raises ValueError for what is there twice.
    """
    from latent_prior.evaluate import jobs

    if args.prompts:
        chosen, flag = args.prompts, "--prompts"
    elif args.prompts_file:
        chosen, flag = _read_prompts(Path(args.prompts_file)), "--prompts-file"
    else:
        chosen, flag = lists[args.list or next(iter(lists))](), "--list"
    for prompt in chosen:
        check(prompt, flag)
    seeds = args.seeds or [0]
    require_once(chosen, flag)
    require_once(seeds, "--seeds")
    return jobs.planned(variants, chosen, seeds, out, args.gpu)


def require_once(values: Sequence[object], flag: str) -> None:
    """ValueError, naming the flag, for a value that is there twice."""
    if twice := [value for value in values if list(values).count(value) > 1]:
        raise OptionError.because(f"{flag}: {twice[0]!r} is there twice")


def check_pocket_prompt(prompt: str, flag: str) -> None:
    """ValueError, naming the flag, for a prompt that the pocket world does not know."""
    from latent_prior.pocket.captions import parse

    try:
        parse(prompt)
    except ValueError as error:
        raise OptionError.because(f"{flag}: {error}") from error


def _read_prompts(path: Path) -> list[str]:
    if not path.is_file():
        raise OptionError.because(f"--prompts-file: there is no file {path}")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise OptionError.because(f"--prompts-file: {path} holds no prompt")
    return found
