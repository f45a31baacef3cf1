"""Checkpoints of a run: the one it resumes from, and how new ones are written."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning.plugins.io import TorchCheckpointIO

from latent_prior import Diverged, OptionError, host
from latent_prior.files import atomic_write, shown
from latent_prior.files.torch_file import read_torch
from latent_prior.runs import folder as run_folder
from latent_prior.runs.finite import require_finite_checkpoint


@dataclass(frozen=True)
class Saved:
    """The checkpoint that a run resumes from, and its moment of training."""

    path: Path
    epoch: int
    step: int


def read(resume: str) -> Saved:
    """The checkpoint at `resume`. OptionError if it is not one."""
    if not Path(resume).is_file():
        raise OptionError.because(f"resume: {resume!r} is not a checkpoint file; expected ckpts/last.ckpt of a run")
    try:
        _, epoch, step = _loaded(resume)
        if zipfile.is_zipfile(resume) and not run_folder.is_undamaged(Path(resume)):
            raise OptionError.because(f"{resume!r} is damaged: what it holds does not match its checksums", "resume")
    except OptionError as error:
        raise OptionError.because(f"{error}{_instead(Path(resume))}") from error
    return Saved(Path(resume), epoch, step)


def _instead(checkpoint: Path) -> str:
    """The newest readable checkpoint next to an unreadable one, in words."""
    newest = run_folder.newest(checkpoint.parent, beside=checkpoint)
    return "" if newest is None else f"; next to it, {newest[0].name} of step {newest[1]} is readable"


def check_fit(saved: Saved, system: Any) -> None:
    """OptionError unless the checkpoint's tensors match the system's in names and shapes."""
    states = (_loaded(saved.path)[0], system.state_dict())
    there, here = ({name: tuple(value.shape) for name, value in state.items()} for state in states)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise OptionError.because(
                f"resume: {str(saved.path)!r} was written under another config: its {shown(name)} has shape "
                f"{there.get(name, 'none')}, this config's {here.get(name, 'none')}"
            )


def _loaded(path: str | Path) -> tuple[dict[str, Any], int, int]:
    try:
        return host.load_module_weights(str(path), data=False)
    except OptionError as error:
        raise OptionError.because(str(error), "resume") from error


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint next to its destination and renames it; Lightning uses the temporary folder and may copy.

    Neither writes nor reads numbers that are not finite (Diverged). It holds plain data, readable with
    `weights_only=True`: threestudio passes config nodes to optimisers and schedules.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        require_finite_checkpoint(checkpoint)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _make_plain(checkpoint.get("optimizer_states", []))
        _make_plain(checkpoint.get("lr_schedulers", []))
        # through an open file, because torch stores the name of a path in the file
        with atomic_write(path) as beside, beside.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint = read_torch(Path(path))
        try:
            require_finite_checkpoint(checkpoint)
        except Diverged as error:
            bad = f"its {error.quantities[0]} is not finite"
            raise OptionError.because(
                f"{path} is of a run that diverged: {bad}; take an earlier one", "resume"
            ) from error
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove one file: which older checkpoints to remove is what the one says that a run resumed from."""
        path = Path(path)
        if path.suffix == ".ckpt" and path.is_file() and ".." not in path.parts:
            path.unlink()


def _make_plain(value: dict | list) -> None:
    """Replace the OmegaConf nodes inside."""
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        if OmegaConf.is_config(entry):
            value[key] = OmegaConf.to_container(entry, resolve=True)
        elif isinstance(entry, dict | list):
            _make_plain(entry)
