#!/usr/bin/env bash
# What shrinking masks do for a mask of one latent pixel's width, under the pocket prior; pictures in outputs/.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python benchmarks/thin_mask.py
