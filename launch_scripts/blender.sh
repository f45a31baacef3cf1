#!/usr/bin/env bash
# The picture of meshes in Blender in docs/benchmark.md: eight results of the main job, as they are written. Needs Blender
# (Debian: apt-get install blender python3-numpy). Resumable.
# usage: bash launch_scripts/blender.sh [docs/blender.png] [key=value ...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
picture=outputs/blender/blender.png
if [ $# -gt 0 ] && [[ "$1" != *=* ]]; then
  picture="$1"
  shift
fi
out=outputs/blender
mkdir -p "$out/meshes"
prompts=("a red sphere" "an orange cube" "a green cone" "a turquoise house" "a golden chair" "a red mug" "a blue jug" "a white rocket")
for prompt in "${prompts[@]}"; do
  name="${prompt// /_}"
  [ -f "$out/meshes/$name.glb" ] && continue
  latent-prior generate "$prompt" exp_root_dir="$out" name=runs "$@"
  newest="$(ls -td "$out/runs/$name"@* | head -1)"
  cp "$newest"/save/*-export/model.glb "$out/meshes/$name.glb"
done
blender -b --python launch_scripts/blender.py -- "$out/meshes" "$out"/meshes/*.glb > "$out/blender.log"
python - "$out/meshes" "$picture" "${prompts[@]}" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

folder, target, *prompts = sys.argv[1:]
rows = [[Image.open(Path(folder, f"{prompt.replace(' ', '_')}-{view}.png")).convert("RGB") for prompt in prompts] for view in (0, 1)]
side = rows[0][0].width
sheet = Image.new("RGB", (side * 4, (2 * side + 24) * 2), "white")
pen = ImageDraw.Draw(sheet)
for number, prompt in enumerate(prompts):
    x, y = number % 4 * side, number // 4 * (2 * side + 24)
    pen.text((x + side / 2, y + 4), prompt, (28, 30, 34), ImageFont.load_default(16), anchor="ma")
    for view in (0, 1):
        sheet.paste(rows[view][number], (x, y + 24 + view * side))
sheet.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
PYTHON
