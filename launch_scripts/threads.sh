#!/usr/bin/env bash
# How far the number of threads moves a result: the main job, 18 steps, with 1 thread, with 2, and with 2 again.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
config="$(dirname "${BASH_SOURCE[0]}")/../custom/latent_prior.yaml"
for run in 1 2 2again; do
    OMP_NUM_THREADS="${run%again}" python "$(dirname "${BASH_SOURCE[0]}")/../launch.py" --config "$config" --train \
        trainer.max_steps=18 data.n_test_views=1 exp_root_dir="$out" name=threads tag="$run" use_timestamp=false > /dev/null
done
python - "$out/threads" <<'END'
import sys
import torch

def features(run):
    return torch.load(f"{sys.argv[1]}/{run}/ckpts/last.ckpt", weights_only=True)["state_dict"]["geometry.features"]

one, two, again = map(features, ("1", "2", "2again"))
print(f"1 against 2 threads: at most {(one - two).abs().max():.3g} in a voxel of the colours (standard deviation {one.std():.2g})")
print(f"2 against 2 threads: at most {(two - again).abs().max():.3g}")
END
