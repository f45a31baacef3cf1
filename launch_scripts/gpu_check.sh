#!/usr/bin/env bash
# All checks that need a GPU, in one report: half precision, tiny-cuda-nn and nerfacc if installed, the main job on
# CUDA, and the cost of a guidance step at Stable Diffusion 1.5's size compared with threestudio's.
# usage: [THREESTUDIO_ROOT=~/threestudio] bash launch_scripts/gpu_check.sh [report file; default outputs/gpu_check.md]
set -uo pipefail
EXTRAS=dev . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
report="${1:-outputs/gpu_check.md}"
mkdir -p "$(dirname "$report")"
python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "error: torch sees no GPU here (latent-prior doctor says why); the other tests are in launch_scripts/test.sh" >&2
  exit 2
}

failed=0
section() { # title, command ...: runs it, with output to the report and the screen
  printf '\n## %s\n\n`%s`\n\n```\n' "$1" "${*:2}" | tee -a "$report"
  "${@:2}" 2>&1 | tr '\r' '\n' | grep -v 'step/s' | tee -a "$report"
  local code=${PIPESTATUS[0]}
  printf '```\n\nexit code %s\n' "$code" | tee -a "$report"
  [ "$code" -eq 0 ] || failed=1
}

printf '# GPU check, %s\n' "$(date -u +%Y-%m-%d)" > "$report"
section "Machine" nvidia-smi
section "What is installed" latent-prior doctor
section "Half precision, tiny-cuda-nn, nerfacc" python -m pytest -q -rs tests/test_cuda.py
section "The main job on CUDA" bash -c 'time python launch.py --config custom/latent_prior.yaml --host embedded'
section "Guidance step, latents" python benchmarks/guidance_step.py --input latents --options
section "Guidance step, pictures" python benchmarks/guidance_step.py --input pictures --options
if [ -n "${THREESTUDIO_ROOT:-}" ]; then
  section "Inside threestudio" python -m pytest -q -rs tests/host/test_on_threestudio.py tests/host/test_threestudio.py
fi
echo
echo "Report: $report"
exit $failed
