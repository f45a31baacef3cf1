"""The autoencoder of a latent diffusion model: pictures to latents, latents to pictures, and the decoder's features.

Conventions: pictures are B 3 H W in [0, 1]; latents `v` are B C h w with (h, w) = (H, W) / downscale, and scaled by the
checkpoint's scaling factor, as the denoiser expects them. Both are float32 at this boundary, whatever
the precision of the weights. All sizes come from the checkpoint.

Decoder layers are named in the order they run: `mid` is the output of the middle block at the latents' own size;
`up_0`, `up_1`, … are the outputs of the levels after it, each twice as large as the one before, except for the last.
"""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latent_prior import OptionError
from latent_prior.models.checkpoint import Checkpoint
from latent_prior.models.half_precision import in_precision
from latent_prior.models.loading import load_vae
from latent_prior.prior import draw_noise, require_finite


class Autoencoder:
    """One contract over diffusers' `AutoencoderKL`: `encode`, `decode`, `features`."""

    def __init__(self, vae: AutoencoderKL):
        self.vae = vae
        self.latent_channels: int = vae.config.latent_channels
        self.downscale: int = 2 ** (len(vae.config.block_out_channels) - 1)
        self.scaling_factor: float = vae.config.scaling_factor
        self.shift_factor: float = vae.config.shift_factor or 0.0
        self.layer_names = ("mid", *(f"up_{level}" for level in range(len(vae.decoder.up_blocks))))

    @classmethod
    def from_checkpoint(cls, source: Checkpoint, device: torch.device, dtype: torch.dtype) -> "Autoencoder":
        """Load the autoencoder of a checkpoint onto a device."""
        return cls(load_vae(source, dtype).to(device))

    @property
    def default_layers(self) -> tuple[str, ...]:
        """The first three levels after the middle block: the layers of Liao et al. 2023, sec. 3.2."""
        return self.layer_names[1:4]

    def encode(
        self, images: Float[Tensor, "B 3 H W"], *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Latents of pictures: the mode of the encoder's Gaussian, or a draw from it if `sample`.

        Differentiable in the pictures. Raises OptionError if the size is not a multiple of `downscale`.
        """
        self.check_image_size(*images.shape[-2:])

        def latents(pictures: Tensor) -> tuple[Tensor]:
            posterior = self.vae.encode(pictures).latent_dist
            mode = posterior.mode()
            return (mode + posterior.std * draw_noise(mode.float(), generator) if sample else mode,)

        (v,) = in_precision(latents, images * 2 - 1, self.vae.dtype)
        return (v - self.shift_factor) * self.scaling_factor

    def decode(self, v: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures in [0, 1] of latents, clamped. Raises Diverged for pictures that are not finite."""
        pictures = self.vae.decode(self._unscaled(v).to(self.vae.dtype)).sample
        mend = "lower the guidance scale or the learning rate"
        half = ", or use float32 (half_precision_weights=false)" if self.vae.dtype == torch.float16 else ""
        require_finite({"the decoded picture": pictures}, mend + half)
        return (pictures.float() * 0.5 + 0.5).clamp(0, 1)

    def features(
        self, v: Float[Tensor, "B C h w"], layers: Sequence[str] | None = None
    ) -> list[Float[Tensor, "B Cl hl wl"]]:
        """Outputs of the named decoder layers (None: `default_layers`), in the requested order.

        Runs the decoder only up to the deepest requested layer. Differentiable in `v`. Raises OptionError for unknown
        layers and for an empty list.
        """
        layers = self.check_layers(layers)
        decoder, wanted = self.vae.decoder, set(layers)

        def maps(hidden: Tensor) -> list[Tensor]:
            if self.vae.post_quant_conv is not None:
                hidden = self.vae.post_quant_conv(hidden)
            hidden = self._run(decoder.mid_block, decoder.conv_in(hidden))
            found = {"mid": hidden}
            for name, block in zip(self.layer_names[1:], decoder.up_blocks, strict=True):
                if wanted <= found.keys():
                    break
                hidden = found[name] = self._run(block, hidden)
            return [found[name] for name in layers]

        return list(in_precision(maps, self._unscaled(v), self.vae.dtype))

    def _run(self, block: nn.Module, hidden: Tensor) -> Tensor:
        if self.vae.is_gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, hidden, use_reentrant=False)
        return block(hidden)

    def check_layers(self, layers: Sequence[str] | None) -> tuple[str, ...]:
        """The layers to use. Raises OptionError naming `fm_layers` if one is unknown or the list is empty."""
        if layers is None:
            return self.default_layers
        unknown = [name for name in layers if name not in self.layer_names]
        if unknown or not layers:
            raise OptionError(
                "fm_layers", list(layers), f"some of this decoder's layers: {', '.join(self.layer_names)}"
            )
        return tuple(layers)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise OptionError unless this autoencoder accepts pictures of this size."""
        if height % self.downscale or width % self.downscale or not height or not width:
            raise OptionError.because(
                f"got pictures of {height}x{width}; this autoencoder takes multiples of {self.downscale}: change their "
                "size (data.height and data.width), or set resize_input=true"
            )

    def _unscaled(self, v: Tensor) -> Tensor:
        return v / self.scaling_factor + self.shift_factor
