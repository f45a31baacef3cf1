"""Checkpoints of a run: the one it goes on from, and how new ones are written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO

from latent_prior import OptionError, host
from latent_prior.files import atomic_write


@dataclass(frozen=True)
class Saved:
    """The checkpoint that a run goes on from, and its moment of training."""

    path: Path
    epoch: int
    step: int


def read(resume: str) -> Saved:
    """The checkpoint at `resume`. OptionError for what is not one."""
    if not Path(resume).is_file():
        raise OptionError.because(f"resume: {resume!r} is no checkpoint file; expected ckpts/last.ckpt of a run")
    return Saved(Path(resume), *_loaded(resume)[1:])


def check_fit(saved: Saved, system: Any) -> None:
    """OptionError unless the checkpoint's tensors have the names and shapes of the system's."""
    states = (_loaded(saved.path)[0], system.state_dict())
    there, here = ({name: tuple(value.shape) for name, value in state.items()} for state in states)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise OptionError.because(
                f"resume: {str(saved.path)!r} was written under another config: its {name} has shape "
                f"{there.get(name, 'none')}, this config's {here.get(name, 'none')}"
            )


def _loaded(path: str | Path) -> tuple[dict[str, Any], int, int]:
    try:
        return host.load_module_weights(str(path), map_location="cpu")
    except OptionError as error:
        raise OptionError.because(str(error), "resume") from error


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there; Lightning moves from the temporary folder, which copies.

    It holds plain data, readable with `weights_only=True`: threestudio hands config nodes to optimisers and schedules.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _make_plain(checkpoint.get("optimizer_states", []))
        _make_plain(checkpoint.get("lr_schedulers", []))
        # by an open file, since torch puts the name of a path into what it writes
        with atomic_write(path) as beside, beside.open("wb") as file:
            torch.save(checkpoint, file)


def _make_plain(value: dict | list) -> None:
    """Replace the OmegaConf nodes within."""
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        if OmegaConf.is_config(entry):
            value[key] = OmegaConf.to_container(entry, resolve=True)
        elif isinstance(entry, dict | list):
            _make_plain(entry)
