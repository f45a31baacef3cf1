#!/usr/bin/env bash
# The StyleGAN adaptation results in docs/benchmark.md: five fixed prompts, LSD alone, NADA and the full
# objective. Resumable.
# usage: bash launch_scripts/stylegan.sh [evaluate arguments]     e.g. --seeds 0 1 --jobs 2
set -euo pipefail
EXTRAS=sweep . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior evaluate stylegan --out outputs/stylegan "$@"
