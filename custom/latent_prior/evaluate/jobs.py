"""What is to be measured: one job per (variant, prompt, seed), or one per run folder that is there already.

The folder of an evaluation:
    runs/<label>-<settings>/<prompt>-seed<N>/         run folders, as `latent-prior generate` writes them
    launches/<label>-<settings>/<prompt>-seed<N>.json  seconds, peak memory and exit code of that launch, .log its output
    results/<label>-<settings>/<prompt>-seed<N>.json   figures, .png the pictures of the contact sheet
<settings> is a digest of config, overrides and the pocket prior's weights (and, where a StyleGAN is adapted, of the
generator it starts from), so that runs of other settings, or under a prior that was trained again since, are never taken
for these.
"""

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import latent_prior
from latent_prior import OptionError
from latent_prior.pocket.captions import Subject, parse

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


STYLEGAN_SYSTEM = "stylegan-adaptation-system"


@dataclass(frozen=True)
class Variant:
    """A config with overrides, under the label that tables show."""

    label: str
    config: Path
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Its name in the evaluation's folder."""
        return f"{slug(self.label)}-{self._digest()}"

    @property
    def settings(self) -> Any:
        """The config with the overrides, not resolved."""
        from omegaconf import OmegaConf

        return OmegaConf.merge(OmegaConf.load(self.config), OmegaConf.from_dotlist(list(self.overrides)))

    def _digest(self) -> str:
        from omegaconf import OmegaConf

        content = OmegaConf.to_container(OmegaConf.load(self.config), resolve=False)
        parts = [content, self.overrides, prior_digest()]
        if (settings := self.settings).get("system_type") == STYLEGAN_SYSTEM:
            parts.append(_file_digest(source_file(settings)))
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Job:
    """One run to be measured; `command` makes it, None where it was made before. What is no run has no seed."""

    label: str
    prompt: str
    seed: int | None
    run: Path
    result: Path
    launch: Path | None = None
    command: tuple[str, ...] | None = None

    @property
    def subject(self) -> Subject:
        return parse(self.prompt)


def variants(configs: Sequence[Sequence[str]], overrides: Sequence[str]) -> list[Variant]:
    """Variants from the arguments of each --config, `[LABEL=]NAME [key=value ...]`, and the overrides common to all."""
    from latent_prior.cli import config_path

    found: dict[str, Variant] = {}
    for name, *own in configs:
        label, equals, rest = name.partition("=")
        if Path(name).is_file() or not equals:
            label, rest = Path(name).stem, name
        both = (*overrides, *own)
        for override in both:
            key, equals, _ = override.partition("=")
            if not equals:
                raise OptionError.because(f"expected an override of the form key=value, got {override!r}")
            if key in RESERVED:
                raise OptionError.because(f"{key} cannot be overridden in an evaluation: {RESERVED[key]}")
        if not slug(label):
            raise OptionError.because(f"--config {name!r}: the label before '=' has neither letters nor digits")
        if label in found:
            raise OptionError.because(
                f"--config: two variants are called {label!r}; tell them apart with --config LABEL=NAME"
            )
        found[label] = Variant(label, config_path(rest), both)
    return list(found.values())


def planned(
    variants: Sequence[Variant], prompts: Sequence[str], seeds: Sequence[int], out: Path, gpu: str = "0"
) -> list[Job]:
    """Every prompt with every seed under every variant; the variants of one prompt and seed follow each other."""
    jobs = []
    runs = out / "runs"
    groups = [variant.folder for variant in variants]
    for seed in seeds:
        for prompt in prompts:
            for variant, group in zip(variants, groups, strict=True):
                name = f"{slug(prompt)}-seed{seed}"
                # JSON, as a value that YAML reads back as it is
                own = {"seed": seed, "exp_root_dir": str(runs), "name": group, "tag": name, "use_timestamp": False}
                command = [sys.executable, "-m", "latent_prior", "generate", prompt, *variant.overrides]
                command += [f"{key}={json.dumps(value)}" for key, value in own.items()]
                command += ["--config", str(variant.config), "--gpu", gpu]
                jobs.append(
                    Job(
                        variant.label,
                        prompt,
                        seed,
                        run=runs / group / name,
                        result=out / "results" / group / f"{name}.json",
                        launch=out / "launches" / group / f"{name}.json",
                        command=tuple(command),
                    )
                )
    return jobs


def given(runs: Sequence[Path], out: Path) -> list[Job]:
    """Run folders that are there; a folder that holds run folders stands for those. Labelled by the run's `name`."""
    from omegaconf import OmegaConf

    jobs: dict[Path, Job] = {}  # by the folder's real path, so that none counts twice
    for path in runs:
        folders = [path] if _is_run(path) else sorted(p.parent.parent for p in path.glob("**/configs/parsed.yaml"))
        if not folders:
            raise OptionError.because(f"--runs: {path} is no run folder and holds none (no configs/parsed.yaml)")
        for folder in folders:
            cfg = OmegaConf.load(folder / "configs" / "parsed.yaml")
            prompt = OmegaConf.select(cfg, "system.prompt_processor.prompt")
            if not prompt:
                raise OptionError.because(
                    f"--runs: {folder} is no run from a prompt: it has no system.prompt_processor.prompt"
                )
            digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]
            result = out / "results" / f"{slug(str(cfg.name))}-given" / f"{slug(folder.name)}-{digest}.json"
            jobs.setdefault(folder.resolve(), Job(str(cfg.name), str(prompt), int(cfg.seed), folder, result))
    return list(jobs.values())


@cache
def prior_digest() -> str:
    """Of the pocket prior's weights, the judge's left out."""
    weights = Path(latent_prior.__file__).parent / "pocket" / "weights"
    files = sorted(path for path in weights.glob("*/*.safetensors") if path.parent.name != "judge")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def source_file(settings: Any) -> Path:
    """The generator that a StyleGAN run with these settings starts from."""
    from omegaconf import OmegaConf

    from latent_prior.generators.pretrained import POCKET_FILE

    name = OmegaConf.select(settings, "system.pretrained_generator", default="pocket")
    return POCKET_FILE if name == "pocket" else Path(name)


@cache
def _file_digest(path: Path) -> str:
    """Empty where there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _is_run(path: Path) -> bool:
    return (path / "configs" / "parsed.yaml").is_file()


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
