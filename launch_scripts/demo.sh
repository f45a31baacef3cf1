#!/usr/bin/env bash
# The main job: set up, turn a prompt into a coloured mesh, print the files.
# usage: bash launch_scripts/demo.sh ["a prompt"] [key=value ...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prompt="a red mug"
if [ $# -gt 0 ] && [[ "$1" != *=* ]]; then
  prompt="$1"
  shift
fi
python launch.py --config custom/latent_prior.yaml system.prompt_processor.prompt="$prompt" "$@"
