"""CLIP: pictures and texts as unit vectors of one space, and a picture's patches (transformers' `CLIPModel`).

Pictures are B 3 H W in [0, 1]; they are brought to the model's square size whole, not cropped, and everything is
differentiable in them. Weights are frozen and float32. D is the width of the common space, C that of the picture tower,
N the number of patches.
"""

import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from latent_prior import OptionError
from latent_prior.models.checkpoint import POCKET_FOLDER

logger = logging.getLogger(__name__)

KEY = "system.guidance.clip_name_or_path"
# OpenAI's, for folders that state none
IMAGE_MEAN, IMAGE_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PIL_BILINEAR = 2  # how preprocessor_config.json writes it under "resample"


class Clip:
    """One contract over CLIP models of any size: `embed_images`, `embed_texts`, `patch_features`."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer, preprocessor: dict | None = None):
        """preprocessor: what preprocessor_config.json says; of it image_mean, image_std and resample are read."""
        preprocessor = preprocessor or {}
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_size: int = model.config.vision_config.image_size
        self._mean = torch.tensor(preprocessor.get("image_mean", IMAGE_MEAN), device=model.device).view(3, 1, 1)
        self._std = torch.tensor(preprocessor.get("image_std", IMAGE_STD), device=model.device).view(3, 1, 1)
        self._interpolation = "bilinear" if preprocessor.get("resample") == PIL_BILINEAR else "bicubic"

    @classmethod
    def from_pretrained(cls, name: str = "pocket", device: torch.device | str = "cpu") -> "Clip":
        """Load a CLIP: `pocket`, a folder in transformers' layout, or a hub id.

        Raises ValueError, in one line and naming `clip_name_or_path`, for one that is missing, corrupt or no CLIP.
        """
        folder = _located(name)
        preprocessor = folder / "preprocessor_config.json"
        # transformers makes an empty tokenizer of an empty folder
        if not any((folder / file).is_file() for file in ("vocab.json", "tokenizer.json")):
            raise OptionError.because(f"{KEY}: {name!r} has neither vocab.json nor tokenizer.json in {folder}")
        try:
            kind = json.loads((folder / "config.json").read_text()).get("model_type")
            if kind != "clip":
                raise OptionError.because(f"its model_type is {kind!r}; expected 'clip', with both towers")
            # pickled weights, which the oldest CLIPs still have, are read by torch's loader of tensors alone
            model, info = CLIPModel.from_pretrained(
                str(folder), output_loading_info=True, local_files_only=True, weights_only=True
            )
            if info["missing_keys"]:
                lost = sorted(info["missing_keys"])
                raise OptionError.because(f"it lacks {len(lost)} of its tensors, for one {lost[0]!r}")
            tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
            return cls(
                model.to(device), tokenizer, json.loads(preprocessor.read_text()) if preprocessor.is_file() else {}
            )
        except Exception as error:  # the libraries raise anything over a bad file
            raise OptionError.because(f"{KEY}: cannot read {name!r}: {' '.join(str(error).split())}") from error

    def embed_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit embeddings of pictures."""
        return F.normalize(self.project_images(images), dim=-1)

    def project_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Embeddings of pictures before they are brought to unit length."""
        pooled = self.model.vision_model(pixel_values=self._prepared(images)).pooler_output
        return self.model.visual_projection(pooled)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Unit embeddings of texts, without graph; longer ones than the model takes are cut, with a notice."""
        if isinstance(texts, str) or not len(texts):
            raise OptionError.because(f"texts: got {texts!r}; expected a list of at least one string")
        # a tokenizer without a stated limit reports an astronomic one
        length = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        for text, ids in zip(texts, self.tokenizer(list(texts), verbose=False).input_ids, strict=True):
            if len(ids) > length:
                logger.warning("text cut from %d to %d tokens: %r", len(ids), length, text)
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        pooled = self.model.text_model(**tokens.to(self.model.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1)

    def patch_features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """The picture tower's last hidden state at its patches, row by row, the class token left out."""
        return self.model.vision_model(pixel_values=self._prepared(images)).last_hidden_state[:, 1:]

    def self_similarity(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N N"]:
        """Cosines of a picture's patch features with one another: its structure, apart from what it looks like."""
        features = F.normalize(self.patch_features(images), dim=-1)
        return features @ features.mT

    def _prepared(self, images: Tensor) -> Tensor:
        size, images = (self.image_size, self.image_size), images.float()
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode=self._interpolation, align_corners=False, antialias=True)
        return (images - self._mean) / self._std


def _located(name: str) -> Path:
    """The folder of the CLIP a user named, fetched if it must be."""
    if name == "pocket":
        return POCKET_FOLDER / "clip"
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return path
    # what can only be a hub id `owner/name`: the owner must not be a folder here
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) or path.parent.is_dir():
        raise OptionError.because(f"{KEY}: {name!r} does not exist; expected 'pocket', a folder or a hub id")
    safetensors = ["*.json", "*.txt", "model.safetensors", "model-?????-of-?????.safetensors"]
    folder = _fetched(name, safetensors)
    if not list(folder.glob("model*.safetensors")):
        folder = _fetched(name, ["pytorch_model.bin"])
    return folder


def _fetched(hub_id: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    # asked here as well as in huggingface_hub, which reads the variable only once
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=offline))
    except Exception as error:  # every transport has its own errors, and all mean the same here
        reason = "HF_HUB_OFFLINE is set and it is not in the local cache" if offline else " ".join(str(error).split())
        raise OptionError.because(f"{KEY}: cannot fetch {hub_id!r} from the hub: {reason}") from error
