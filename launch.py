"""Run an experiment: `python launch.py --config custom/latent_prior.yaml [--train|--test|--export] key=value`."""

import sys
from pathlib import Path

# a clone runs without being installed, as long as its dependencies are
sys.path.insert(0, str(Path(__file__).resolve().parent / "custom"))

from latent_prior.cli.launch import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
