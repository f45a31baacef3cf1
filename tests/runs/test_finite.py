"""The check before every step by itself: precision, several optimisers, manual optimisation."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from latent_prior import Diverged
from latent_prior.runs.finite import FiniteNumbers
from omegaconf import OmegaConf
from torch import nn

NAN, INF = float("nan"), float("inf")


class System(pl.LightningModule):
    """Two parameters; the second term's gradient is infinite, its value finite."""

    def __init__(self, automatic: bool = True):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(2))
        self.cfg = OmegaConf.create({"loss": {"lambda_good": 1.0, "lambda_bad": 2.0}, "optimizer": {}})
        self.automatic_optimization = automatic

    def C(self, value):
        return value

    def training_step(self, batch, batch_idx):
        good, bad = self.first.square().sum(), self.second.sqrt().sum()
        self.log("train/loss_good", good)
        self.log("train/loss_bad", bad)
        return {"loss": good + 2 * bad}


def before_step(system: System, *own: nn.Parameter, scale: float | None = None) -> None:
    """The hook for an optimiser of these parameters, all of whose gradients are there."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    if scale is not None:
        trainer.precision_plugin.scaler = SimpleNamespace(get_scale=lambda: scale)
    check = FiniteNumbers()
    check.on_train_batch_start(trainer, system, {}, 0)
    check.on_before_optimizer_step(trainer, system, torch.optim.SGD(own or system.parameters(), lr=0.1))


def with_gradients(system: System) -> System:
    system.first.grad, system.second.grad = torch.ones(3), torch.full((2,), INF)
    return system


def test_the_term_and_the_parameter_are_named():
    with pytest.raises(Diverged, match="gradient of second is not finite, from loss_bad; lower system.loss.lambda_bad"):
        before_step(with_gradients(System()))


def test_each_optimiser_is_held_to_its_own_parameters():
    system = with_gradients(System())
    before_step(system, system.first)
    with pytest.raises(Diverged, match="second"):
        before_step(system, system.second)


def test_a_manual_step_is_not_repeated():
    with pytest.raises(Diverged, match="second is not finite, in a step that cannot be repeated .manual optimisation"):
        before_step(with_gradients(System(automatic=False)))


def test_under_a_gradient_scaler_infinite_gradients_pass_until_its_scale_is_1():
    before_step(with_gradients(System()), scale=65536.0)
    with pytest.raises(Diverged, match="from loss_bad"):
        before_step(with_gradients(System()), scale=1.0)
    system = with_gradients(System())
    system.first.data[0] = NAN
    with pytest.raises(Diverged, match="the step before made first not finite"):
        before_step(system, scale=65536.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_many_large_numbers_are_not_an_overflow(dtype):
    """The norm of these is beyond float16; single entries are far from it."""
    system = System()
    system.first, system.second = (nn.Parameter(torch.full((4096,), 6e4, dtype=dtype)) for _ in range(2))
    system.first.grad = torch.full((4096,), 6e4, dtype=dtype)
    before_step(system)


def test_what_cannot_be_squared_is_too_large():
    system = System()
    system.second.data += 1.0  # where the root's gradient is finite
    system.first.grad = torch.full((3,), 1e30)
    with pytest.raises(Diverged, match="first is too large to be squared in float32, but no single term has such"):
        before_step(system)


def test_a_step_that_cannot_be_repeated_says_so_and_keeps_its_error():
    system = with_gradients(System())
    system.training_step = lambda batch, index: batch["gone"]
    with pytest.raises(Diverged, match="second is not finite, in a step that cannot be repeated .'gone'."):
        before_step(system)
    assert "log" not in vars(system)
