"""The CLIP that scores adapted generators: a picture's embedding, and how near it is to a text.

It only ever scores; nothing is trained or tuned against it. The pocket prior's judge is the default; any other CLIP can
stand in, since `models/clip.py` reads a picture's normalisation from the checkpoint.
"""

import hashlib
import json

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.clip import KEY, Clip
from latent_prior.pocket.captions import Subject, every_subject


class ClipJudge(Clip):
    """Embeds pictures, and names them by the nearest caption of the pocket world."""

    @classmethod
    def load(cls, name: str, device: torch.device | str = "cpu") -> "ClipJudge":
        """A folder in transformers' layout or a hub id. Raises ValueError that names --judge."""
        try:
            return cls.from_pretrained(name, device)
        except ValueError as error:
            raise OptionError.because(f"--judge: {str(error).removeprefix(f'{KEY}: ')}") from error

    @property
    def digest(self) -> str:
        """Of the weights and of how pictures are prepared."""
        preparation = [
            self.image_size,
            self._interpolation,
            self._mean.flatten().tolist(),
            self._std.flatten().tolist(),
        ]
        digest = hashlib.sha256(json.dumps(preparation).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def project_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Embeddings before they are brought to unit length: what the picture tower and its projection make."""
        pooled = self.model.vision_model(pixel_values=self._prepared(images.to(self.model.device))).pooler_output
        return self.model.visual_projection(pooled)

    def nearest(self, embeddings: Float[Tensor, "B D"]) -> Int[Tensor, " B"]:
        """Which of `every_subject()` each picture shows, by its unit embedding."""
        if not hasattr(self, "_captions"):
            self._captions = self.embed_texts([subject.caption for subject in every_subject()])
        return (embeddings.to(self._captions) @ self._captions.T).argmax(1)

    def recognised(self, embeddings: Float[Tensor, "B D"], subject: Subject) -> float:
        """The share of pictures that show `subject` in kind, colour and surface."""
        return (self.nearest(embeddings) == every_subject().index(subject)).double().mean().item()
