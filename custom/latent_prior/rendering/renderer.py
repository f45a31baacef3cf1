"""What all renderers share: the three parts they render, and backgrounds given from outside."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from latent_prior import host


@dataclass(frozen=True)
class SubModules:
    """What is rendered, in a plain holder so that the renderer's state dict does not contain it."""

    geometry: Any
    material: Any
    background: Any


class Renderer(host.BaseModule):
    """Pictures of a (geometry, material, background) from a batch of cameras."""

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        self.sub_modules = SubModules(geometry, material, background)

    @property
    def geometry(self) -> Any:
        return self.sub_modules.geometry

    @property
    def material(self) -> Any:
        return self.sub_modules.material

    @property
    def background(self) -> Any:
        return self.sub_modules.background


def per_pixel(color: Float[Tensor, "..."], shape: tuple[int, int, int]) -> Float[Tensor, "..."]:
    """A background's colour, Nc, B Nc or B H W Nc, in a shape that broadcasts with pictures of the shape B H W."""
    if color.ndim == 2 and color.shape[0] == shape[0]:
        return color[:, None, None]
    if color.ndim == 1 or (color.ndim == 4 and color.shape[:3] == shape):
        return color
    raise ValueError(f"bg_color has shape {tuple(color.shape)}, expected Nc, B Nc or B H W Nc with B H W = {shape}")
