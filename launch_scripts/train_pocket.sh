#!/usr/bin/env bash
# Train the pocket prior, with the figures of its model card. Resumable; hours on two cores, minutes on a GPU.
# usage: bash launch_scripts/train_pocket.sh [--quick] [--work FOLDER] [--out FOLDER]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
latent-prior train-pocket "$@"
