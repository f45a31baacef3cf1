#!/usr/bin/env bash
# The README's texturing results: 16 fixed pairs of a solid and a look, LSD + FM and LSD alone; then restyling. Resumable.
# usage: bash launch_scripts/texturing.sh [evaluate arguments]     e.g. --seeds 0 1 2
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior evaluate texturing --out outputs/texturing "$@"
latent-prior evaluate texturing --list restyling --config "LSD + FM=pocket_mesh_texture" --out outputs/restyling "$@"
