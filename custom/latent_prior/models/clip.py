"""CLIP: embeds pictures and texts as unit vectors in one space, and gives patch features (transformers' `CLIPModel`).

Pictures are B 3 H W in [0, 1]; they are resized, not cropped, to the model's square size, and everything is
differentiable in them. Weights are frozen and float32. D is the width of the common space, C that of the picture tower,
N the number of patches.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.json_file import read_config, read_json
from latent_prior.files.tensors import read_tensors
from latent_prior.files.torch_file import read_torch
from latent_prior.models import hub
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.models.configs import check_layers, check_tokenizer
from latent_prior.models.weights import VARIANTS, has_weights, weight_files, weight_patterns

logger = logging.getLogger(__name__)

KEY = "clip_name_or_path"
# OpenAI's, for folders that have none
IMAGE_MEAN, IMAGE_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PIL_BILINEAR = 2  # how preprocessor_config.json writes it under "resample"


class Clip:
    """One interface to CLIP models of any size: `embed_images`, `embed_texts`, `patch_features`."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer, preprocessor: dict | None = None):
        """preprocessor: the content of preprocessor_config.json; uses image_mean, image_std and resample."""
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

        Raises OptionError, in one line and naming `clip_name_or_path`, if it is missing, corrupt or not a CLIP.
        """
        folder = _located(name)
        preprocessor = folder / "preprocessor_config.json"
        # transformers makes an empty tokenizer from an empty folder
        if not any((folder / file).is_file() for file in ("vocab.json", "tokenizer.json")):
            raise OptionError.because(f"{name!r} has neither vocab.json nor tokenizer.json in {folder}", KEY)
        try:
            config = read_config(folder / "config.json")
            if config.get("model_type") != "clip":
                raise ValueError(
                    f"its model_type is {shown(str(config.get('model_type')))!r}; expected 'clip', with both towers"
                )
            state = _weights(folder)
            check_layers(config, len(state))
            model, info = CLIPModel.from_pretrained(
                None, config=CLIPConfig.from_dict(config), state_dict=state, output_loading_info=True
            )
            if info["missing_keys"]:
                lost = sorted(info["missing_keys"])
                raise ValueError(f"it lacks {len(lost)} of its tensors, for example {lost[0]!r}")
            check_tokenizer(folder)
            tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
            return cls(model.to(device), tokenizer, read_json(preprocessor) if preprocessor.is_file() else {})
        except Exception as error:  # the libraries raise many types of errors for a bad file
            raise OptionError.because(f"cannot read {name!r}: {hub.one_line(error)}", KEY) from error

    def embed_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit embeddings of pictures."""
        return F.normalize(self.project_images(images), dim=-1)

    def project_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Embeddings of pictures before normalisation to unit length."""
        pooled = self.model.vision_model(pixel_values=self._prepared(images)).pooler_output
        return self.model.visual_projection(pooled)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Unit embeddings of texts, without gradients; texts too long for the model are cut, with a warning."""
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts: got {texts!r}; expected a list of at least one string")
        # a tokenizer without a stated limit reports an astronomical one
        length = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        for text, ids in zip(texts, self.tokenizer(list(texts), verbose=False).input_ids, strict=True):
            if len(ids) > length:
                logger.warning("text cut from %d to %d tokens: %r", len(ids), length, text)
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        pooled = self.model.text_model(**tokens.to(self.model.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1)

    def reward(self, texts: Sequence[str]) -> Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B"]]:
        """How well pictures show their texts, one for all or one each: CLIP's logits, 100 times the cosine."""
        embedded = self.embed_texts(texts)
        return lambda images: 100 * (self.embed_images(images) * embedded).sum(dim=-1)

    def patch_features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """The picture tower's last hidden state at its patches, row by row, without the class token."""
        return self.model.vision_model(pixel_values=self._prepared(images)).last_hidden_state[:, 1:]

    def self_similarity(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N N"]:
        """Cosine similarities between a picture's patch features: its structure, independent of its appearance."""
        features = F.normalize(self.patch_features(images), dim=-1)
        return features @ features.mT

    def _prepared(self, images: Tensor) -> Tensor:
        size, images = (self.image_size, self.image_size), images.float()
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode=self._interpolation, align_corners=False, antialias=True)
        return (images - self._mean) / self._std


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder; those of the oldest CLIPs are pickled."""
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file() and not any(has_weights(folder, "model", variant) for variant in VARIANTS):
        state = read_torch(pickled)
    else:
        state = {}
        for file in weight_files(folder, "model"):
            state |= read_tensors(file)
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise ValueError(f"{pickled} holds more than tensors")
    return state


def _located(name: str) -> Path:
    """The folder of the CLIP a user named, downloaded if needed."""
    if name == "pocket":
        return POCKET_FOLDER / "clip"
    path = hub.local_path(name, KEY, "'pocket', a folder or a hub id")
    if path is not None:
        if not path.is_dir():
            raise OptionError.because(f"{name!r} is a file; expected 'pocket', a folder or a hub id", KEY)
        return path
    for variant in VARIANTS:
        folder = hub.snapshot(name, ["*.json", "*.txt", *weight_patterns("model", variant)], KEY, repr(name))
        if has_weights(folder, "model", variant):
            return folder
    return hub.snapshot(name, ["pytorch_model.bin"], KEY, repr(name))
