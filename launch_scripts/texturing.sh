#!/usr/bin/env bash
# The texturing results in docs/benchmark.md: 16 fixed pairs of a solid and a look, LSD + FM and LSD alone; then
# restyling, of 16 solids and of one at four weights of lambda_reconstruction. Resumable.
# usage: bash launch_scripts/texturing.sh [evaluate arguments]     e.g. --seeds 0 1 2
set -euo pipefail
EXTRAS=sweep . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior evaluate texturing --out outputs/texturing "$@"
latent-prior evaluate texturing --list restyling --config "LSD + FM=pocket_mesh_texture" --out outputs/restyling "$@"

mug=outputs/restyling_mug
python -c "
from pathlib import Path
from latent_prior.evaluate.texturing.solids import write_painted
from latent_prior.pocket.captions import parse
write_painted(parse('a red mug'), Path('$mug'))"
for weight in 0 1 10 100; do
  [ -n "$(find "$mug/weight_$weight" -path '*-export/*.glb' 2>/dev/null)" ] || latent-prior texture "$mug/a_red_mug.glb" \
    "a golden mug" --start texture system.loss.lambda_reconstruction=$weight exp_root_dir="$mug" name="weight_$weight"
done
latent-prior evaluate texturing --runs "$mug"/weight_* --out "$mug/table"
