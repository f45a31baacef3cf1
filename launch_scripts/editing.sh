#!/usr/bin/env bash
# The editing results in docs/benchmark.md: ten fixed edits, four editors, and ours with the mask given. Resumable.
# usage: bash launch_scripts/editing.sh [evaluate arguments]     e.g. --seeds 0 1 --jobs 2
set -euo pipefail
EXTRAS=sweep . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior evaluate editing --out outputs/editing "$@"
