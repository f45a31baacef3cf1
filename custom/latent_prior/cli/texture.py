"""`latent-prior texture MESH PROMPT`: colours for a given mesh."""

import argparse
from pathlib import Path
from typing import Any

from latent_prior.cli import generate, host_arguments

HELP = """Texture a mesh by a prompt, and write it back as GLB in its own units, axes and hierarchy.

MESH is a glb, gltf, obj, ply, stl or off file (or another that trimesh reads), or the folder of a run, whose newest
export is textured further. Texture coordinates that can be used are kept; else xatlas makes new ones."""

EXAMPLES = """examples:
  latent-prior texture mug.stl "a striped red mug"
  latent-prior texture mug.glb "a golden mug" --start texture system.loss.lambda_reconstruction=1
  latent-prior texture scene.glb "a blue wine glass" --part Glass --part Stem
  latent-prior texture scan.obj "a golden duck" --up z --front -y --format glb,obj,ply
  latent-prior texture outputs/latent_prior/a_red_mug@20260101-120000 "a striped red mug"
  latent-prior texture statue.glb "a bronze statue, patina" --config sd_mesh_texture --gpu 0
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=texture)
    p.description, p.epilog = HELP, EXAMPLES
    p.add_argument("mesh", metavar="MESH", type=Path, help="mesh file, or the folder of a run")
    generate.add_prompt(p, "pocket_mesh_texture")
    p.add_argument(
        "--start", choices=("grey", "texture"), help="what the colours start from (default: the config's, grey)"
    )
    p.add_argument(
        "--part", action="append", metavar="NAME", help="node or mesh to texture; repeatable (default: all of them)"
    )
    p.add_argument("--up", metavar="AXIS", help="the file's axis that points up: x, -x, y, ... (default: the format's)")
    p.add_argument(
        "--front", metavar="AXIS", help="the file's axis towards which the front looks (default: the format's)"
    )
    p.add_argument("--format", metavar="LIST", help="glb, obj, ply or several with commas (default: glb)")
    host_arguments.add_run_arguments(p)


def texture(args: argparse.Namespace) -> None:
    """The command."""
    given = {"start": args.start, "parts": args.part, "up": args.up, "front": args.front}
    geometry = {key: value for key, value in given.items() if value is not None}
    system: dict[str, Any] = {"geometry": {"mesh": str(args.mesh), **geometry}}
    if args.format is not None:
        system["exporter"] = {"fmt": args.format.split(",")}
    generate.run_prompt(args, system)
