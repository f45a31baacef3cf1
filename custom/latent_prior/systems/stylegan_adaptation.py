"""`stylegan-adaptation-system`: adapts a StyleGAN2 generator to the domain that a prompt names, without pictures of it.

The generator renders random codes; a guidance with threestudio's contract scores the pictures; a frozen copy of the
generator, the source, defines what should stay. The objective defines the method: the prior's three terms (Liao et al.
2023), LSD alone (StyleGANFusion, Song et al. 2022), or CLIP's direction (StyleGAN-NADA, Gal et al. 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.prior import require_finite
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import NOISE_MODES, StyleGAN2
from latent_prior.stylegan2.layers import layers_of_w_plus, matching, most_moved
from latent_prior.stylegan2.pretrained import load_pretrained
from latent_prior.systems.loss_weights import LossWeights

OWN_TERMS = ("reconstruction", "styles")
COLUMNS = 8  # of the before/after picture


def to_rgb(pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W 3"]:
    """A generator's pictures, nominally in [-1, 1], as the guidance expects them: nominally in [0, 1], channels last.

    Not clamped: a pixel out of range would have no gradient to bring it back.
    """
    return ((pictures + 1) / 2).permute(0, 2, 3, 1)


@host.register("stylegan-adaptation-system")
class StyleGANAdaptationSystem(LossWeights, host.BaseSystem):
    """Optimises the generator with the guidance's losses and with terms that keep it close to its source."""

    @dataclass
    class Config(host.BaseSystem.Config):
        # The generator to start from: pocket, or a file: .safetensors (ours), .pkl (NVIDIA's), .pt (rosinality's).
        pretrained_generator: str = "pocket"
        # Parameters to train, as patterns of their names (`*` stands for any part).
        trainable: list[str] = field(default_factory=lambda: ["*"])
        # Train only this many layers of w+ in each step, those that the step would move most; null: all. NADA uses 2/3.
        adaptive_layers: int | None = None
        # Noise of the synthesis: const (the checkpoint's), random or none.
        noise_mode: str = "const"
        # Psi of the pictures shown in evaluation; training never truncates.
        truncation: float = 1.0
        # Registered name and config of the guidance and of the prompt processor.
        guidance_type: str = ""
        guidance: dict = field(default_factory=dict)
        prompt_processor_type: str = ""
        prompt_processor: dict = field(default_factory=dict)

    cfg: Config
    test_progress = ("pictures", "batch")

    def configure(self) -> None:
        self.check_loss_weights()
        self.check_guidance_terms(OWN_TERMS)
        if self.cfg.noise_mode not in NOISE_MODES:
            raise OptionError("system.noise_mode", self.cfg.noise_mode, f"one of {', '.join(NOISE_MODES)}")
        self.generator = load_pretrained(self.cfg.pretrained_generator).requires_grad_(False)
        # in a list, so that it is not a submodule: it is not saved, and no optimiser finds it
        self._source = [load_pretrained(self.cfg.pretrained_generator).requires_grad_(False)]
        if not self.cfg.trainable:
            raise OptionError("system.trainable", [], 'patterns of parameters, such as "synthesis.*"')
        self._trained = set(matching(self.generator, self.cfg.trainable))
        for name, parameter in self.generator.named_parameters():
            parameter.requires_grad_(name in self._trained)
        self._trains_mapping = any(name.startswith("mapping.") for name in self._trained)
        self._check_adaptive_layers()
        self._w_plus: Tensor | None = None

    def _check_adaptive_layers(self) -> None:
        count, most = self.cfg.adaptive_layers, self.generator.cfg.num_ws
        if count is None:
            return
        if not 1 <= count <= most:
            raise OptionError("system.adaptive_layers", count, f"1 to {most}, the generator's layers of w+, or null")
        if self._trains_mapping:
            raise OptionError.because(
                "system.adaptive_layers chooses among layers of the synthesis network, but system.trainable names "
                "parameters of the mapping network too: leave them out, or set adaptive_layers=null"
            )

    @property
    def leaves_unused(self) -> bool:
        """Whether a step may have no use for some parameters; then several processes look for them."""
        return self.cfg.noise_mode == "none"

    @property
    def source(self) -> StyleGAN2:
        """The generator before adaptation, frozen."""
        return self._source[0]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.source.to(self.device)
        processor = host.find(self.cfg.prompt_processor_type, "system.prompt_processor_type")
        self.prompt_processor = processor(self.cfg.prompt_processor)
        self.guidance = host.find(self.cfg.guidance_type, "system.guidance_type")(self.cfg.guidance)
        self.check_guidance_switches()

    def _styles(
        self, z: Float[Tensor, "B Z"], truncation: float = 1.0
    ) -> tuple[Float[Tensor, "B n D"], Float[Tensor, "B n D"]]:
        """w+ of the generator and of its source."""
        if z.shape[1] != self.generator.cfg.z_dim:
            raise OptionError("data.z_dim", z.shape[1], f"{self.generator.cfg.z_dim}, the size of the generator's z")
        with torch.no_grad():
            source = self.source.styles(z, truncation)
        return self.generator.styles(z, truncation), source

    def _pictures(
        self, w_plus: Float[Tensor, "B n D"], source_w_plus: Float[Tensor, "B n D"]
    ) -> tuple[Float[Tensor, "B 3 R R"], Float[Tensor, "B 3 R R"]]:
        """Pictures of the generator and of its source, nominally in [-1, 1], under the same noise."""
        sizes = self.generator.cfg
        maps = sum(channels * side**2 for channels, side in zip(sizes.channels, sizes.resolutions, strict=True))
        key = "data.batch_size" if self.training else "data.eval_batch_size"
        host.require_memory(len(w_plus) * (maps if self.training else 3 * sizes.resolution**2), {key: len(w_plus)})
        draw = self.cfg.noise_mode == "random" and self.training  # evaluation always uses the same noise
        seed = int(torch.randint(2**62, ())) if draw else 0

        def painted(generator: StyleGAN2, w: Tensor) -> Tensor:
            return generator.synthesis(w, self.cfg.noise_mode, torch.Generator(w.device).manual_seed(seed))

        with torch.no_grad():
            source = painted(self.source, source_w_plus)
        return painted(self.generator, w_plus), source

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        batch = dict(batch)
        w_plus, source_w_plus = self._styles(batch.pop("z"))
        if self.cfg.adaptive_layers is not None:
            self._w_plus = w_plus = w_plus.detach().requires_grad_()
        pictures, source = self._pictures(w_plus, source_w_plus)
        guidance_out = self.guidance(to_rgb(pictures), self.prompt_processor(), source_rgb=to_rgb(source), **batch)
        loss = torch.zeros((), device=pictures.device) + self.weighted_guidance(guidance_out)
        loss = loss + self.weighted("reconstruction", lambda: F.mse_loss(pictures, source))
        loss = loss + self.weighted("styles", lambda: F.mse_loss(w_plus, source_w_plus))
        self.log("train/loss", loss, prog_bar=True)
        self.log_weights()
        return {"loss": loss}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Adaptive layers: the layers that a step on w+ would move least keep their weights in this step."""
        if self._w_plus is None:
            return
        chosen = most_moved(self._w_plus.grad, self.cfg.adaptive_layers)
        for layer, modules in enumerate(layers_of_w_plus(self.generator)):
            if layer not in chosen:
                for module in modules:
                    module.zero_grad(set_to_none=True)
        self._w_plus = None

    def _pair(self, z: Float[Tensor, "B Z"]) -> tuple[Tensor, Tensor]:
        """Pictures of the same codes before and after, in [0, 1], B H W 3."""
        self.source.to(self.device)
        after, before = self._pictures(*self._styles(z, self.cfg.truncation))
        require_finite({"the pictures": after})
        return to_rgb(before).clamp(0, 1), to_rgb(after).clamp(0, 1)

    def on_validation_epoch_start(self) -> None:
        self._grid: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._grid.append(self._pair(batch["z"]))

    def on_validation_epoch_end(self) -> None:
        self._save_grid(f"it{self.true_global_step}-before_after.png")

    def on_test_epoch_start(self) -> None:
        self._grid = []

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        before, after = self._pair(batch["z"])
        in_grid = batch["frame"] < 0
        if in_grid.any():
            self._grid.append((before[in_grid], after[in_grid]))
        for row in torch.nonzero(~in_grid).flatten().tolist():
            frame = f"it{self.true_global_step}-interpolation/{int(batch['frame'][row])}.png"
            self.save_rgb_image(frame, torch.cat([before[row], after[row]], 1), data_format="HWC")

    def on_test_epoch_end(self) -> None:
        self._save_grid("before_after.png")
        for number, name in enumerate(("before", "after")):
            self._save_grid(f"{name}.png", [number])
        folder = f"it{self.true_global_step}-interpolation"
        if (Path(self.get_save_dir()) / folder).is_dir():
            self.save_img_sequence(
                "interpolation",
                folder,
                r"^(\d+)\.png$",
                save_format="mp4",
                fps=20,
                name="test",
                step=self.true_global_step,
            )
        self._save_results()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Does nothing: the generator itself is exported, at the end."""

    def on_predict_epoch_end(self) -> None:
        self._save_results()

    def _save_grid(self, name: str, sides: Sequence[int] = (0, 1)) -> None:
        """Pairs of rows, before above after, COLUMNS codes per pair; the last pair is padded with white.

        sides: of each pair, which to show: 0 before, 1 after.
        """
        pairs = torch.cat([torch.stack([pair[side] for side in sides], 1) for pair in self._grid])  # N sides H W 3
        columns = min(COLUMNS, len(pairs))
        pairs = torch.cat([pairs, pairs.new_ones(-len(pairs) % columns, *pairs.shape[1:])])
        picture = pairs.unflatten(0, (-1, columns)).permute(0, 2, 3, 1, 4, 5).flatten(3, 4).flatten(0, 2)
        self.save_rgb_image(name, picture, data_format="HWC", name="before_after", step=self.true_global_step)

    def _save_results(self) -> None:
        """The adapted generator in both formats."""
        if self._trains_mapping:
            self.generator.mapping.estimate_average()
        save_generator(self.generator, Path(self.get_save_path("generator.safetensors")))
        if self.generator.cfg.z_dim == self.generator.cfg.w_dim:  # rosinality's format has one size for both
            save_generator(self.generator, Path(self.get_save_path("generator.pt")))
