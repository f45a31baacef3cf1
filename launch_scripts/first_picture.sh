#!/usr/bin/env bash
# The README's first picture: the sheets of benchmark.sh and texturing.sh, of the same 16 prompts, side by side.
# usage: bash launch_scripts/first_picture.sh docs/contact_sheet.png docs/texturing.png docs/first_picture.png
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python - "$@" <<'PYTHON'
import sys

from latent_prior.evaluate.bench.contact_sheet import FAINT, GAP, MARGIN, TILE
from latent_prior.evaluate.text_to_3d.views import SHEET_AZIMUTHS
from PIL import Image, ImageDraw, ImageFont

generated, textured = (Image.open(path).convert("RGB") for path in sys.argv[1:3])
column, start = len(SHEET_AZIMUTHS) * TILE + GAP, MARGIN
picture = Image.new("RGB", (start + 3 * column - GAP + MARGIN, generated.height), "white")
picture.paste(generated.crop((0, 0, start + 2 * column - GAP, generated.height)))
picture.paste(textured.crop((start + column, 0, start + 2 * column - GAP, generated.height)), (start + 2 * column, 0))
pen = ImageDraw.Draw(picture)
for place, heading in ((1, "text to 3D"), (2, "the true mesh, textured")):
    pen.text((start + place * column, MARGIN + 6), heading, FAINT, ImageFont.load_default(17))
picture.quantize(256, dither=Image.Dither.NONE).save(sys.argv[3], optimize=True)
PYTHON
