"""`latent-prior doctor [THREESTUDIO_DIR]`: what is installed, which host would be used, what is missing for what."""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

OK, MISSING, OLD, BROKEN = "ok", "missing", "too old", "broken"


@dataclass(frozen=True)
class Row:
    """One line of the report. `mend` is the command that mends it, empty where nothing is to mend."""

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
    least: str
    needed_for: str
    required: bool = True
    install: str = ""


OURS = (
    _Package("torch", "torch", "2.6", "everything"),
    _Package("diffusers", "diffusers", "0.32", "checkpoints"),
    _Package("transformers", "transformers", "4.48", "text encoders and CLIP"),
    _Package("accelerate", "accelerate", "1.0", "loading checkpoints"),
    _Package("pytorch_lightning", "pytorch-lightning", "2.6", "launch.py and latent-prior"),
    _Package("omegaconf", "omegaconf", "2.3", "configs"),
    _Package("nerfacc", "nerfacc", "0.5.3", "volume rendering"),
    _Package("trimesh", "trimesh", "4.5", "meshes"),
    _Package("skimage", "scikit-image", "0.24", "marching cubes"),
    _Package("fast_simplification", "fast-simplification", "0.1.9", "exporter.max_faces"),
    _Package("imageio_ffmpeg", "imageio-ffmpeg", "0.5", "turntable videos"),
    _Package("tensorboard", "tensorboard", "2.16", "TensorBoard logs"),
    _Package("xatlas", "xatlas", "0.0.9", "baked textures", False),
    _Package("wandb", "wandb", "0.16", "logs at Weights & Biases", False),
    _Package("beartype", "beartype", "0.19", "--typecheck", False),
    _Package("peft", "peft", "0.13", "guidance.lora", False),
    _Package("tomesd", "tomesd", "0.1.3", "guidance.token_merging", False),
)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_older(version: str, least: str) -> bool:
    from packaging.version import Version

    return Version(version) < Version(least)


def package_row(package: _Package) -> Row:
    """Import a package and judge its version."""
    mend = package.install or f'pip install "{package.distribution}>={package.least}"'
    row = {"what": package.distribution, "needed_for": package.needed_for, "required": package.required}
    try:
        importlib.import_module(package.module)
    except ModuleNotFoundError:
        return Row(state=MISSING, found="", mend=mend, **row)
    except Exception as error:  # a package built for another torch or without its driver
        return Row(state=BROKEN, found=f"{type(error).__name__}: {error}", mend=mend, **row)
    version = _version(package.distribution)
    if version and _is_older(version, package.least):
        return Row(state=OLD, found=version, mend=mend, **row)
    return Row(state=OK, found=version, **row)


def gpu_row() -> Row:
    """Whether CUDA can be used. None is fine: the CPU does it."""
    import torch

    if torch.cuda.is_available():
        return Row("CUDA", OK, torch.cuda.get_device_name(0), "half precision, Stable Diffusion in reasonable time")
    why = "torch without CUDA" if torch.version.cuda is None else "no GPU that torch can use"
    return Row("CUDA", MISSING, why, "half precision, Stable Diffusion in reasonable time", "runs on the CPU without")


def threestudio_rows(absent: tuple[str, ...]) -> Iterator[Row]:
    """threestudio's own packages; `absent` got stand-ins."""
    from latent_prior.host.threestudio.stand_ins import PACKAGES

    for name, package in PACKAGES.items():
        if name in absent:
            yield Row(name, MISSING, "stand-in", f"threestudio: {package.feature}", package.install)


def examine() -> tuple[str, list[Row]]:
    """(the host that would be used, all rows). Imports the host; call it in a process of its own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what is missing is for our table to say
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
    except ValueError as error:
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
    """The table, one line a row; what mends a row stands under it."""
    width = max(len(row.what) for row in rows)
    lines = []
    for row in rows:
        found = row.found if row.state == OK else f"{row.state}{': ' + row.found if row.found else ''}"
        lines.append(f"{'✓' if row.state == OK else '✗' if row.required else '-'} {row.what:<{width}}  {found}")
        if row.state != OK:
            lines.append(f"  {'':<{width}}  for {row.needed_for}: {row.mend}")
    lines.append(f"\nHost: {name}")
    return "\n".join(lines)


def doctor() -> int:
    """Print the report. Returns 1 if the chosen host cannot run, else 0."""
    name, rows = examine()
    print(report(name, rows))
    return 1 if name.startswith("none") else 0


if __name__ == "__main__":
    sys.exit(doctor())
