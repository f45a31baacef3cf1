"""The command line of an evaluation: what each one declares, and the common flags. Imports nothing heavy."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from latent_prior import OptionError
from latent_prior.files import lock, remove_partial
from latent_prior.runs.sweep import arguments as sweep

OUTPUTS = (
    "table.md, runs.csv, summary.csv, summary.json, contact_sheet-seed0.png (one per seed), with --against paired.csv and "
    "paired.png; runs/ launches/ results/"
)


@dataclass(frozen=True)
class Study:
    """A comparison that was declared before its runs: what --study NAME stands for."""

    help: str
    configs: Mapping[str, Sequence[str]]  # label: config name and overrides
    against: str  # the label that the others are compared with
    list: str  # of the command's lists
    seeds: Sequence[int]
    out: str
    overrides: Sequence[str] = ()  # in every run


@dataclass(frozen=True)
class Command:
    """`latent-prior evaluate <name>`."""

    summary: str  # for the list of commands
    help: str
    examples: str
    plan: str  # module with `plan(args, out) -> Evaluation`
    configs: Mapping[str, str]  # label: config name and overrides, of the variants that run by default
    out: str  # default folder
    lists: Mapping[str, str]  # fixed task lists, the default first, and the help text of each
    prompts: str = ""  # an example of custom prompts; without one there are neither --prompts nor --runs
    also_written: str = ""  # folders in addition to the usual ones
    flags: Callable[[argparse.ArgumentParser], None] = lambda parser: None  # adds its own flags
    studies: Mapping[str, Study] = field(default_factory=dict)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The command's flags."""
        parser.set_defaults(action=self.run)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = f"{self.examples}\nwritten to --out:\n  {OUTPUTS} {self.also_written}".rstrip() + "\n"
        parser.add_argument(
            "overrides", nargs="*", metavar="key=value", help="config values to override in every run; before the flags"
        )
        what = parser.add_mutually_exclusive_group() if self.prompts else parser
        fixed = "; ".join(f"{name}: {text}" for name, text in self.lists.items())
        what.add_argument("--list", choices=tuple(self.lists), help=f"what to run (default: the first); {fixed}")
        if self.prompts:
            what.add_argument("--prompts", nargs="+", metavar="PROMPT", help=f"for example {self.prompts}")
            what.add_argument(
                "--prompts-file", metavar="FILE", help="one prompt per line; lines that begin with # are skipped"
            )
            what.add_argument(
                "--runs",
                nargs="+",
                metavar="DIR",
                help="measure these run folders (or all below these) instead of launching",
            )
        self._add_how(parser)
        self.flags(parser)

    def _add_how(self, parser: argparse.ArgumentParser) -> None:
        default = ", ".join(name if label == name else f"{label}={name}" for label, name in self.configs.items())
        parser.add_argument(
            "--config",
            nargs="+",
            action="append",
            metavar=("[LABEL=]NAME", "key=value"),
            help=f"YAML file or name of a shipped config (default: {default}), with its own overrides; repeat it to "
            "compare configs",
        )
        parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds of the runs (default: 0)")
        parser.add_argument("--out", metavar="DIR", help=f"default: {self.out}")
        parser.add_argument(
            "--against",
            metavar="LABEL",
            help="compare the other variants with this one, run by run: mean differences with 95%% intervals, in the "
            "table, paired.csv and paired.png",
        )
        if self.studies:
            known = "; ".join(f"{name}: {study.help}" for name, study in self.studies.items())
            parser.add_argument(
                "--study",
                choices=tuple(self.studies),
                help=f"a comparison declared beforehand, with its variants, prompts and seeds; {known}",
            )
        parser.add_argument(
            "--measure-again", action="store_true", help="measure again; finished runs are not repeated"
        )
        sweep.add_arguments(parser, "seconds are comparable only with 1 (default)")

    def run(self, args: argparse.Namespace) -> Path:
        """The command; returns the folder of the results. OptionErrors for bad input name the flag."""
        self._take_study(args)
        out = Path(args.out or self.out)
        if out.exists() and not out.is_dir():
            raise OptionError.because(f"{out} is a file; expected a folder", "--out")
        if getattr(args, "runs", None) and (args.config or args.overrides or args.seeds):
            raise OptionError.because(
                "measures existing runs: --config, --seeds and key=value have no effect with it", "--runs"
            )
        args.list = args.list or next(iter(self.lists))
        args.config = args.config or [
            [f"{label}={name}", *own] for label, (name, *own) in ((k, v.split()) for k, v in self.configs.items())
        ]
        args.seeds = args.seeds or [0]
        sweep.require_once(args.seeds, "--seeds")

        import importlib

        from latent_prior.evaluate.bench import loop

        with lock.owned(out, "--out"):
            remove_partial(out, below=False)
            for part in ("results", "launches"):  # the runs are others'
                remove_partial(out / part)
            engine = sweep.engine(args, out, jobs=1)
            evaluation = importlib.import_module(self.plan).plan(args, out)
            if args.against:
                labels = list(dict.fromkeys(job.label for job in evaluation.jobs))
                if args.against not in labels:
                    raise OptionError("--against", args.against, f"one of {', '.join(labels)}")
                evaluation = replace(evaluation, against=args.against)
            loop.run(evaluation, out, engine, args.again, args.measure_again)
        return out

    def _take_study(self, args: argparse.Namespace) -> None:
        """Set the flags that a study stands for; the list, the seeds and the folder may be given beside it."""
        study = self.studies.get(getattr(args, "study", None) or "")
        if study is None:
            return
        if args.config or args.overrides or args.against or getattr(args, "runs", None):
            raise OptionError.because(
                "it says what to run: --config, --against, --runs and key=value cannot be given with it", "--study"
            )
        args.config = [[f"{label}={name}", *own] for label, (name, *own) in study.configs.items()]
        args.overrides, args.against = list(study.overrides), study.against
        given = args.list or getattr(args, "prompts", None) or getattr(args, "prompts_file", None)
        args.list = args.list if given else study.list
        args.seeds, args.out = args.seeds or list(study.seeds), args.out or study.out


def chosen_prompts(
    args: argparse.Namespace, lists: Mapping[str, Sequence[str]], check: Callable[[str, str], None]
) -> Sequence[str]:
    """The prompts of --prompts, --prompts-file or --list; `check` is called with each and the flag it came from."""
    if args.prompts:
        chosen, flag = args.prompts, "--prompts"
    elif args.prompts_file:
        chosen, flag = sweep.read_prompts(Path(args.prompts_file)), "--prompts-file"
    else:
        chosen, flag = lists[args.list], "--list"
    for prompt in chosen:
        check(prompt, flag)
    sweep.require_once(chosen, flag)
    return chosen


def check_pocket_prompt(prompt: str, flag: str) -> None:
    """OptionError, naming the flag, for a prompt that the pocket world does not know."""
    from latent_prior.pocket.captions import parse

    try:
        parse(prompt)
    except OptionError as error:
        raise OptionError.because(str(error), flag) from error
