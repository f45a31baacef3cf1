"""Finite numbers in a run: every step is checked before the optimiser applies it, and so is what a checkpoint stores.

A step's gradients and the parameters from the step before are reduced to one norm, which the CPU looks at. So nothing
that is not finite is ever applied or saved, and the last checkpoint stays good. Only where the norm is not finite, the
step is run once more, to find the loss terms that cause it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from latent_prior import Diverged
from latent_prior.host import ranks
from latent_prior.host.embedded.arguments import LARGEST_RATE, RANGES, check_range
from latent_prior.runs.resume import rng_state, set_rng_state

TOO_LARGE = "too large to be squared in float32"


class FiniteNumbers(pl.Callback):
    """Raises Diverged where a gradient, a parameter or a learning rate is not usable, and tells any Diverged's step.

    Under a gradient scaler (precision 16-mixed on a GPU), infinite gradients are skipped while its scale is above 1:
    it falls until they are finite. Has to come after ExactResume, which restores the random numbers of a step.
    """

    def __init__(self) -> None:
        self._step: tuple[Any, int, dict[str, Any]] | None = None  # batch, its index, random numbers before it

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                _check_options(group, pl_module.cfg.get("optimizer") or {})

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step = (batch, batch_idx, rng_state())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        for group in optimizer.param_groups:
            if not 0 <= group["lr"] <= LARGEST_RATE:
                mend = "change system.scheduler, or lr in system.optimizer"
                raise Diverged(
                    f"the learning rate is {float(group['lr']):.3g}; expected 0 to {LARGEST_RATE:g}", (), mend
                )
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not _usable([*parameters, *gradients]):
            self._explain(trainer, pl_module, set(map(id, parameters)))

    def _explain(self, trainer: pl.Trainer, system: pl.LightningModule, own: set[int]) -> None:
        """Raise Diverged for the parameters among `own`, or for their gradients and the terms that these come from."""
        parameters = {name: p for name, p in system.named_parameters() if id(p) in own}
        if bad := _unusable(parameters):
            raise Diverged(f"the step before made {_listed(bad)}", tuple(bad), _mend(system, ()))
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.get_scale() > 1:
            return
        bad = _unusable({name: p.grad for name, p in parameters.items() if p.grad is not None})
        terms, note = self._terms(trainer, system, list(parameters.values()))
        raise Diverged(f"the gradient of {_listed(bad, 'is ')}, {note}", tuple(terms), _mend(system, terms))

    def _terms(
        self, trainer: pl.Trainer, system: pl.LightningModule, parameters: list[Tensor]
    ) -> tuple[list[str], str]:
        """The terms whose own gradients are not usable, found by running the step once more, and a sentence about them.

        Terms are what the system logs as loss_<term>, as threestudio's systems do too, times system.loss.lambda_<term>.
        """
        assert self._step is not None
        batch, index, random_numbers = self._step
        if not system.automatic_optimization:
            return [], "in a step that cannot be repeated (manual optimisation), so its terms are unknown"
        terms: dict[str, Tensor] = {}

        def log(name: str, value: Any, *_: Any, **__: Any) -> None:
            term = name.rpartition("/")[2]
            if "loss_" in term and isinstance(value, Tensor) and value.requires_grad:
                terms[term] = value * system.C(_loss(system).get(_weight_of(term), 1.0))

        system.log = log
        set_rng_state(random_numbers)
        try:
            with trainer.precision_plugin.train_step_context():
                system.training_step(batch, index)
        except Exception as error:  # only a diagnosis fails: the step's own error is raised in any case
            return [], f"in a step that cannot be repeated ({error}), so its terms are unknown"
        finally:
            del system.log
        found = [name for name, term in terms.items() if not _usable(_gradients(term, parameters))]
        guilty = list(dict.fromkeys(name for names in ranks.gathered(found) for name in names))
        if guilty:
            return guilty, f"from {' and '.join(guilty)}"
        several = trainer.accumulate_grad_batches
        last = f" of the last of {several} batches (trainer.accumulate_grad_batches)" if several > 1 else ""
        return [], f"but no single term{last} has such a gradient ({', '.join(terms) or 'none is logged'})"

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged):
            terms = [name for name in exception.quantities if _weight_of(name) in _loss(pl_module)]
            exception.at(pl_module.true_global_step, _mend(pl_module, terms) if terms else "")


def require_finite_checkpoint(checkpoint: Mapping[str, Any]) -> None:
    """Raise Diverged for a checkpoint with a parameter, buffer or state of an optimiser that is not finite.

    What else it stores may be infinite, such as the best value so far of a schedule.
    """
    stored = {"": checkpoint.get("state_dict", {}), "the optimiser's ": checkpoint.get("optimizer_states", [])}
    for whose, state in stored.items():
        for name, tensor in _tensors(state):
            if tensor.is_floating_point() and not tensor.isfinite().all():
                error = Diverged(
                    f"no checkpoint is written, because {whose}{name} is not finite",
                    (name,),
                    "lower lr in system.optimizer, or the weights in system.loss",
                )
                error.at(checkpoint["global_step"])
                raise error


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(entry, f"{name}.{key}" if name else str(key))


def _check_options(group: dict[str, Any], cfg: Mapping[str, Any]) -> None:
    """OptionError, with its config key, for an option of a group of parameters that is out of range."""
    own = (cfg.get("params") or {}).get(group.get("name")) or {}
    for option in RANGES:
        value = group.get(f"initial_{option}", group.get(option))  # a schedule may begin at 0
        where = f"params.{group['name']}" if option in own else "args"
        check_range(option, value, f"system.optimizer.{where}.{option}")


def _usable(tensors: list[Tensor]) -> bool:
    """Whether all are finite, and can be squared in float32, as optimisers do."""
    halves = (torch.float16, torch.bfloat16)
    return bool(torch.nn.utils.get_total_norm([t.float() if t.dtype in halves else t for t in tensors]).isfinite())


def _unusable(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Those that are not `_usable`, each with what is wrong."""
    bad = {name: tensor for name, tensor in tensors.items() if not _usable([tensor.detach()])}
    return {name: TOO_LARGE if tensor.isfinite().all() else "not finite" for name, tensor in bad.items()}


def _gradients(term: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    found = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def _listed(bad: Mapping[str, str], verb: str = "") -> str:
    """Such as "geometry.grid (and 2 more) not finite"; all of them together may be too large where none is alone."""
    first = next(iter(bad), "all parameters")
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return f"{first}{more} {verb}{bad.get(first, TOO_LARGE)}"


def _loss(system: pl.LightningModule) -> Mapping[str, Any]:
    return system.cfg.get("loss") or {}


def _weight_of(term: str) -> str:
    """The key in system.loss of, for example, loss_fm, screen_loss_fm or grad_norm_fm; empty for other quantities."""
    found = re.search(r"(?:loss|grad_norm)_(.+)", term)
    return f"lambda_{found[1]}" if found else ""


def _mend(system: pl.LightningModule, terms: list[str] | tuple[str, ...]) -> str:
    """What to change in the config."""
    weights = dict.fromkeys(_weight_of(term) for term in terms)
    keys = [f"system.loss.{weight}" for weight in weights if weight in _loss(system)]
    if terms and "guidance_scale" in (system.cfg.get("guidance") or {}):
        keys.append("system.guidance.guidance_scale")
    keys.append("lr in system.optimizer")
    return f"lower {' or '.join(keys)}, or clip gradients (trainer.gradient_clip_val)"
