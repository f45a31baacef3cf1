"""The judge: a CLIP that classifies pictures. It is used only for scoring; nothing is trained or tuned against it.

A picture is classified by the nearest of all captions of the pocket world. The default is the pocket prior's judge; any
other CLIP can be used.
"""

import hashlib
import json
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.models.clip import KEY, Clip
from latent_prior.pocket.captions import Subject, every_subject

POCKET_JUDGE = str(POCKET_FOLDER / "judge")


class Judge(Clip):
    """Embeds pictures in [0, 1], without gradients, and classifies them by the nearest caption."""

    @classmethod
    def load(cls, name: str = POCKET_JUDGE, device: torch.device | str = "cpu") -> "Judge":
        """Load a folder in transformers' layout or a hub id. Errors name the flag --judge."""
        try:
            return cls.from_pretrained(name, device)
        except OptionError as error:
            raise OptionError.because(f"--judge: {str(error).removeprefix(f'{KEY}: ')}") from error

    @cached_property
    def subjects(self) -> list[Subject]:
        """The possible subjects, in the order of `similarities`."""
        return every_subject()

    @cached_property
    def texts(self) -> Float[Tensor, "K D"]:
        """Unit embeddings of the subjects' captions."""
        return self.embed_texts([subject.caption for subject in self.subjects])

    @property
    def digest(self) -> str:
        """Digest of the weights and of the preprocessing."""
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
        return super().project_images(images.to(self.model.device))

    def similarities(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Cosines of pictures with the captions of `subjects`."""
        return self.embed_images(images) @ self.texts.T

    def classify(self, images: Float[Tensor, "B 3 H W"]) -> list[Subject]:
        """The subject of each picture."""
        return [self.subjects[i] for i in self.similarities(images).argmax(1).tolist()]

    def nearest(self, embeddings: Float[Tensor, "B D"]) -> Int[Tensor, " B"]:
        """Index in `subjects` of each picture's subject, by its unit embedding."""
        return (embeddings.to(self.texts) @ self.texts.T).argmax(1)

    def recognised(self, embeddings: Float[Tensor, "B D"], subject: Subject) -> float:
        """The fraction of pictures that show `subject` in kind, colour and surface."""
        return (self.nearest(embeddings) == self.subjects.index(subject)).double().mean().item()


def agreement(seen: list[Subject], meant: list[Subject]) -> dict[str, float]:
    """Fractions of pictures whose kind, colour, surface, kind and colour, and everything were recognised."""
    pairs = list(zip(seen, meant, strict=True))
    return {
        "kind": sum(a.kind == b.kind for a, b in pairs) / len(pairs),
        "colour": sum(a.colour == b.colour for a, b in pairs) / len(pairs),
        "surface": sum(a.surface == b.surface for a, b in pairs) / len(pairs),
        "kind and colour": sum(a.kind == b.kind and a.colour == b.colour for a, b in pairs) / len(pairs),
        "all": sum(a == b for a, b in pairs) / len(pairs),
    }
