#!/usr/bin/env bash
# Set up, and build the pages of docs/ as a site into site/, which opens from disk: site/index.html
# A warning, such as a dead link, is an error. usage: bash launch_scripts/docs.sh [mkdocs build's arguments]
set -euo pipefail
EXTRAS=docs
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export NO_MKDOCS_2_WARNING=1  # a notice of the theme's makers
mkdocs build --strict "$@"
