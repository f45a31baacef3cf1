"""The folder of a run: `outputs/<name>/<tag>@<timestamp>/{ckpts,configs,csv_logs,tb_logs,save}`.

What a run was made from (parsed config, versions, seed, command) is written when its first step begins, so that a run
refused for bad input leaves nothing behind.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import latent_prior
from latent_prior import OptionError, __version__

PACKAGES = ("torch", "diffusers", "transformers", "pytorch-lightning", "omegaconf", "nerfacc", "trimesh", "numpy")


class Interrupted(Exception):
    """Ctrl-C was pressed or SIGTERM came; the run can go on from `checkpoint`."""

    def __init__(self, checkpoint: Path):
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


def versions() -> dict[str, str | None]:
    """What this run runs on; None for a package that is not installed."""
    found: dict[str, str | None] = {"latent_prior": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found | {"platform": platform.platform()}


def write_origin(folder: Path, cfg, sources: list[str]) -> None:
    """Write parsed and raw config, versions, seed and command into `folder`."""
    from latent_prior import host

    (folder / "configs").mkdir(parents=True, exist_ok=True)
    parsed = folder / "configs" / "parsed.yaml"
    host.dump_config(str(parsed), cfg)
    for source in sources:
        if not parsed.samefile(source):
            shutil.copyfile(source, folder / "configs" / f"raw-{Path(source).name}")
    origin = {"seed": cfg.seed, "versions": versions(), "host": host.NAME, "command": sys.argv}
    (folder / "configs" / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")


def claim(folder: Path) -> bool:
    """Make the folder of a run. Returns whether it is new or empty; ValueError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return not os.listdir(folder)
    except OSError as error:
        _remove_empty_parents(folder)
        raise OptionError.because(
            f"cannot make the run folder {str(folder)!r}: {error.strerror} (it is exp_root_dir/name/tag@timestamp)"
        ) from error


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run that never began (loggers open theirs early), and its parents while they are empty."""
    shutil.rmtree(folder, ignore_errors=True)
    _remove_empty_parents(folder)


def _remove_empty_parents(folder: Path) -> None:
    for parent in (folder.parent, folder.parent.parent):
        if parent.is_dir() and parent.resolve() != Path.cwd() and not os.listdir(parent):
            parent.rmdir()


def last_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run. ValueError if the folder is no run or has none."""
    if not (run / "configs" / "parsed.yaml").is_file():
        raise OptionError.because(f"{run} is no run folder: it has no configs/parsed.yaml")
    found = [p for p in (run / "ckpts").glob("*.ckpt") if p.stat().st_size > 0]
    if not found:
        raise OptionError.because(
            f"{run} has no checkpoint in {run / 'ckpts'}: it stopped before the first was written"
        )
    # `last.ckpt` may be a link to, or as old as, a numbered one: then either will do
    return max(found, key=lambda p: (p.stat().st_mtime, p.name == "last.ckpt"))


def products(run: Path) -> list[Path]:
    """The files of a run that a user came for: meshes, what the test left in `save` itself, and the newest checkpoint.

    Pictures whose names begin with the step (`it100-0.png`) are previews of training and left out, but for one panel of a
    turntable.
    """
    save = run / "save"
    files = [p for p in sorted(save.glob("it*-export/*")) if p.is_file()]
    files += [
        p for p in sorted(save.glob("*")) if p.is_file() and not (re.match(r"it\d", p.name) and p.suffix == ".png")
    ]
    files += sorted(save.glob("it*-test/panels-*.png"))[:1]
    return files + ([last_checkpoint(run)] if list((run / "ckpts").glob("*.ckpt")) else [])


def config_path(name: str) -> Path:
    """A config by path, or by the name of one that ships with the package (`latent_prior`, `pocket_dreamfusion`, ...)."""
    if Path(name).is_file():
        return Path(name)
    package = Path(latent_prior.__file__).resolve().parent
    stem = Path(name).name.removesuffix(".yaml")
    # installed: copied into the package by setup.py; in a clone: where they are edited
    for folder in (package / "configs", package.parent, package.parent.parent / "configs"):
        if (found := folder / f"{stem}.yaml").is_file():
            return found
    raise OptionError.because(
        f"--config: {name!r} is neither a file nor the name of a config that ships with latent_prior"
    )


def slug(text: str) -> str:
    """A text, such as a prompt, as a short name for a file or folder: its words of any script, joined by underscores.

    At most 60 characters and 180 bytes, cut between words where that is possible; "prompt" where no word is left.
    """
    text = re.sub("[\ufe00-\ufe0f]", "", unicodedata.normalize("NFC", text))  # they only choose how an emoji looks
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()
    short = "_".join(words)[:61]  # one more, so that a word that ends at the limit is kept
    while len(short) > 60 or len(short.encode()) > 180:
        short = short.rpartition("_")[0] or short[:-1]
    return short or "prompt"
