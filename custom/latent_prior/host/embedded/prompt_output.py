"""The embeddings of a prompt, selected by camera.

Conditional rows come first, then unconditional ones: [cond B, uncond B], and for Perp-Neg [positive B, uncond B,
negatives 2B (both of the first camera, both of the second, ...)]. Angles are in degrees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent_prior import OptionError

_Condition = Callable[[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]], Bool[Tensor, "B"]]


def shift_azimuth_deg(azimuth: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Angles wrapped to [-180, 180)."""
    return (azimuth + 180) % 360 - 180


def exponential_decay(a: float, b: float, c: float, r: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """a exp(-b r) + c."""
    return a * torch.exp(-b * r) + c


@dataclass(frozen=True)
class DirectionConfig:
    """A view direction: its wording of the prompts, and the cameras (elevation, azimuth, distance) it applies to."""

    name: str
    prompt: Callable[[str], str]
    negative_prompt: Callable[[str], str]
    condition: _Condition


@dataclass(frozen=True)
class PromptProcessorOutput:
    """A prompt's embeddings: plain (1 L D) and one per direction (4 L D), and Perp-Neg's decays [a, b, c]."""

    text_embeddings: Float[Tensor, "1 L D"]
    uncond_text_embeddings: Float[Tensor, "1 L D"]
    text_embeddings_vd: Float[Tensor, "V L D"]
    uncond_text_embeddings_vd: Float[Tensor, "V L D"]
    directions: list[DirectionConfig]
    direction2idx: dict[str, int]
    use_perp_neg: bool
    perp_neg_f_sb: Sequence[float]
    perp_neg_f_fsb: Sequence[float]
    perp_neg_f_fs: Sequence[float]
    perp_neg_f_sf: Sequence[float]
    prompt: str
    prompts_vd: list[str]

    def direction_index(
        self, elevation: Float[Tensor, "B"], azimuth: Float[Tensor, "B"], camera_distances: Float[Tensor, "B"]
    ) -> Int[Tensor, "B"]:
        """The index of each camera's direction; the last direction that applies to a camera wins."""
        index = torch.zeros_like(elevation, dtype=torch.long)
        for direction in self.directions:
            index[direction.condition(elevation, azimuth, camera_distances)] = self.direction2idx[direction.name]
        return index

    def get_text_embeddings(
        self,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        view_dependent_prompting: bool = True,
    ) -> Float[Tensor, "BB L D"]:
        """Embeddings for a batch of cameras, 2B rows: conditional, then unconditional."""
        if view_dependent_prompting:
            index = self.direction_index(elevation, azimuth, camera_distances)
            return torch.cat([self.text_embeddings_vd[index], self.uncond_text_embeddings_vd[index]])
        count = elevation.shape[0]
        return torch.cat(
            [self.text_embeddings.expand(count, -1, -1), self.uncond_text_embeddings.expand(count, -1, -1)]
        )

    def get_text_embeddings_perp_neg(
        self,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        view_dependent_prompting: bool = True,
    ) -> tuple[Float[Tensor, "BBBB L D"], Float[Tensor, "B 2"]]:
        """Embeddings and weights for Perp-Neg (Armandpour et al. 2023, sec. 4), 4B rows and B x 2 weights (<= 0).

        The positive embedding is interpolated between the two nearest of front, side and back; the negatives are the
        views that the camera should not show. Overhead cameras get the overhead prompt and two negatives of weight 0.
        """
        if not view_dependent_prompting:
            raise OptionError.because(
                "Perp-Neg contrasts views: it needs view_dependent_prompting=True (or use_perp_neg=false)"
            )
        index = self.direction_index(elevation, azimuth, camera_distances)
        side, front, back, overhead = self.text_embeddings_vd
        uncond = self.uncond_text_embeddings_vd[index]
        positives, negatives, weights = [], [], []
        for row, angle in enumerate(shift_azimuth_deg(azimuth).abs()):
            if index[row] == self.direction2idx["overhead"]:
                positives.append(overhead)
                negatives += [uncond[row], uncond[row]]
                weights.append(torch.zeros(2, device=elevation.device))
            elif angle < 90:
                r = 1 - angle / 90  # 0: full side, 1: full front
                positives.append(r * front + (1 - r) * side)
                negatives += [front, side]
                decays = [exponential_decay(*self.perp_neg_f_fs, r), exponential_decay(*self.perp_neg_f_sf, 1 - r)]
                weights.append(-torch.stack(decays))
            else:
                r = 2.0 - angle / 90  # 0: full back, 1: full side
                positives.append(r * side + (1 - r) * back)
                negatives += [side, front]
                decays = [exponential_decay(*self.perp_neg_f_sb, r), exponential_decay(*self.perp_neg_f_fsb, r)]
                weights.append(-torch.stack(decays))
        return torch.cat([torch.stack(positives), uncond, torch.stack(negatives)]), torch.stack(weights)
