"""Adapters as users write them, and the weights that they name.

A Textual Inversion entry is `name` or `name=word`, a LoRA entry is `name` or `name:scale`. A name is a `.safetensors`
file, a folder that holds one, or a hub id. Pickled files are not read, except for tensors in diffusers' older
`.bin` files.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.tensors import read_tensors
from latent_prior.files.torch_file import read_torch
from latent_prior.models import hub

# How diffusers names the file in a folder.
STEMS = {"textual_inversion": "learned_embeds", "lora": "pytorch_lora_weights"}


@dataclass(frozen=True)
class AdapterFile:
    """One entry.

    field: `textual_inversion` or `lora`. entry: what the user wrote. name: the path or hub id in it. word: the word for
    a Textual Inversion; None uses the file's. scale: the factor that multiplies a LoRA.
    """

    field: str
    entry: str
    name: str
    word: str | None = None
    scale: float = 1.0

    @cached_property
    def path(self) -> Path:
        """The weight file, downloaded if needed. Raises OptionError if there is none."""
        found = self.local() or self._fetched()
        file = self._weights_in(found) if found.is_dir() else found
        if file is None:
            raise OptionError.because(f"{self.entry!r} has no .safetensors file in {found}", self.field)
        if file.suffix not in (".safetensors", ".bin"):
            raise OptionError.because(
                f"{self.entry!r} is not a .safetensors file; pickled files are not read: convert it", self.field
            )
        return file

    def _fetched(self) -> Path:
        """The snapshot folder of a hub id, with as much in it as holds weights."""
        stem = STEMS[self.field]
        for pattern in (f"{stem}.safetensors", "*.safetensors", f"{stem}.bin"):
            folder = hub.snapshot(self.name, [pattern], self.field, repr(self.name))
            if self._weights_in(folder):
                break
        return folder

    def local(self) -> Path | None:
        """The path on this machine; None for a hub id. Raises OptionError for a path that does not exist."""
        return hub.local_path(self.name, self.field, "a .safetensors file, a folder with one, or a hub id")

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file, on the CPU."""
        tensors = read_tensors(self.path) if self.path.suffix == ".safetensors" else read_torch(self.path)
        if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
            raise OptionError.because("expected tensors by name")
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor) and tensor.ndim and not tensor.is_floating_point():  # a scale may be whole
                raise OptionError.because(f"{shown(name)} has the type {tensor.dtype}, expected floating point")
            if isinstance(tensor, Tensor) and not tensor.float().isfinite().all():
                raise OptionError.because(f"{shown(name)} has numbers that are not finite")
        return tensors

    def _weights_in(self, folder: Path) -> Path | None:
        stem = STEMS[self.field]
        if (folder / f"{stem}.safetensors").is_file():
            return folder / f"{stem}.safetensors"
        found = sorted(folder.glob("*.safetensors"))
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:3])
            raise OptionError.because(f"{self.entry!r} has {len(found)} weight files ({names}); name one", self.field)
        older = folder / f"{stem}.bin"
        return found[0] if found else older if older.is_file() else None


@dataclass(frozen=True)
class Adapters:
    """Textual Inversions and LoRAs to apply to a checkpoint."""

    textual_inversion: tuple[AdapterFile, ...] = ()
    lora: tuple[AdapterFile, ...] = ()

    @classmethod
    def parse(cls, textual_inversion: Sequence[str] = (), lora: Sequence[str] = ()) -> "Adapters":
        """Read a user's entries. Raises OptionError for a path that does not exist; downloads nothing."""
        words = tuple(AdapterFile("textual_inversion", entry, *word_entry(entry)) for entry in textual_inversion or ())
        scaled = ((entry, *lora_scale(entry)) for entry in lora or ())
        loras = tuple(AdapterFile("lora", entry, name, scale=scale) for entry, name, scale in scaled)
        for adapter in (*words, *loras):
            adapter.local()
        return cls(words, loras)


def word_entry(entry: str) -> tuple[str, str | None]:
    """(name, word) of an entry `name` or `name=word`; paths may contain an equals sign."""
    name, equals, word = entry.rpartition("=")
    if not equals or "/" in word or word.endswith(hub.WEIGHT_SUFFIXES) or os.path.exists(os.path.expanduser(entry)):
        return entry, None
    if not name or word != "".join(word.split()) or not word:
        raise OptionError("textual_inversion", entry, "path or path=word, where the word has no spaces")
    return name, word


def lora_scale(entry: str) -> tuple[str, float]:
    """(name, scale) of an entry `name` or `name:scale`; a drive letter has no number after its colon."""
    name, colon, text = entry.rpartition(":")
    try:
        scale = float(text) if colon else 1.0
    except ValueError:
        return entry, 1.0
    if not math.isfinite(scale):
        raise OptionError("lora", entry, "a finite scale after the colon")
    return (name, scale) if colon else (entry, scale)
