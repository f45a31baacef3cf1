"""Measuring results against the pocket world's ground truth: `latent-prior evaluate`.

bench/ is shared by all evaluations. Each evaluation is a package of its own that declares its flags (in __init__.py,
which imports neither torch nor transformers) and what is run, measured and shown (in evaluation.py).
"""

from importlib import import_module

KINDS = ("text_to_3d", "texturing", "editing", "stylegan")  # packages; the commands have dashes instead of underscores


def add_commands(subparsers) -> None:
    """Add a command per evaluation to argparse's subparsers."""
    for kind in KINDS:
        command = import_module(f"latent_prior.evaluate.{kind}").COMMAND
        name = kind.replace("_", "-")
        command.add_arguments(subparsers.add_parser(name, help=command.summary, description=command.help))
