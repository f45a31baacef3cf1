"""The console script `latent-prior` (also `python -m latent_prior`): one file per command.

Only the chosen command's file is imported, and its flags need neither torch nor a host, so `--help` is fast.
"""

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from latent_prior.cli.errors import guarded
from latent_prior.runs.gpus import one_gpu

# name: (module with `add_arguments`, which sets the parser's `action`; summary in the list of commands)
COMMANDS = {
    "generate": ("latent_prior.cli.generate", "make a mesh from a prompt"),
    "texture": ("latent_prior.cli.texture", "colour a given mesh by a prompt"),
    "paint": ("latent_prior.cli.paint", "paint one picture under the prior, in seconds"),
    "sweep": ("latent_prior.cli.sweep", "make many runs, here or on a cluster"),
    "resume": ("latent_prior.cli.resume", "continue an interrupted run in its own folder"),
    "report": ("latent_prior.cli.report", "write the page of a run again, or a gallery of many"),
    "export": ("latent_prior.cli.export", "export a run again: its mesh in other formats or resolutions"),
    "edit-masked": ("latent_prior.cli.edit_masked", "edit a picture inside a mask (blended latent diffusion)"),
    "app": ("latent_prior.cli.app", "open the app in the browser: runs to start, watch and download"),
    "evaluate": ("latent_prior.cli.evaluate", "measure runs against the truth of the pocket world"),
    "link": ("latent_prior.cli.link", "link the plugin into threestudio's custom/ folder"),
    "doctor": ("latent_prior.cli.doctor", "report what is installed, which host would be used, and what is missing"),
    "convert-stylegan": ("latent_prior.cli.convert_stylegan", "convert a StyleGAN2 generator between file formats"),
    "train-pocket": ("latent_prior.cli.train_pocket", "train the pocket prior from scratch (resumable)"),
    "train-pocket-stylegan": (
        "latent_prior.cli.train_pocket_stylegan",
        "train the pocket StyleGAN from scratch (resumable)",
    ),
}

EXAMPLES = """examples:
  latent-prior generate "a red mug"
  latent-prior texture mug.glb "a striped red mug"
  latent-prior paint "a red mug"
  latent-prior export outputs/latent_prior/a_red_mug@20260101-120000 --format glb,obj,ply
  latent-prior edit-masked photo.png --mask mask.png --prompt "a golden mug"
  latent-prior doctor

Details: `latent-prior COMMAND --help`
"""


AXIS_FLAGS = ("--up", "--front")


class Parser(argparse.ArgumentParser):
    """A parser that takes `--front -y` as typed, where argparse would read -y as another flag."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        words: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if words and words[-1] in AXIS_FLAGS and re.fullmatch("-[xyz]", word):
                words[-1] += f"={word}"
            else:
                words.append(word)
        return super().parse_known_args(words, namespace)


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser, with the flags of the command named in `argv`."""
    p = Parser(
        prog="latent-prior",
        description="Text to 3D under a latent diffusion prior, from pip alone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = p.add_subparsers(dest="command", required=True, metavar="command")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, line) in COMMANDS.items():
        c = commands.add_parser(name, help=line, description=line, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            importlib.import_module(module).add_arguments(c)
            add_verbose(c)
    return p


def add_verbose(p: argparse.ArgumentParser) -> None:
    """`--verbose`, which every command has, to `p` or to the commands below it."""
    below = [action for action in p._actions if isinstance(action, argparse._SubParsersAction)]
    for each in below[0].choices.values() if below else [p]:
        each.add_argument(
            "--verbose", action="store_true", help="show where an error came from (also: LATENT_PRIOR_DEBUG=1)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for bad input, 130 after Ctrl-C. A bug is raised."""
    argv = sys.argv[1:] if argv is None else argv
    p = parser(argv)
    args, rest = p.parse_known_args(argv)
    # argparse rejects overrides that follow a flag; we accept them anywhere
    if rest and not (hasattr(args, "overrides") and all("=" in r and not r.startswith("-") for r in rest)):
        p.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]

    def action() -> None:
        getattr(args, "check_gpu", one_gpu)(getattr(args, "gpu", "0"))
        args.action(args)

    return guarded(action, args.verbose)
