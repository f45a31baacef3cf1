#!/usr/bin/env bash
# The pocket StyleGAN from nothing, with the figures of its model card. Resumable; three quarters of an hour on two cores.
# usage: bash launch_scripts/train_pocket_stylegan.sh [--quick] [--path-weight W] [--work FOLDER] [--out FOLDER]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior train-pocket-stylegan "$@"
