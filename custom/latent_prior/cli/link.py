"""`latent-prior link THREESTUDIO_DIR`: add the package and its main config to threestudio's `custom/`, or remove it.

threestudio imports every folder in `custom/` under its own name, so the package goes there as `latent_prior` and the
config as `latent_prior.yaml`. Only our own files are ever replaced or removed.
"""

import argparse
import filecmp
import shutil
from pathlib import Path

import latent_prior
from latent_prior import OptionError
from latent_prior.files import atomic_folder, atomic_write
from latent_prior.runs.folder import config_path

PACKAGE = Path(latent_prior.__file__).resolve().parent
MARKER = ".copied_by_latent_prior_link"  # in a copied package, to recognise it

EXAMPLES = """examples:
  latent-prior link ~/threestudio
  latent-prior link ~/threestudio --copy
  latent-prior link ~/threestudio --remove
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=run)
    p.epilog = EXAMPLES
    p.add_argument("threestudio", metavar="THREESTUDIO_DIR", help="threestudio's checkout")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="copy instead of linking")
    how.add_argument("--remove", action="store_true", help="remove it again")


def run(args: argparse.Namespace) -> None:
    """The command."""
    folder = Path(args.threestudio).expanduser()
    if args.remove:
        done = unlink(folder)
        print("\n".join(f"removed {path}" for path in done) or f"nothing of ours in {folder / 'custom'}")
        return
    done = link(folder, args.copy)
    print("\n".join(f"{'copied to' if args.copy else 'linked'} {path}" for path in done))
    print(
        f"Now: cd {folder} && python launch.py --config custom/latent_prior.yaml --train --gpu 0 "
        'system.prompt_processor.prompt="a red mug"'
    )


def targets(threestudio: Path) -> dict[Path, Path]:
    """{path in threestudio: our path}. Raises OptionError if the folder is not a threestudio checkout."""
    if not (threestudio / "launch.py").is_file() or not (threestudio / "threestudio" / "__init__.py").is_file():
        raise OptionError.because(
            f"link: {str(threestudio)!r} is not threestudio's checkout; expected a folder with launch.py and threestudio/"
        )
    custom = threestudio.resolve() / "custom"
    return {custom / "latent_prior": PACKAGE, custom / "latent_prior.yaml": config_path("latent_prior").resolve()}


def is_ours(target: Path, source: Path) -> bool:
    """Whether `target` is a link to us, or a copy without changes by the user."""
    if target.is_symlink():
        return target.resolve() == source or not target.exists()  # a dangling link points to a moved clone
    if target.is_dir():
        return (target / MARKER).is_file()
    return target.is_file() and filecmp.cmp(target, source, shallow=False)


def link(threestudio: Path, copy: bool = False) -> list[Path]:
    """Link the package and the config into threestudio's `custom/`; returns their paths there.

    Repeating it is harmless; with `copy` the copy is renewed. Raises OptionError if something else of that name
    exists.
    """
    wanted = targets(threestudio)
    for target, source in wanted.items():
        if (target.exists() or target.is_symlink()) and not is_ours(target, source):
            raise OptionError.because(
                f"link: {target} already exists and is not ours (or was edited); move it away first"
            )
    for target, source in wanted.items():
        target.parent.mkdir(exist_ok=True)
        if not copy or target.is_symlink():
            _remove(target)
        if not copy:
            target.symlink_to(source, target_is_directory=source.is_dir())
        elif source.is_dir():
            with atomic_folder(target) as beside:
                shutil.copytree(source, beside, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
                (beside / MARKER).touch()
        else:
            with atomic_write(target) as beside:
                shutil.copyfile(source, beside)
    return list(wanted)


def unlink(threestudio: Path) -> list[Path]:
    """Undo `link`; returns what was removed. What is not ours, or was edited, stays: an OptionError names it."""
    removed, kept = [], []
    for target, source in targets(threestudio).items():
        if not target.exists() and not target.is_symlink():
            continue
        if is_ours(target, source):
            _remove(target)
            removed.append(target)
        else:
            kept.append(str(target))
    if kept:
        raise OptionError.because(f"link --remove: left {' and '.join(kept)}, which is not ours or was edited")
    return removed


def _remove(target: Path) -> None:
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
