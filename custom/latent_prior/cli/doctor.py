"""`latent-prior doctor [THREESTUDIO_DIR]`: what is installed, which host would be used, what is missing for what."""

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from packaging.requirements import Requirement

from latent_prior import OptionError
from latent_prior.cli import host_arguments

OK, MISSING, OLD, BROKEN = "ok", "missing", "too old", "broken"

EXAMPLES = """examples:
  latent-prior doctor
  latent-prior doctor ~/threestudio
  latent-prior doctor --host embedded
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=doctor)
    p.epilog = EXAMPLES
    p.add_argument("threestudio", metavar="THREESTUDIO_DIR", nargs="?", help="threestudio's checkout")
    p.add_argument("--host", choices=("auto", "embedded", "threestudio"), help="the host to examine (default: auto)")


@dataclass(frozen=True)
class Row:
    """One line of the report. `mend` is the command that fixes it, empty if nothing needs fixing."""

    what: str
    state: str
    found: str
    needed_for: str
    mend: str = ""
    required: bool = False


@dataclass(frozen=True)
class _Package:
    module: str
    distribution: str
    needed_for: str
    required: bool = True


OURS = (
    _Package("torch", "torch", "everything"),
    _Package("diffusers", "diffusers", "checkpoints (Stable Diffusion, Flux)"),
    _Package("transformers", "transformers", "text encoders (CLIP, T5)"),
    _Package("accelerate", "accelerate", "loading checkpoints"),
    _Package("pytorch_lightning", "pytorch-lightning", "launch.py and latent-prior"),
    _Package("omegaconf", "omegaconf", "configs"),
    _Package("nerfacc", "nerfacc", "volume rendering"),
    _Package("trimesh", "trimesh", "meshes"),
    _Package("skimage", "scikit-image", "marching cubes"),
    _Package("fast_simplification", "fast-simplification", "exporter.max_faces"),
    _Package("xatlas", "xatlas", "textures"),
    _Package("imageio_ffmpeg", "imageio-ffmpeg", "turntable videos"),
    _Package("jinja2", "jinja2", "report.html"),
    _Package("tensorboard", "tensorboard", "TensorBoard logs"),
    _Package("submitit", "submitit", "sweep and evaluate", False),
    _Package("gradio", "gradio", "latent-prior app", False),
    _Package("wandb", "wandb", "logs at Weights & Biases", False),
    _Package("beartype", "beartype", "--typecheck", False),
    _Package("peft", "peft", "guidance.lora", False),
    _Package("tomesd", "tomesd", "guidance.token_merging", False),
)


@cache
def requirements() -> dict[str, Requirement]:
    """The requirements in setup.py, including extras, by distribution. Empty in a clone that is not installed."""
    try:
        found = importlib.metadata.requires("latent_prior") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {requirement.name: requirement for requirement in map(Requirement, found)}


def package_row(package: _Package) -> Row:
    """Import a package and check its version."""
    wanted = requirements().get(package.distribution, Requirement(package.distribution))
    spec = f"{wanted.name}{wanted.specifier}"
    mend = f'pip install "{spec}"' if wanted.specifier else f"pip install {spec}"
    row = {"what": package.distribution, "needed_for": package.needed_for, "required": package.required}
    try:
        importlib.import_module(package.module)
    except ModuleNotFoundError:
        return Row(state=MISSING, found="", mend=mend, **row)
    except Exception as error:  # a package built for another torch or without its driver
        return Row(state=BROKEN, found=f"{type(error).__name__}: {error}", mend=mend, **row)
    try:
        version = importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if version and not wanted.specifier.contains(version, prereleases=True):
        return Row(state=OLD, found=version, mend=mend, **row)
    return Row(state=OK, found=version, **row)


def gpu_row() -> Row:
    """Whether CUDA can be used. It is optional: everything runs on the CPU."""
    import torch

    if torch.cuda.is_available():
        return Row("CUDA", OK, torch.cuda.get_device_name(0), "half precision, Stable Diffusion in reasonable time")
    why = "torch without CUDA" if torch.version.cuda is None else "no GPU that torch can use"
    return Row("CUDA", MISSING, why, "half precision, Stable Diffusion in reasonable time", "runs on the CPU without")


def threestudio_rows(absent: tuple[str, ...]) -> Iterator[Row]:
    """Packages that threestudio needs; those in `absent` got stand-ins or ours in their place."""
    from latent_prior.host.threestudio.stand_ins import PACKAGES

    for name, package in PACKAGES.items():
        if name in absent:
            yield Row(name, MISSING, package.in_its_place, f"threestudio: {package.feature}", package.install)


def examine() -> tuple[str, list[Row]]:
    """(the host that would be used, all rows). Imports the host; call it in a process of its own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # our table reports what is missing
    rows = [package_row(package) for package in OURS]
    broken = [row.what for row in rows if row.required and row.state != OK]
    if broken:
        return f"none, for want of {', '.join(broken)}", rows
    rows.append(gpu_row())
    try:
        import warnings

        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            from latent_prior import host
        name = host.NAME
    except OptionError as error:
        rows.append(Row("threestudio", BROKEN, str(error), "host threestudio", "--host embedded", True))
        return "none", rows
    if name == "threestudio":
        import threestudio

        from latent_prior.host.threestudio import bring_in

        folder = os.path.dirname(os.path.dirname(threestudio.__file__))
        rows.append(Row("threestudio", OK, f"{threestudio.__version__} in {folder}", "host threestudio"))
        rows.extend(threestudio_rows(bring_in()))
    else:
        why = next((str(w.message) for w in said if "threestudio" in str(w.message)), "")
        mend = "latent-prior doctor THREESTUDIO_DIR, or THREESTUDIO_ROOT=THREESTUDIO_DIR"
        rows.append(Row("threestudio", BROKEN if why else MISSING, why, "host threestudio", mend))
    return name, rows


def report(name: str, rows: list[Row]) -> str:
    """The table, one line per row, each followed by its fix."""
    width = max(len(row.what) for row in rows)
    lines = []
    for row in rows:
        found = row.found if row.state == OK else f"{row.state}{': ' + row.found if row.found else ''}"
        lines.append(f"{'✓' if row.state == OK else '✗' if row.required else '-'} {row.what:<{width}}  {found}")
        if row.state != OK:
            lines.append(f"  {'':<{width}}  for {row.needed_for}: {row.mend}")
    lines.append(f"\nHost: {name}")
    return "\n".join(lines)


def doctor(args: argparse.Namespace) -> None:
    """The command; exit code 1 if the chosen host cannot run."""
    host_arguments.choose(args)
    name, rows = examine()
    print(report(name, rows))
    sys.exit(1 if name.startswith("none") else 0)
