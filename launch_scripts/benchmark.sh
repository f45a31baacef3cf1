#!/usr/bin/env bash
# The results in docs/benchmark.md: 16 fixed prompts, the full objective and LSD alone, against the ground truth. Resumable.
# usage: bash launch_scripts/benchmark.sh [evaluate arguments]     e.g. --seeds 0 1 2
set -euo pipefail
EXTRAS=sweep . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior evaluate text-to-3d --config "LSD + FM=latent_prior" --config "LSD alone=pocket_dreamfusion" --out outputs/benchmark "$@"
