#!/usr/bin/env bash
# Set up, lint, check types and run the tests, two at a time. usage: bash launch_scripts/test.sh [pytest arguments]
# The slow tests are left out; all of them: bash launch_scripts/test.sh -m "slow or not slow"
set -euo pipefail
EXTRAS=dev
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
mypy
# one thread a process: two of two threads each slow one another down
OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile "$@"
