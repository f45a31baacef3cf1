"""Jobs for what is not run: run folders that exist already, and references."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from latent_prior import OptionError
from latent_prior.runs.sweep.jobs import Job, Task, slug


def given(runs: Sequence[Path], out: Path) -> list[Job]:
    """Jobs for existing run folders; a folder of run folders stands for those in it. Labels are the runs' `name`s."""
    from latent_prior import host

    jobs: dict[Path, Job] = {}  # by the folder's real path, to avoid duplicates
    for path in runs:
        folders = [path] if _is_run(path) else sorted(p.parent.parent for p in path.glob("**/configs/parsed.yaml"))
        if not folders:
            raise OptionError.because(f"{path} is not a run folder and holds none (no configs/parsed.yaml)", "--runs")
        for folder in folders:
            cfg = host.read_config(folder / "configs" / "parsed.yaml")
            prompt, name, seed = (host.select(cfg, key) for key in ("system.prompt_processor.prompt", "name", "seed"))
            if not prompt:
                raise OptionError.because(
                    f"{folder} is not a run with a prompt: it has no system.prompt_processor.prompt", "--runs"
                )
            if not isinstance(name, str) or type(seed) is not int:
                raise OptionError.because(f"{folder} has a configs/parsed.yaml without a name or seed", "--runs")
            digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]
            result = out / "results" / f"{slug(name)}-given" / f"{slug(folder.name)}-{digest}.json"
            jobs.setdefault(folder.resolve(), Job(name, Task(str(prompt)), seed, folder, result))
    return list(jobs.values())


def with_references(jobs: Sequence[Job], references: Mapping[str, Path], out: Path) -> list[Job]:
    """The jobs, with the references (label: path of something that is not a run) before each task's first."""
    found: list[Job] = []
    for job in jobs:
        if job.label in references:
            raise OptionError.because(
                f"the label {job.label!r} is taken; choose another with --config LABEL=NAME", "--config"
            )
        if all(other.prompt != job.prompt for other in found):
            for label, of in references.items():
                found.append(Job(label, job.task, None, of, out / "results" / label / f"{job.task.file_name}.json"))
        found.append(job)
    return found


def _is_run(path: Path) -> bool:
    return (path / "configs" / "parsed.yaml").is_file()
