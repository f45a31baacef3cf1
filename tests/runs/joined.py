"""launch.py, or the console script after `--main`, in a run of several processes on the CPU: JOINED of them, or two.

ALIKE=1: what is drawn in training is drawn once for the batch of all processes, and each takes its own part; then a run
of two processes has the pictures of one process with twice the batch. `STRIKE=rank:step:signal[:group]` sends a signal to
that process (or its group) as that step begins; for the signal `error` it raises an error instead. DRAWN=folder: each
process notes there what it draws.
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "custom")]

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from latent_prior import OptionError  # noqa: E402
from latent_prior.host import ranks  # noqa: E402
from latent_prior.runs import gpus  # noqa: E402
from latent_prior.runs.resume import ExactResume  # noqa: E402

gpus.CPU_PROCESSES = int(os.environ.get("JOINED", "2"))


def draw_alike() -> None:
    """From the start of training on, one stream of random numbers for all processes, shared out by rows."""
    from latent_prior.data.one_picture import RandomCrops
    from latent_prior.systems import hollowing

    hollowing.DESCRIBED = float("inf")  # a random prior describes nothing, and would hollow nothing
    originals = {name: getattr(torch, name) for name in ("rand", "randn", "randint", "rand_like", "randn_like")}

    def shared(name: str, rows: int, *rest: int, **options):
        counts = ranks.gathered(rows)
        start = sum(counts[: ranks.rank()])
        low_high = options.pop("bounds", ())
        return originals[name](*low_high, (sum(counts), *rest), **options)[start : start + rows].clone()

    def of_size(name: str):
        def drawn(*size, generator=None, **options):
            shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
            if generator is not None or not shape or tuple(shape) in ((7,), (4096, 3)):  # not by pictures
                return originals[name](*size, generator=generator, **options)
            return shared(name, *shape, **options)

        return drawn

    def integers(low, high, size, generator=None, **options):
        if generator is not None or not size:
            return originals["randint"](low, high, size, generator=generator, **options)
        return shared("randint", *size, bounds=(low, high), **options)

    torch.rand, torch.randn, torch.randint = of_size("rand"), of_size("randn"), integers
    torch.rand_like = lambda x: shared("rand", *x.shape, dtype=x.dtype)
    torch.randn_like = lambda x: shared("randn", *x.shape, dtype=x.dtype)
    draw = RandomCrops._draw
    RandomCrops._draw = lambda crops: [draw(crops) for _ in range(ranks.world())][ranks.rank()]


def on_fit_start(self, trainer, system) -> None:
    if os.environ.get("ALIKE"):
        draw_alike()
        pl.seed_everything(11, verbose=False)


def on_train_batch_start(self, trainer, system, batch, batch_idx) -> None:
    resumed(self, trainer, system, batch, batch_idx)
    if folder := os.environ.get("DRAWN"):
        camera = {key: batch[key].tolist() for key in ("azimuth", "z") if key in batch}
        with (Path(folder) / f"{ranks.rank()}.jsonl").open("a") as file:
            file.write(json.dumps({"step": trainer.global_step, **camera, "next": peek()}) + "\n")
    if strike := os.environ.get("STRIKE"):
        rank, step, number, *group = strike.split(":")
        if (ranks.rank(), trainer.global_step) == (int(rank), int(step)):
            if number == "error":
                raise OptionError("size", 3, "2")
            if note := os.environ.get("STRUCK"):  # when
                Path(note).touch()
            (os.killpg if group else os.kill)(os.getpgid(0) if group else os.getpid(), getattr(signal, number))


def peek() -> float:
    """The next random number, which is drawn again."""
    with torch.random.fork_rng(devices=[]):
        return torch.rand(()).item()


resumed = ExactResume.on_train_batch_start
ExactResume.on_fit_start, ExactResume.on_train_batch_start = on_fit_start, on_train_batch_start

if __name__ == "__main__":
    if "--main" in sys.argv:
        sys.argv.remove("--main")
        os.environ["JOINED_MAIN"] = "1"  # the other processes are started with what is left
    if os.environ.get("JOINED_MAIN"):
        from latent_prior.cli import main
    else:
        from latent_prior.cli.launch import main
    sys.exit(main())
