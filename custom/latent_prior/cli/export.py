"""`latent-prior export RUN_DIR`: export a finished run again, from its newest checkpoint."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.cli import host_arguments, results
from latent_prior.cli.resume import in_place
from latent_prior.runs import experiment, gpus
from latent_prior.runs.folder import last_checkpoint

EXAMPLES = """examples:
  latent-prior export outputs/latent_prior/a_red_mug@20260101-120000 --format glb,obj,ply
  latent-prior export outputs/latent_prior/a_red_mug@20260101-120000 system.geometry.isosurface_resolution=256
  latent-prior export outputs/pocket_stylegan/a_golden_mug@20260101-120000
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=export)
    p.epilog = EXAMPLES
    p.add_argument("run", metavar="RUN_DIR", help="folder of a run, e.g. outputs/<name>/<tag>@<time>")
    p.add_argument("--format", help="mesh format: glb, obj, ply, or several separated by commas (default: the run's)")
    host_arguments.add_run_arguments(p, trains=False)


def export(args: argparse.Namespace) -> None:
    """The command."""
    host_arguments.choose(args)
    gpus.choose_gpus(args.gpu)
    folder = Path(args.run)
    checkpoint = last_checkpoint(folder)
    parsed = str(folder / "configs" / "parsed.yaml")
    settings: dict[str, Any] = dict(in_place(folder, args.overrides))
    if args.format is not None:
        settings["system"] = {"exporter": {"fmt": checked_formats(args.format, parsed)}}
    run = experiment.run([parsed], args.overrides, ("export",), args.gpu, resume=str(checkpoint), **settings)
    results.show(run.folder)


def checked_formats(given: str, parsed: str) -> str:
    """`--format` as the exporter's list. OptionError for an unknown one, or for a run that exports no mesh."""
    from latent_prior import host
    from latent_prior.meshes.files import FORMATS

    formats = [name.strip().lower().removeprefix(".") for name in given.split(",")]
    if not set(formats) <= set(FORMATS):
        raise OptionError("--format", given, f"some of {', '.join(FORMATS)}")
    experiment.load()
    system_type = host.select(host.read_config(parsed), "system_type")
    system = host.find(str(system_type), "system_type")
    if "exporter" not in {field.name for field in dataclasses.fields(system.Config)}:
        raise OptionError.because(f"a run of {system_type} exports no mesh: omit it", "--format")
    return ",".join(formats)
