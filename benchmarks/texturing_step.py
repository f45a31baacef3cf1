"""The share of rendering in the training time of `pocket_mesh_texture`, for the sixteen pairs of `evaluate texturing`.

    python benchmarks/texturing_step.py
    python benchmarks/texturing_step.py --steps 200 --prompts "a yellow mug"

Schedules scale with the steps, so that a short run has the steps of a long one. Rendering is the renderer's call: what
is seen, silhouettes, the field's colours there. A step also has the prior, both backward passes and the optimiser. The
first three steps are not counted.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from latent_prior import host
from latent_prior.evaluate.text_to_3d.prompts import benchmark
from latent_prior.evaluate.texturing.solids import write_solid
from latent_prior.pocket.captions import parse
from latent_prior.runs import experiment
from latent_prior.runs.folder import config_path

WARM = 3


def measure(prompt: str, steps: int, folder: Path) -> tuple[float, float]:
    """(seconds of rendering, seconds of all) over the steps but the first three."""
    import pytorch_lightning as pl

    class Watch(pl.Callback):
        rendering = training = started = 0.0

        def on_train_batch_start(self, trainer: Any, system: Any, *_: Any) -> None:
            self.counted = trainer.global_step >= WARM
            self.started = time.perf_counter()

        def on_train_batch_end(self, *_: Any) -> None:
            self.training += self.counted * (time.perf_counter() - self.started)

    given = {"mesh": write_solid(parse(prompt).kind, folder), "prompt": prompt, "steps": steps}
    keys = {"mesh": "system.geometry.mesh", "prompt": "system.prompt_processor.prompt", "steps": "trainer.max_steps"}
    changes = [f"{key}={given[name]}" for name, key in keys.items()]
    cfg = host.load_config(str(config_path("pocket_mesh_texture")), cli_args=changes)
    pl.seed_everything(0)
    system, data = host.find(cfg.system_type)(cfg.system), host.find(cfg.data_type)(cfg.data)
    watch, render = Watch(), system.renderer.forward

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        out = render(*args, **kwargs)
        watch.rendering += watch.counted * (time.perf_counter() - start)
        return out

    system.renderer.forward = timed
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_steps=steps, limit_val_batches=0, accelerator="cpu", callbacks=[watch], **quiet)
    trainer.fit(system, data)
    return watch.rendering, watch.training


def main() -> None:
    """Print a line for each prompt, and the mean."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=23, help="steps of training for each prompt (default: 23)")
    p.add_argument("--prompts", nargs="*", default=benchmark(), help="default: the sixteen of the benchmark")
    args = p.parse_args()
    experiment.load()
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        for prompt in args.prompts:
            rendering, training = measure(prompt, args.steps, Path(folder))
            per_step = 1000 / (args.steps - WARM)
            shares.append(rendering / training)
            print(f"{prompt}: rendering {rendering * per_step:.0f} of {training * per_step:.0f} ms, {shares[-1]:.1%}")
    print(f"mean: {sum(shares) / len(shares):.1%}")


if __name__ == "__main__":
    main()
