#!/usr/bin/env bash
# The effect of progressive mask shrinking on a mask one latent pixel wide, with the pocket prior; pictures in outputs/.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python benchmarks/thin_mask.py
