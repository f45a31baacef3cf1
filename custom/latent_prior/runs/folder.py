"""The folder of a run: `outputs/<name>/<tag>@<timestamp>/{ckpts,configs,csv_logs,tb_logs,save}`.

What a run is made from (parsed config, versions, seed, command) is written with its first step, so that a run rejected
for bad input leaves nothing behind.
"""

import functools
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import latent_prior
from latent_prior import OptionError, __version__
from latent_prior.files import atomic_write, lock, remove_partial, shown, user_path, write_text
from latent_prior.files.lock import FolderLock
from latent_prior.files.refusals import reason
from latent_prior.runs import signals

PARTS = ("ckpts", "configs", "csv_logs", "tb_logs", "save")
PARSED = "parsed.yaml"
UNRESOLVED = "unresolved.yaml"
MAX_STEP = 1 << 40
ORIGIN = "origin.json"

PACKAGES = ("torch", "diffusers", "transformers", "pytorch-lightning", "omegaconf", "nerfacc", "trimesh", "numpy")


class Stopped(OptionError):
    """A user error in a run that had begun: what was saved stays, and commands end with exit code 1."""


class Interrupted(Exception):
    """The run was interrupted by Ctrl-C, SIGTERM or SIGHUP; the command goes on from `checkpoint`."""

    def __init__(self, checkpoint: Path, command: str = "resume"):
        super().__init__(str(checkpoint))
        self.checkpoint, self.command = checkpoint, command


def versions() -> dict[str, str | None]:
    """Versions of this run's software; None for a package that is not installed."""
    found: dict[str, str | None] = {"latent_prior": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found | {"platform": platform.platform()}


def made_with() -> dict[str, Any]:
    """What results depend on apart from their config: the software's versions, and the number of threads on the CPU."""
    import torch

    return {"versions": versions(), "threads": torch.get_num_threads()}


def threads_of(run: Path) -> int | None:
    """The number of threads that a run was trained with; None if that is not recorded."""
    try:
        threads = json.loads((run / "configs" / ORIGIN).read_text())["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return threads if isinstance(threads, int) else None


@dataclass(frozen=True)
class Claim:
    """A run's folder, which no other run writes to meanwhile, and the folders created for it.

    None were created if a run resumes in its own folder. lock: held by the first process of the run; None in others.
    """

    folder: Path
    lock: FolderLock | None
    made: tuple[Path, ...] = ()  # innermost first
    fresh: bool = True  # the folder was new or empty

    def release(self, remove: bool = False) -> None:
        """Let others have the folder. remove: take back what was created for a run that never began, and only that."""
        if self.lock is None:
            return
        if remove and self.fresh:
            with signals.delayed():
                for part in PARTS:
                    shutil.rmtree(self.folder / part, ignore_errors=True)
                self.lock.release()
                lock.remove_empty(self.made)
        self.lock.release()


def claim(folder: Path, resume: Path | None = None, numbered: bool = False, tries: int = 10) -> Claim:
    """Claim a run's folder, which then is locked until `release`.

    resume: the checkpoint that the run resumes from; if it lies in `folder`, the run continues there. numbered: append
    `-1`, `-2`, ... to the name of a folder that is taken; otherwise it is an error, unless the folder is empty.
    """
    own = resume and resume.resolve().parent.parent
    if own and own.is_dir() and folder.is_dir() and own.samefile(folder):
        held = lock.locked(folder)
        remove_partial(folder)
        return Claim(folder, held, fresh=False)
    try:
        taken = lock.take(folder, numbered=numbered, check=_require_empty)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and tries > 1:  # another run took its folders back in this moment
            return claim(folder, resume, numbered, tries - 1)
        raise OptionError.because(
            f"cannot make the run folder {shown(str(folder), 200)!r}: {reason(error, folder)} (it is "
            "exp_root_dir/name/tag@timestamp)"
        ) from error
    return Claim(taken.folder, taken.lock, taken.made)


def _require_empty(folder: Path) -> None:
    if any(name != lock.NAME for name in os.listdir(folder)):
        raise OptionError.because(
            f"the run folder {folder} is taken: resume that run (latent-prior resume {folder}), or set another tag, or "
            "use_timestamp=true"
        )


def write_origin(folder: Path, cfg: Any, unresolved: Any, sources: Sequence[str]) -> None:
    """Write the configs, versions, seed and command into `folder`.

    unresolved: the merged config with its interpolations, so that a run resumed with another `trainer.max_steps` has
    schedules for that many steps. `parsed.yaml` holds the resolved values, but for those from the environment.
    """
    from omegaconf import OmegaConf

    from latent_prior import host

    configs = folder / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    parsed = host.with_references(cfg, unresolved)
    identity = {key: parsed._get_node(key) for key in ("exp_root_dir", "name", "tag", "timestamp")}
    host.dump_config(configs / UNRESOLVED, OmegaConf.merge(unresolved, identity))
    host.dump_config(configs / PARSED, parsed)
    for source in map(user_path, sources):
        if source.resolve().parent != configs.resolve():
            with atomic_write(configs / f"raw-{source.name}") as beside:
                shutil.copyfile(source, beside)
    origin = {"seed": cfg.seed, **made_with(), "host": host.NAME, "command": sys.argv}
    write_text(configs / ORIGIN, json.dumps(origin, indent=2) + "\n")


def config_of(run: Path) -> Path:
    """The config to resume with: with interpolations, or for a run of an older version with resolved values only."""
    unresolved = run / "configs" / UNRESOLVED
    return unresolved if unresolved.is_file() else run / "configs" / PARSED


def last_checkpoint(run: Path) -> Path:
    """The readable checkpoint of the latest step, `last.ckpt` among equals; warns about unreadable ones.

    File times are ignored: copying a folder changes them. OptionError if it is not a run folder or has no checkpoint.
    """
    from latent_prior import host

    if not (run / "configs" / PARSED).is_file():
        raise OptionError.because(f"{run} is not a run folder: it has no configs/{PARSED}")
    found = newest(run / "ckpts", lambda path: host.warn(f"{path} is not a readable checkpoint and is skipped"))
    if found is None:
        raise OptionError.because(
            f"{run} has no readable checkpoint in {run / 'ckpts'}: it stopped before the first was written"
        )
    return found[0]


def last_step(run: Path) -> int:
    """The latest step of a folder's readable checkpoints; 0 where there are none."""
    return (newest(run / "ckpts") or (run, 0))[1]


def newest(
    ckpts: Path, skipped: Callable[[Path], None] = lambda path: None, beside: Path | None = None
) -> tuple[Path, int] | None:
    """The readable checkpoint of the latest step, and its step; `skipped` is called with unreadable ones on the way.

    beside: a checkpoint that was found unreadable already and is not read again.
    """
    steps = {path: step_of(path) for path in sorted(ckpts.glob("[!.]*.ckpt")) if path != beside}
    for path in (path for path, step in steps.items() if step is None):
        skipped(path)
    readable = [(step, path.name == "last.ckpt", path) for path, step in steps.items() if step is not None]
    for step, _, path in sorted(readable, reverse=True):
        if is_undamaged(path):
            return path, step
        skipped(path)
    return None


def is_undamaged(checkpoint: Path) -> bool:
    """Whether everything in a checkpoint matches its checksums, which torch does not check. Takes a second per GB."""
    try:
        status = checkpoint.stat()
    except OSError:
        return False
    return _checksums_match(checkpoint, status.st_size, status.st_mtime_ns)


@functools.lru_cache
def _checksums_match(checkpoint: Path, size: int, changed: int) -> bool:
    """For a file of that size and that time of its last change, which make it the same file as before."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            parts = archive.infolist()
            # torch compresses nothing; what would unpack to more than the file is not read
            plain = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            return plain and sum(part.file_size for part in parts) <= size and archive.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError):
        return False


def step_of(checkpoint: Path) -> int | None:
    """The step stored in a checkpoint; None if the file is truncated or not a checkpoint. Tensors are not read."""
    from latent_prior.files.torch_file import read_torch

    try:
        content = read_torch(checkpoint, data=False)
    except (OptionError, OSError):
        return None
    step = content.get("global_step") if isinstance(content, dict) else None
    return step if type(step) is int and 0 <= step < MAX_STEP else None


def results(run: Path) -> list[Path]:
    """What a run has made: meshes, and the test's files directly in `save`.

    Pictures whose names begin with the step (`it100-0.png`) are training previews and left out, except for one panel of
    a turntable.
    """
    save = run / "save"
    files = [p for p in sorted(save.glob("it*-export/[!.]*")) if p.is_file()]
    files += [
        p for p in sorted(save.glob("[!.]*")) if p.is_file() and not (re.match(r"it\d", p.name) and p.suffix == ".png")
    ]
    return files + sorted(save.glob("it*-test/panels-*.png"))[:1]


def before_after(run: Path) -> tuple[Path, Path] | None:
    """Pictures of one size of what a run, or an editor's command, began with and of what it made; None without both."""
    for place in (run / "save", run):
        after = next((place / name for name in ("after.png", "composite.png") if (place / name).is_file()), None)
        if after is not None and (place / "before.png").is_file():
            return place / "before.png", after
    return None


def products(run: Path) -> list[Path]:
    """The `results` of a run and its newest checkpoint."""
    found = newest(run / "ckpts")
    return results(run) + ([found[0]] if found else [])


def views(run: Path, most: int = 4) -> list[Path]:
    """Pictures that show a run: some frames of its turntable, evenly spread, or the picture of before and after."""
    save = run / "save"
    tests = sorted(save.glob("it*-test"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    frames = (
        sorted((p for p in tests[-1].glob("*.png") if p.stem.isdecimal()), key=lambda p: int(p.stem)) if tests else []
    )
    if frames:
        return frames[:: max(1, len(frames) // most)][:most]
    return [path for path in [save / "before_after.png"] if path.is_file()]


def config_path(name: str) -> Path:
    """A config by path, or by the name of one that ships with the package (`latent_prior`, `pocket_dreamfusion`, ...)."""
    if Path(name).is_file():
        return Path(name)
    package = Path(latent_prior.__file__).resolve().parent
    stem = Path(name).name.removesuffix(".yaml")
    # installed: copied into the package by setup.py; in a clone: the originals
    for folder in (package / "configs", package.parent, package.parent.parent / "configs"):
        if (found := folder / f"{stem}.yaml").is_file():
            return found
    raise OptionError.because(
        f"--config: {name!r} is neither a file nor the name of a config that ships with latent_prior"
    )
