#!/usr/bin/env bash
# The cost of a guidance step at Stable Diffusion 1.5's size, threestudio's and ours: the table in docs/threestudio.md. An
# hour on two cores; nothing is downloaded, the networks have random weights.
# usage: THREESTUDIO_ROOT=~/threestudio bash launch_scripts/step_cost.sh [benchmark arguments]
set -euo pipefail
: "${THREESTUDIO_ROOT:?set it to the folder of a threestudio checkout}"
EXTRAS=threestudio
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python benchmarks/guidance_step.py --options --out outputs/step_cost.md "$@"
