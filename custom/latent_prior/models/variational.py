"""Variational score distillation's second network: a LoRA on the denoiser that learns the pictures made so far.

Source: Wang et al. 2023, "ProlificDreamer" (arXiv 2305.16213), with one particle. Where they embed the camera, the LoRA
is given the prompt of the view. It lies beside the checkpoint's own weights, which stay as they are, on the projections
of all attention layers.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.condition import Condition, guided, predict
from latent_prior.models.denoiser import Denoiser
from latent_prior.models.options import PriorOptions
from latent_prior.prior import draw_noise

NAME = "vsd"
RANK = 4  # of the changes to the weights, as in the paper's released code
PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]
UNPROMPTED = 0.1  # share of the training steps without the prompt, so that it can be guided
BETAS = (0.9, 0.99)


class Variational:
    """The LoRA, its predictions, and its training: one step of AdamW for each score."""

    def __init__(
        self, denoiser: Denoiser, learning_rate: float, average: Callable[[Tensor], Tensor] = lambda gradient: gradient
    ):
        """Adds the LoRA to the denoiser's network, switched off. average: of gradients over the processes of a run.

        Raises OptionError if peft is missing.
        """
        self._denoiser, self._average = denoiser, average
        try:
            from peft import LoraConfig
        except ModuleNotFoundError as error:
            raise OptionError.because("'vsd' needs peft: pip install peft", "score") from error
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=PROJECTIONS, init_lora_weights=True)
        device = denoiser.module.device
        with torch.random.fork_rng(devices=[]):  # the run's random numbers are the same with and without it
            torch.manual_seed(0)
            denoiser.module.add_adapter(config, adapter_name=NAME)
        self._weights = {name: p for name, p in denoiser.module.named_parameters() if "lora_" in name}
        for weight in self._weights.values():
            weight.data = weight.data.to(device, torch.float32)
            weight.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(self._weights.values(), lr=learning_rate, betas=BETAS)
        denoiser.module.disable_adapters()

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        self._denoiser.module.enable_adapters()
        try:
            yield
        finally:
            self._denoiser.module.disable_adapters()

    def eps(
        self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], condition: Condition, options: PriorOptions
    ) -> Float[Tensor, "B C h w"]:
        """The noise that the LoRA predicts, guided at `guidance_scale_lora`; no gradients."""
        plain = Condition(condition.cond, condition.uncond)
        with self._switched_on():
            rows = predict(self._denoiser, z_t, t, plain, options).rows
        return guided(rows, self._denoiser, t, plain, options.guidance_scale_lora).eps_hat

    def learn(
        self,
        v: Float[Tensor, "B C h w"],
        condition: Condition,
        options: PriorOptions,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """A step of training on latents as samples, and its loss: the mean squared error of the noise predicted.

        Timesteps are drawn from the whole schedule that the checkpoint determines.
        """
        v, count = v.detach(), self._denoiser.last_timestep + 1
        device = v.device if generator is None else generator.device
        t = torch.randint(0, count, (len(v),), generator=generator, device=device).to(v.device)
        noise = draw_noise(v, generator)
        dropped = torch.rand((), generator=generator, device=device).item() < UNPROMPTED
        rows = condition.uncond if dropped and options.lora_cfg_training else condition.cond
        with torch.enable_grad(), self._switched_on():
            eps, _ = self._denoiser(self._denoiser.schedule.add_noise(v, noise, t), t, rows.to(v.dtype))
            loss = F.mse_loss(eps, noise)
            gradients = torch.autograd.grad(loss, list(self._weights.values()))
        for weight, gradient in zip(self._weights.values(), gradients, strict=True):
            weight.grad = self._average(gradient)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """The LoRA's weights and its optimiser's state, copied."""
        weights = {name: weight.detach() for name, weight in self._weights.items()}
        return copy.deepcopy({"weights": weights, "optimizer": self._optimizer.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state. OptionError if it is not one of this checkpoint's LoRA."""
        try:
            there = {name: tuple(weight.shape) for name, weight in state["weights"].items()}
            if there != {name: tuple(weight.shape) for name, weight in self._weights.items()}:
                raise ValueError(f"its {len(there)} weights have other names or shapes")
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(state["weights"][name])
            self._optimizer.load_state_dict(state["optimizer"])
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            problem = f"the LoRA in the checkpoint is not one of this denoiser's: {error}"
            raise OptionError.because(problem, "resume") from error
