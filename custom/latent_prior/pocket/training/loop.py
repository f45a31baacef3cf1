"""The training loop shared by all pocket models: resumable, seeded, logged to CSV, with time left.

A run has one folder: `state.pt` (weights, optimiser, step, RNG), `log.csv`, and `done` when it has finished. Called
again after a crash or an interruption, it continues from the last state; called when done, it only loads the weights.
"""

import contextlib
import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from latent_prior.files import atomic_write
from latent_prior.files.refusals import naming
from latent_prior.files.torch_file import read_torch
from latent_prior.prior import require_finite

SAVE_EVERY = 120.0  # seconds between saved states
LOG_EVERY = 50  # steps between rows of the log


def mixed_precision(device: torch.device):
    """bf16 autocast if the hardware has fast bf16 matrix products (CUDA, or a CPU with AMX), else float32."""
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16) if fast else contextlib.nullcontext()


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then cosine decay to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item()))


def train(
    folder: Path,
    model: nn.Module,
    loss: Callable[[torch.Generator], tuple[Tensor, dict[str, float]]],
    steps: int,
    peak_lr: float,
    seed: int,
    weight_decay: float = 0.0,
    ema: nn.Module | None = None,
    ema_decay: float = 0.999,
    label: str = "training",
    betas: tuple[float, float] = (0.9, 0.99),
    faster: tuple[nn.Parameter, float] | None = None,
) -> None:
    """Minimise `loss(generator)`, which draws its own batch and returns the loss and values to log.

    `faster` is a parameter of the model that has another learning rate: the usual one times a factor, without decay of
    its weights. `ema`, a copy of the model, follows its weights as an exponential moving average. Raises Diverged if the
    loss, a gradient or what would be saved is not finite; the last saved state stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups: list[dict] = [{"params": list(model.parameters()), "factor": 1.0}]
    if faster is not None:
        groups[0]["params"] = [parameter for parameter in model.parameters() if parameter is not faster[0]]
        groups.append({"params": [faster[0]], "factor": faster[1], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=peak_lr, betas=betas, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    first = 0
    state_file, log_file = folder / "state.pt", folder / "log.csv"
    if state_file.exists():
        state = read_torch(state_file)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["rng"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
        first = state["step"]

    def save(step: int) -> None:
        moments = optimizer.state_dict()
        state = {
            "model": model.state_dict(),
            "optimizer": moments,
            "step": step,
            "rng": generator.get_state(),
            "ema": ema.state_dict() if ema is not None else None,
        }
        parts = [state["model"], state["ema"] or {}, *moments["state"].values()]
        for part in parts:
            require_finite(part, f"{label} is not saved at step {step}; its learning rate is too high")
        with atomic_write(state_file) as beside:
            torch.save(state, beside)

    saved = started = time.monotonic()
    model.train()
    for step in tqdm(range(first, steps), initial=first, total=steps, desc=label, unit="step", mininterval=5.0):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_lr) * group["factor"]
        before = generator.get_state(), [buffer.clone() for buffer in model.buffers()]
        try:
            value, figures = loss(generator)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
        except KeyboardInterrupt:  # nearly always here; elsewhere the last state stays
            generator.set_state(before[0])
            for buffer, value in zip(model.buffers(), before[1], strict=True):
                buffer.copy_(value)
            save(step)
            raise
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        require_finite({f"{label}: the loss": value, "the norm of its gradient": norm}, f"step {step} is not applied")
        optimizer.step()
        if ema is not None:
            decay = min(ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
        if (step + 1) % LOG_EVERY == 0:
            row = {"step": step + 1, "seconds": round(time.monotonic() - started, 1), "loss": value.item(), **figures}
            new = not log_file.exists()
            with naming(log_file), log_file.open("a", newline="") as f:
                writer = csv.DictWriter(f, list(row))
                if new:
                    writer.writeheader()
                writer.writerow(row)
        if time.monotonic() - saved > SAVE_EVERY:
            save(step + 1)
            saved = time.monotonic()
    if first < steps:
        save(steps)
    model.eval()
