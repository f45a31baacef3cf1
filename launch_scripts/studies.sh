#!/usr/bin/env bash
# The studies of scores and of decoder-side terms: tables, paired.csv and paired.png with 95 % intervals. Resumable; on
# two cores the first takes the better part of a day, the second a third of that.
# usage: bash launch_scripts/studies.sh [evaluate arguments]     e.g. --jobs 2, or --on slurm --partition gpu
set -euo pipefail
EXTRAS=sweep . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
for study in scores latent-terms; do
  latent-prior evaluate text-to-3d --study "$study" "$@"
done
