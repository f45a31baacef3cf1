#!/usr/bin/env bash
# What many runs cost, as docs/scale.md has it: about 15 minutes on two idle cores.
# usage: bash launch_scripts/scale.sh [--quick] [--slurm]
set -euo pipefail
EXTRAS=sweep . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python benchmarks/many_runs.py "$@"
