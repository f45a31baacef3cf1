#!/usr/bin/env bash
# docs/app.png, in about two minutes; needs Debian's chromium. usage: bash launch_scripts/screenshots.sh [--steps N]
set -euo pipefail
EXTRAS=dev . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python launch_scripts/screenshots.py "$@"
