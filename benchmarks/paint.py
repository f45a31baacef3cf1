"""`latent-prior paint` on the benchmark's prompts: which pictures the judge names right, and the seconds from launch.

usage: python benchmarks/paint.py [arguments of latent-prior paint]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from latent_prior.evaluate.text_to_3d.prompts import benchmark
from latent_prior.files.pictures import read_picture, to_picture, to_tensor
from latent_prior.pocket.judge import Judge


def main() -> None:
    judge, right, slowest, pictures = Judge.load(), 0, 0.0, []
    for prompt in benchmark():
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            command = [sys.executable, "-m", "latent_prior", "paint", prompt, *sys.argv[1:], "--out", folder]
            subprocess.run(command, check=True, capture_output=True)
            seconds = time.monotonic() - start
            pictures.append(to_tensor(read_picture(Path(folder) / "picture.png", "paint")))
        (seen,) = judge.classify(pictures[-1][None])
        right, slowest = right + (seen.caption == prompt), max(slowest, seconds)
        said = "right" if seen.caption == prompt else f"named {seen.caption}"
        print(f"{prompt}: {said}, {seconds:.1f} s from launch", flush=True)
    print(f"\n{right} of {len(pictures)} named right; {slowest:.1f} s at most")
    sheet = Path("outputs") / "paint.png"
    sheet.parent.mkdir(exist_ok=True)
    to_picture(torch.cat([torch.cat(pictures[i : i + 8], 2) for i in (0, 8)], 1)).save(sheet)
    print(sheet)


if __name__ == "__main__":
    main()
