"""The console script `latent-prior` (also `python -m latent_prior`)."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from latent_prior import OptionError, host_arguments

EXAMPLES = """examples:
  latent-prior generate "a red mug"
  latent-prior generate "a golden duck" trainer.max_steps=800 seed=1
  latent-prior generate "a red mug" --config configs/pocket_dreamfusion.yaml
  latent-prior resume outputs/latent_prior/a_red_mug@20260101-120000
  latent-prior export outputs/latent_prior/a_red_mug@20260101-120000 --format glb,obj,ply
  latent-prior link ~/threestudio
  latent-prior doctor ~/threestudio
  latent-prior convert-stylegan ffhq.pkl ffhq.safetensors
  latent-prior edit-masked photo.png --mask mask.png --prompt "a golden mug"
  latent-prior evaluate text-to-3d --prompts "a red mug" "a golden duck" --out outputs/evaluation
  latent-prior evaluate stylegan --prompts "a golden mug" --out outputs/evaluation_stylegan
  latent-prior evaluate editing --edits "golden mug" --out outputs/evaluation_editing
"""


def config_path(name: str) -> Path:
    """A config by path, or by the name of one that ships with the package (`latent_prior`, `pocket_dreamfusion`, ...)."""
    if Path(name).is_file():
        return Path(name)
    package = Path(__file__).resolve().parent
    stem = Path(name).name.removesuffix(".yaml")
    # installed: copied into the package by setup.py; in a clone: where they are edited
    for folder in (package / "configs", package.parent, package.parent.parent / "configs"):
        if (found := folder / f"{stem}.yaml").is_file():
            return found
    raise OptionError.because(
        f"--config: {name!r} is neither a file nor the name of a config that ships with latent_prior"
    )


def generate(args: argparse.Namespace) -> None:
    from latent_prior import launch

    host_arguments.choose(args)
    settings = {"system": {"prompt_processor": {"prompt": args.prompt}}}
    run = launch.run([str(config_path(args.config))], args.overrides, gpu=args.gpu, **settings)
    launch.report(run.folder)


def resume(args: argparse.Namespace) -> None:
    from latent_prior import launch
    from latent_prior.run_folder import config_of, last_checkpoint

    host_arguments.choose(args)
    folder = Path(args.run)
    checkpoint = last_checkpoint(folder)
    config = str(config_of(folder))
    run = launch.run([config], args.overrides, gpu=args.gpu, resume=str(checkpoint), **_in_place(folder))
    launch.report(run.folder)


def export(args: argparse.Namespace) -> None:
    from latent_prior import launch
    from latent_prior.run_folder import last_checkpoint

    host_arguments.choose(args)
    folder = Path(args.run)
    checkpoint = last_checkpoint(folder)
    settings = _in_place(folder) | {"system": {"exporter": {"fmt": args.format}}}
    parsed = str(folder / "configs" / "parsed.yaml")
    run = launch.run([parsed], args.overrides, ("export",), args.gpu, resume=str(checkpoint), **settings)
    launch.report(run.folder)


def _in_place(folder: Path) -> dict[str, str]:
    """Settings that make a run go on in `folder`, wherever that was moved to."""
    folder = folder.resolve()
    return {"exp_root_dir": str(folder.parent.parent), "name": folder.parent.name, "tag": folder.name, "timestamp": ""}


def link(args: argparse.Namespace) -> None:
    from latent_prior import link as linking

    folder = Path(args.threestudio)
    if args.remove:
        done = linking.unlink(folder)
        print("\n".join(f"removed {path}" for path in done) or f"nothing of ours in {folder / 'custom'}")
        return
    done = linking.link(folder, args.copy)
    print("\n".join(f"{'copied to' if args.copy else 'linked'} {path}" for path in done))
    print(
        f"Now: cd {folder} && python launch.py --config custom/latent_prior.yaml --train --gpu 0 "
        'system.prompt_processor.prompt="a red mug"'
    )


def doctor(args: argparse.Namespace) -> None:
    from latent_prior import doctor as doctoring

    host_arguments.choose(args)
    sys.exit(doctoring.doctor())


def train_pocket(args: argparse.Namespace) -> None:
    from latent_prior.models.checkpoint import POCKET_FOLDER
    from latent_prior.pocket.training.everything import train_everything

    start_from = args.start_from and (POCKET_FOLDER if args.start_from == "pocket" else Path(args.start_from))
    train_everything(Path(args.work), Path(args.out), args.quick, start_from)


def convert_stylegan(args: argparse.Namespace) -> None:
    from latent_prior.generators import stylegan2_files

    print(stylegan2_files.convert(args.source, args.target))


def train_pocket_stylegan(args: argparse.Namespace) -> None:
    from latent_prior.pocket.training.stylegan_everything import train_stylegan

    train_stylegan(Path(args.work), Path(args.out), args.quick, args.path_weight)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="latent-prior",
        description="Text to 3D under a latent diffusion prior, from pip alone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = p.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, action, help: str) -> argparse.ArgumentParser:
        c = commands.add_parser(name, help=help, description=help)
        c.set_defaults(action=action)
        return c

    def with_overrides(c: argparse.ArgumentParser) -> None:
        c.add_argument("overrides", nargs="*", metavar="key=value", help="config values to override")
        c.add_argument("--gpu", default="0", help="GPUs to use; without a GPU the CPU is used")
        host_arguments.add_arguments(c)

    c = command("generate", generate, "make a mesh from a prompt")
    c.add_argument("prompt", help='what to make; the pocket prior knows e.g. "a striped red mug", "a golden duck"')
    c.add_argument("--config", default="latent_prior", help="YAML file, or the name of a shipped config")
    with_overrides(c)

    c = command("resume", resume, "go on with a run that was interrupted, in its own folder")
    c.add_argument("run", metavar="RUN_DIR")
    with_overrides(c)

    c = command("export", export, "write the mesh of a run again, in other formats or resolutions")
    c.add_argument("run", metavar="RUN_DIR")
    c.add_argument("--format", default="glb", help="glb, obj, ply, or several with commas")
    with_overrides(c)

    from latent_prior import edit_masked

    edit_masked.add_arguments(
        commands.add_parser("edit-masked", help="edit a picture inside a mask (blended latent diffusion)")
    )

    c = commands.add_parser("evaluate", help="measure runs against the truth of the pocket world")
    kinds = c.add_subparsers(dest="what", required=True, metavar="what")
    from latent_prior.evaluate import editing, stylegan, text_to_3d

    text_to_3d.add_arguments(kinds.add_parser("text-to-3d", help="text-to-3D runs", description=text_to_3d.HELP))
    editing.add_arguments(kinds.add_parser("editing", help="editors of pictures", description=editing.HELP))
    stylegan.add_arguments(kinds.add_parser("stylegan", help="adapted StyleGAN2 generators", description=stylegan.HELP))

    c = command("link", link, "put the plugin into threestudio's custom/ folder")
    c.add_argument("threestudio", metavar="THREESTUDIO_DIR", help="threestudio's checkout")
    how = c.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="copy instead of linking")
    how.add_argument("--remove", action="store_true", help="take it out again")

    c = command("doctor", doctor, "say what is installed, which host would be used, and what is missing for what")
    c.add_argument("threestudio", metavar="THREESTUDIO_DIR", nargs="?", help="threestudio's checkout")
    c.add_argument("--host", choices=("auto", "embedded", "threestudio"), help="the host to examine (default: auto)")

    c = command("convert-stylegan", convert_stylegan, "convert a StyleGAN2 generator from one file format to another")
    c.add_argument("source", metavar="IN", help="NVIDIA's .pkl, rosinality's .pt or .pth, or our .safetensors")
    c.add_argument("target", metavar="OUT", help=".safetensors (ours), or .pt or .pth (rosinality's); must not be IN")

    c = command("train-pocket", train_pocket, "train the pocket prior from nothing (resumable)")
    c.add_argument("--work", default="outputs/pocket", help="folder for pictures, states and logs")
    c.add_argument("--out", default="outputs/pocket/weights", help="folder for the finished checkpoint")
    c.add_argument(
        "--start-from",
        metavar="FOLDER",
        help="go on from a finished checkpoint (pocket: the shipped one): its autoencoder is kept, its text encoder too "
        "but for the view words, the rest is trained further",
    )
    quick = "a few steps of everything: shows that it runs, trains nothing"
    c.add_argument("--quick", action="store_true", help=quick)

    c = command("train-pocket-stylegan", train_pocket_stylegan, "train the pocket StyleGAN from nothing (resumable)")
    c.add_argument("--work", default="outputs/pocket_stylegan_training", help="folder for pictures, states and logs")
    c.add_argument(
        "--out", default="outputs/pocket_stylegan_training/weights", help="folder for the generator and its figures"
    )
    c.add_argument(
        "--path-weight", type=float, default=0.0, help="of path length regularisation in the GAN's stage (default: 0)"
    )
    c.add_argument("--quick", action="store_true", help=quick)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    from latent_prior.launch import guarded

    p = parser()
    args, rest = p.parse_known_args(argv)
    # argparse gives up on overrides that follow a flag; they are taken wherever they stand
    if rest and not (hasattr(args, "overrides") and all("=" in r and not r.startswith("-") for r in rest)):
        p.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return guarded(lambda: args.action(args))


if __name__ == "__main__":
    sys.exit(main())
