"""`latent-prior app`: the app in the browser."""

import argparse
from pathlib import Path

from latent_prior import OptionError
from latent_prior.files import user_path

EXAMPLES = """examples:
  latent-prior app
  latent-prior app --port 8000 --out ~/outputs
  ssh -L 7860:127.0.0.1:7860 gpu-box latent-prior app     # then open http://127.0.0.1:7860 here

needs the extra `app`: pip install "latent_prior[app]"
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=app)
    p.epilog = EXAMPLES
    p.add_argument(
        "--listen",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1, this machine alone); everyone who reaches another one can use the app",
    )
    p.add_argument("--port", type=int, default=7860, help="default: 7860")
    p.add_argument("--out", type=Path, default=Path("outputs"), help="folder for runs and uploads (default: outputs)")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once; others wait (default: 1)")
    p.add_argument("--max-upload", type=int, default=100, metavar="MB", help="largest file to upload (default: 100)")


def app(args: argparse.Namespace) -> None:
    """The command."""
    for name, value, least, most in (
        ("--port", args.port, 1, 65535),
        ("--jobs", args.jobs, 1, 64),
        ("--max-upload", args.max_upload, 1, 10_000),
    ):
        if not least <= value <= most:
            raise OptionError(name, value, f"{least} to {most}")
    from latent_prior.app import server, uploads

    server.serve(args.listen, args.port, user_path(args.out), args.jobs, args.max_upload * uploads.MB)
