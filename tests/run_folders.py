"""Folders of runs as commands leave them, without the runs."""

import json
from pathlib import Path

import numpy as np
import trimesh
from latent_prior.files.pictures import to_picture
from latent_prior.meshes.files import save_mesh
from PIL import Image
from torch import full

CONFIG = """\
name: ours
tag: run
seed: 3
system:
  prompt_processor: {prompt: "%s"}
  guidance: {guidance_scale: %s}
trainer: {max_steps: 20}
"""


def plain(path: Path, colour: tuple[float, float, float], side: int = 32) -> None:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_picture(full((3, side, side), 1.0) * full((3, 1, 1), 1.0).new_tensor(colour)[:, None, None]).save(path)


def write_run(run: Path, prompt: str = "a red <mug> & more", colour=(0.8, 0.1, 0.1)) -> Path:
    """A finished run of an experiment, with everything that a page can show."""
    save, configs = run / "save", run / "configs"
    (save / "it20-export").mkdir(parents=True)
    configs.mkdir()
    (configs / "raw-ours.yaml").write_text(CONFIG % ("a mug", "100.0"))
    for name in ("parsed.yaml", "unresolved.yaml"):
        (configs / name).write_text(CONFIG % (prompt, "7.5"))
    origin = {"seed": 3, "threads": 2, "host": "embedded", "versions": {"torch": "2.13.0"}}
    origin["command"] = ["/somewhere/bin/latent-prior", "generate", prompt, "system.guidance.guidance_scale=7.5"]
    (configs / "origin.json").write_text(json.dumps(origin))
    launches = [{"began": "2026-01-01 12:00:00", "seconds": {"train": 100.0}}, {"seconds": {"train": 50.0, "test": 3}}]
    (configs / "launches.json").write_text(json.dumps(launches))
    ball = trimesh.creation.icosphere(2, 0.5)
    rgb = (np.array(colour) * 255).astype(np.uint8)
    ball.visual.vertex_colors = np.tile(rgb, (len(ball.vertices), 1))
    save_mesh(ball, save / "it20-export" / "model.glb")
    for step in (10, 2):
        plain(save / f"it{step}-0.png", (step / 10, 0, 0))
    plain(save / "before.png", (1, 1, 1), 64)
    plain(save / "after.png", colour, 64)
    for frame in range(8):
        plain(save / "it20-test" / f"{frame}.png", colour)
    log = run / "csv_logs" / "version_0"
    log.mkdir(parents=True)
    rows = "".join(f"{step},{1 / (step + 1)},{step}\n" for step in range(20))
    (log / "metrics.csv").write_text("step,train/loss,train/loss_sds\n" + rows)
    return run


def write_film(path: Path) -> None:
    """A short MP4."""
    import imageio.v3 as iio

    frames = [np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    iio.imwrite(path, np.stack(frames), fps=10, codec="libx264")


def write_evaluation(out: Path) -> Path:
    """What an evaluation leaves: three runs of two variants, one without a result."""
    rows = []
    made = [("ours", "a red mug", 0, 20.0), ("LSD", "a red mug", 0, 25.5), ("ours", "a duck", 1, None)]
    for label, prompt, seed, psnr in made:
        name = f"{label.lower()}-abc/{prompt.replace(' ', '_')}-seed{seed}"
        run = write_run(out / "runs" / name, prompt) if psnr else out / "runs" / name
        if psnr:
            strip = Image.new("RGB", (4 * 48, 48), "red" if label == "ours" else "green")
            for part in (f"results/{name}.png", f"results/truth/{prompt.replace(' ', '_')}.png"):
                (out / part).parent.mkdir(parents=True, exist_ok=True)
                strip.save(out / part)
        row = {"label": label, "prompt": prompt, "seed": seed, "run": str(run), "missed": psnr is None}
        row |= {
            "error": None if psnr else "no checkpoint",
            "shown": {"PSNR": f"{psnr} dB"} if psnr else {},
            "psnr": psnr,
        }
        row |= {"strip": f"results/{name}.png", "truth": f"results/truth/{prompt.replace(' ', '_')}.png"}
        rows.append(row)
    reference = {"label": "truth", "prompt": "a red mug", "seed": None, "run": ""}
    (out / "summary.json").write_text(
        json.dumps({"title": "Ours against LSD", "columns": {"PSNR": "psnr"}, "runs": [reference, *rows]})
    )
    return out
