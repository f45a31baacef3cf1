"""`layered-editing-system`: edits a picture by a prompt, through an RGBA layer that is composited over it.

One generator is optimised for one picture (Text2LIVE, Bar-Tal et al. 2022): it takes the picture and outputs colour and
alpha; a guidance with threestudio's contract scores the composite. In some steps the guidance scores the layer over a
plain screen instead, so that the layer shows the object and not a veil. The objective defines the method: the prior's
three terms (Liao et al. 2023), LSD alone, or CLIP's distance and direction (Text2LIVE).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from latent_prior import OptionError, host, options_under
from latent_prior.editing.layer import Layer, LayerGenerator, LayerGeneratorConfig, scales_for
from latent_prior.files import atomic_write
from latent_prior.files.pictures import to_picture
from latent_prior.host import ranks
from latent_prior.models.clip import Clip
from latent_prior.prior import structure_loss
from latent_prior.systems.loss_weights import LossWeights

OWN_TERMS = ("sparsity", "structure", "mask")
SCREENS = {"green": (0.0, 177 / 255, 64 / 255), "grey": None}  # None: drawn each time
PANEL = (256, 768)  # minimum and maximum height of a panel of the before/after picture


def sparsity(alpha: Float[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """mean alpha + mean(2 sigmoid(5 alpha) - 1): Text2LIVE's L1 and its smooth L0, without its factor of 0.01."""
    return alpha.mean() + (2 * torch.sigmoid(5 * alpha) - 1).mean()


@host.register("layered-editing-system")
class LayeredEditingSystem(LossWeights, host.BaseSystem):
    """Optimises the layer with the guidance's losses and with terms that keep it small and in place."""

    @dataclass
    class Config(host.BaseSystem.Config):
        # The layer generator: fields of LayerGeneratorConfig.
        generator: dict = field(default_factory=dict)
        # Short side of the pictures in training, usually ${data.short_side}; generator.scales=null is derived from it.
        short_side: int = 64
        # What the picture shows, for the parts of a config that use it: ${system.source_prompt}.
        source_prompt: str = ""
        # Screen behind the layer: green (0, 177, 64), or grey of a random lightness each time.
        screen: str = "green"
        # Every this many steps the guidance scores the layer over the screen instead of the composite; 0: never.
        screen_every: int = 2
        # Prompt for the layer over the screen; empty: the prompt itself.
        screen_prompt: str = ""
        # The CLIP of loss_structure: pocket, a folder in transformers' layout, or a hub id.
        structure_clip: str = "pocket"
        # Registered name and config of the guidance and of the prompt processor.
        guidance_type: str = ""
        guidance: dict = field(default_factory=dict)
        prompt_processor_type: str = ""
        prompt_processor: dict = field(default_factory=dict)

    cfg: Config
    test_progress = ("edit", "picture")
    leaves_unused = False  # parameters, in some step: several processes would have to look for them

    def configure(self) -> None:
        self.check_loss_weights()
        self.check_guidance_terms(OWN_TERMS)
        if self.cfg.screen not in SCREENS:
            raise OptionError("system.screen", self.cfg.screen, f"one of {', '.join(SCREENS)}")
        if self.cfg.screen_every < 0:
            raise OptionError("system.screen_every", self.cfg.screen_every, "0 (never) or more")
        settings = host.parse_structured(LayerGeneratorConfig, self.cfg.generator)
        if settings.scales is None:
            with options_under("system."):
                settings.scales = scales_for(self.cfg.short_side)
        with options_under("system.generator."):
            self.generator = LayerGenerator(LayerGeneratorConfig(**settings))
        host.info(f"Layer generator: {asdict(self.generator.cfg)}")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        processor = host.find(self.cfg.prompt_processor_type, "system.prompt_processor_type")
        self.prompt_processor = processor(self.cfg.prompt_processor)
        prompt = str(self.cfg.prompt_processor.prompt)
        self._screen_prompt = self.cfg.screen_prompt or prompt
        self.screen_prompt_processor = self.prompt_processor
        if self._screen_prompt != prompt:
            settings = host.config_to_primitive(self.cfg.prompt_processor) | {"prompt": self._screen_prompt}
            self.screen_prompt_processor = processor(settings)
        self.guidance = host.find(self.cfg.guidance_type, "system.guidance_type")(self.cfg.guidance)
        self.check_guidance_switches()
        if self.highest_weight("structure") > 0:
            try:
                self._structure = Clip.from_pretrained(self.cfg.structure_clip, self.device)
            except OptionError as error:
                why = f"{error} (it is needed since system.loss.lambda_structure is above 0)"
                raise OptionError.because(why, "system.structure_clip") from error

    def forward(self, picture: Float[Tensor, "B 3 H W"]) -> Layer:
        """The layer over pictures in [0, 1]."""
        return self.generator(picture)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        batch = dict(batch)
        picture, mask = batch.pop("picture"), batch.pop("mask", None)
        layer = self(picture)
        composite = layer.over(picture)
        loss = torch.zeros((), device=picture.device) + self._guided(layer, picture, composite, batch)
        loss = loss + self.weighted("sparsity", lambda: sparsity(layer.alpha))
        loss = loss + self.weighted("structure", lambda: self._structure_loss(composite, picture))
        if mask is not None:
            loss = loss + self.weighted("mask", lambda: F.mse_loss(layer.alpha, mask))
        self.log("train/alpha", layer.alpha.mean())
        self.log("train/loss", loss, prog_bar=True)
        self.log_weights()
        return {"loss": loss}

    def _guided(self, layer: Layer, picture: Tensor, composite: Tensor, batch: dict[str, Any]) -> Tensor | float:
        """The guidance's losses, weighted, for the composite or for the layer over a screen."""
        every = self.cfg.screen_every
        if not every or self.true_global_step % every != every - 1:
            seen, before, prompt, prefix = composite, picture, str(self.cfg.prompt_processor.prompt), ""
            processor = self.prompt_processor
        else:
            screen = self._screen(picture)
            # the layer replaces the picture's own pixels under the same alpha
            before = Layer(picture, layer.alpha.detach()).over(screen)
            seen, prompt, prefix = layer.over(screen), self._screen_prompt, "screen_"
            processor = self.screen_prompt_processor
        out = self.guidance(_last(seen), processor(), source_rgb=_last(before), prompt=prompt, **batch)
        return self.weighted_guidance(out, prefix)

    def _screen(self, picture: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        colour = SCREENS[self.cfg.screen]
        if colour is None:
            return torch.rand(len(picture), 1, 1, 1, device=picture.device).expand_as(picture)
        return picture.new_tensor(colour).view(1, 3, 1, 1).expand_as(picture)

    def _structure_loss(self, composite: Tensor, picture: Tensor) -> Float[Tensor, ""]:
        with torch.no_grad():
            wanted = self._structure.self_similarity(picture)
        return structure_loss(self._structure.self_similarity(composite), wanted)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        panels = self._panels(self(batch["picture"]), batch["picture"])
        if not ranks.is_first():
            return
        with atomic_write(self.get_save_path(f"it{self.true_global_step}-edit.png")) as beside:
            panels.save(beside)

    def on_validation_epoch_end(self) -> None:
        pass

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Write the edit at the picture's own size, so that unedited parts stay as sharp as they were.

        The composite keeps the picture's alpha, if any.
        """
        original, alpha = batch["original"][:, :3], batch["original"][:, 3:]
        small = self(batch["picture"])
        size = tuple(original.shape[-2:])
        layer = Layer(*(_resized(part, size) for part in (small.rgb, small.alpha)))
        pictures = {
            "composite": torch.cat([layer.over(original), alpha], 1),
            "alpha": layer.alpha,
            "edit.rgba": torch.cat([layer.rgb, layer.alpha], 1),
            "screen": layer.over(original.new_tensor(SCREENS["green"]).view(1, 3, 1, 1)),
        }
        paper = torch.ones_like(original)
        shown = Layer(original, alpha).over(paper) if alpha.shape[1] else original
        pictures["before"] = shown
        for name, pixels in pictures.items():
            with atomic_write(self.get_save_path(f"{name}.png")) as beside:
                to_picture(pixels[0]).save(beside)
        with atomic_write(self.get_save_path("before_after.png")) as beside:
            self._panels(layer, shown).save(beside)

    def on_test_epoch_end(self) -> None:
        pass

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """An export writes the edit again."""
        self.test_step(batch, batch_idx)

    def on_predict_epoch_end(self) -> None:
        pass

    @staticmethod
    def _panels(layer: Layer, picture: Float[Tensor, "1 3 H W"]) -> Image.Image:
        """Side by side: before, after, the layer over green, alpha."""
        green = picture.new_tensor(SCREENS["green"]).view(1, 3, 1, 1)
        row = [picture, layer.over(picture), layer.over(green), layer.alpha.expand_as(picture)]
        panels = to_picture(torch.cat(row, 3)[0])
        height = min(max(panels.height, PANEL[0]), PANEL[1])
        return panels.resize((round(panels.width * height / panels.height), height), Image.Resampling.BICUBIC)


def _last(pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W 3"]:
    return pictures.permute(0, 2, 3, 1)


def _resized(pixels: Float[Tensor, "B C H W"], size: tuple[int, int]) -> Float[Tensor, "B C h w"]:
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
