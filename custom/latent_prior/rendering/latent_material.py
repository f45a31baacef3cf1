"""`latent-colour-material`: the RGB refinement of a field that was trained in latent space (Latent-NeRF, sec. 3.3).

The field keeps its latent features; a trainable affine layer, which starts as the checkpoint's own map from latents to
colours, converts them to RGB. Training continues in RGB space through the encoder.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latent_prior import host, options_under
from latent_prior.models.autoencoder import Autoencoder
from latent_prior.models.checkpoint import resolve
from latent_prior.models.latent_colours import LatentColours


@host.register("latent-colour-material")
class LatentColourMaterial(host.BaseModule):
    """Latent features to RGB by a trainable affine layer."""

    @dataclass
    class Config(host.BaseModule.Config):
        # The checkpoint that the field was trained with: its autoencoder gives the layer's initial values.
        pretrained_model_name_or_path: str = "pocket"

    cfg: Config
    requires_normal: bool = False
    requires_tangent: bool = False

    def configure(self) -> None:
        with options_under("system.material."):
            checkpoint = resolve(self.cfg.pretrained_model_name_or_path)
            autoencoder = Autoencoder.from_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
        colours = LatentColours.fit(autoencoder)
        self.layer = nn.Linear(*colours.matrix.shape)
        with torch.no_grad():
            self.layer.weight.copy_(colours.matrix.T)
            self.layer.bias.copy_(colours.offset)

    def forward(self, features: Float[Tensor, "*B C"], **kwargs) -> Float[Tensor, "*B 3"]:
        return self.layer(features).clamp(0, 1)

    def export(self, features: Float[Tensor, "*N C"], **kwargs) -> dict[str, Any]:
        return {"albedo": self(features)}
