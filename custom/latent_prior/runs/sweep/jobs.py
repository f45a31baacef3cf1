"""What to run: one job per (variant, task, seed).

The folder of many runs:
    runs/<label>-<settings>/<task>-seed<N>/          run folders, as the variant's command writes them
    launches/<label>-<settings>/<task>-seed<N>.json  exit code, seconds and peak memory of that run, .log its output
    results/<label>-<settings>/<task>-seed<N>.json   an evaluation's figures, .png the pictures for the contact sheet
<settings> is a digest of config, overrides and the pocket prior's weights (and anything else a kind of variant adds),
so that runs with other settings, or under a retrained prior, are never mistaken for these.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import latent_prior
from latent_prior import OptionError

RESERVED = {
    "seed": "use --seeds",
    "system.prompt_processor.prompt": "use --prompts",
    "exp_root_dir": "use --out",
    "name": "use --config LABEL=NAME",
    "tag": "every run gets its own",
    "use_timestamp": "every run gets its own folder",
    "timestamp": "every run gets its own folder",
    "resume": "every run starts afresh",
}

LONGEST = 80  # letters of a label in the name of a folder; its digest follows


@dataclass(frozen=True)
class Task:
    """What a run should make."""

    prompt: str  # in tables
    given: str = ""  # the prompt given to the run, if different
    name: str = ""  # in file names; a slug of the prompt where none is given
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)  # config values specific to the task
    about: Any = field(default=None, hash=False)  # data that the evaluation needs for measuring

    @property
    def file_name(self) -> str:
        return self.name or slug(self.prompt)


@runtime_checkable
class RunsTasks(Protocol):
    """Makes a run of a task: a `Variant`, or anything like it."""

    label: str  # in tables
    folder: str  # below the evaluation's folder

    def command(self, task: Task, run: Path, seed: int) -> list[str]:
        """The module and its arguments, as after `python -m`, that make the run in folder `run`."""


@dataclass(frozen=True)
class Variant:
    """A config with overrides, under the label that tables show; runs are those of `latent-prior generate`."""

    label: str
    config: Path
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return f"{slug(self.label)[:LONGEST]}-{self._digest()}"

    @property
    def settings(self) -> Any:
        """The config with the overrides, not resolved."""
        from latent_prior import host

        return host.merge_config(self.config, cli_args=self.overrides)

    def command(self, task: Task, run: Path, seed: int) -> list[str]:
        values = {
            "seed": seed,
            "exp_root_dir": str(run.parent.parent),
            "name": run.parent.name,
            "tag": run.name,
            "use_timestamp": False,
            **self.values(task),
        }
        start = ["latent_prior", "generate", task.given or task.prompt, *self.overrides]
        # JSON, which YAML reads back unchanged
        own = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        return [*start, *own, "--config", str(self.config)]

    def values(self, task: Task) -> Mapping[str, Any]:
        """Config values of a task's run."""
        return task.values

    def more_to_digest(self) -> list[str]:
        """Further input to the digest that identifies these settings."""
        return []

    def _digest(self) -> str:
        from latent_prior import host

        content = host.config_to_primitive(host.read_config(self.config), resolve=False)
        parts = [content, self.overrides, prior_digest(), *self.more_to_digest()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Job:
    """One run to measure; `command` makes it, None if it already exists. A reference is not a run and has no seed."""

    label: str
    task: Task
    seed: int | None
    run: Path
    result: Path
    record: Path | None = None  # of work.Record
    command: tuple[str, ...] | None = None

    @property
    def prompt(self) -> str:
        return self.task.prompt

    @property
    def strip(self) -> Path:
        """The pictures for the contact sheet."""
        return self.result.with_suffix(".png")


SomeVariant = TypeVar("SomeVariant", bound=Variant)


def variants(
    configs: Sequence[Sequence[str]],
    overrides: Sequence[str],
    reserved: Mapping[str, str] = RESERVED,
    kind: type[SomeVariant] = Variant,
) -> list[SomeVariant]:
    """Variants from the arguments of each --config, `[LABEL=]NAME [key=value ...]`, and the overrides common to all.

    reserved: keys that cannot be overridden, and what to use instead.
    """
    from latent_prior.runs.folder import config_path

    found: dict[str, SomeVariant] = {}
    for name, *own in configs:
        label, equals, rest = name.partition("=")
        if Path(name).is_file() or not equals:
            label, rest = Path(name).stem, name
        both = (*overrides, *own)
        for override in both:
            key, equals, _ = override.partition("=")
            if not equals:
                raise OptionError.because(f"expected an override of the form key=value, got {override!r}")
            if key in reserved:
                raise OptionError.because(f"{key} cannot be overridden here: {reserved[key]}")
        if not slug(label):
            raise OptionError.because(f"the label before '=' in {name!r} has neither letters nor digits", "--config")
        if label in found:
            raise OptionError.because(
                f"two variants are called {label!r}; tell them apart with --config LABEL=NAME", "--config"
            )
        found[label] = kind(label, config_path(rest), both)
    return list(found.values())


def require_system(settings: Mapping[str, Any], system_type: str, what_it_does: str) -> None:
    """OptionError for settings (by the flag they came from) with another system_type: it "<does not do that>"."""
    from latent_prior import host

    for flag, cfg in settings.items():
        if (found := host.select(cfg, "system_type")) != system_type:
            raise OptionError.because(f"{flag} {what_it_does}: its system_type is {found!r}")


def planned(variants: Sequence[RunsTasks], tasks: Sequence[Task], seeds: Sequence[int], out: Path) -> list[Job]:
    """Every task with every seed under every variant; the variants of one task and seed follow each other."""
    groups = [(variant, variant.folder) for variant in variants]
    jobs = []
    for seed in seeds:
        for task in tasks:
            for variant, group in groups:
                name = f"{task.file_name}-seed{seed}"
                run = out / "runs" / group / name
                result, record = (out / part / group / f"{name}.json" for part in ("results", "launches"))
                command = tuple(variant.command(task, run, seed))
                jobs.append(Job(variant.label, task, seed, run, result, record, command))
    return jobs


@cache
def prior_digest() -> str:
    """Digest of the pocket prior's weights, without the judge's."""
    weights = Path(latent_prior.__file__).parent / "pocket" / "weights"
    files = sorted(path for path in weights.glob("*/*.safetensors") if path.parent.name != "judge")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@cache
def file_digest(path: Path) -> str:
    """Digest of a file; empty if it does not exist."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def slug(text: str) -> str:
    """A text in a form for file names."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
