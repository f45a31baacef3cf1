"""Room for a run's checkpoints, checked before it trains."""

import tempfile
from pathlib import Path
from typing import Any

from latent_prior.files.refusals import NotWritten, require_room

STATES = {"adam": 2, "adan": 3, "lion": 1, "rmsprop": 1}  # tensors that an optimiser keeps for each parameter


def check(folder: Path, cfg: Any, system: Any, step: int) -> None:
    """OptionError unless a run from `step` on has room for its checkpoints, and a folder for temporary files.

    Counted are parameters, buffers and the optimiser's state, times the files that exist at once. Logs, pictures and
    the mesh come on top: their size is not known before.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise NotWritten.because(f"{error.strerror}, and an export needs one: set TMPDIR to a folder") from error
    size = _size(system, str(cfg.system.get("optimizer", {}).get("name", "")))
    files = 1 if step else _files(cfg.checkpoint, int(cfg.trainer.get("max_steps") or 0))  # resumed: one is replaced
    require_room(folder, size * files, f"the run, for {files} checkpoints at once," if files > 1 else "the checkpoint")


def _size(system: Any, optimizer: str) -> int:
    """Bytes of a checkpoint, at least."""
    state = sum(value.numel() * value.element_size() for value in system.state_dict().values())
    trained = sum(value.numel() * value.element_size() for value in system.parameters() if value.requires_grad)
    return state + trained * next((number for name, number in STATES.items() if name in optimizer.lower()), 0)


def _files(options: Any, max_steps: int) -> int:
    """How many checkpoints a new run has at most at once, the one being written included."""
    due = max_steps // (options.get("every_n_train_steps") or max_steps + 1)
    kept = options.get("save_top_k", 1)
    numbered = min(due, 2 if kept == -1 else kept)  # -1 keeps all, but the user may remove some meanwhile
    return numbered + 1 + (due > 0 and bool(options.get("save_last")))  # last.ckpt, and a newer one beside it
