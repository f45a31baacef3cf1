#!/usr/bin/env bash
# Train the pocket StyleGAN from scratch, with the figures of its model card. Resumable; 45 minutes on two cores.
# usage: bash launch_scripts/train_pocket_stylegan.sh [--quick] [--path-weight W] [--work FOLDER] [--out FOLDER]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior train-pocket-stylegan "$@"
