"""Arguments for torch and Lightning are checked against their signatures."""

import pytest
import torch
from latent_prior import OptionError
from latent_prior.host.embedded.arguments import check_arguments
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.optim import lr_scheduler


@pytest.mark.parametrize(
    "call, given",
    [
        (torch.optim.Adam, {"lr": 1, "betas": [0.9, 0.99], "eps": 1e-8, "fused": None, "amsgrad": True}),
        (lr_scheduler.ConstantLR, {"factor": 0.5, "total_iters": 37.5}),  # what ${div:75,2} gives
        (lr_scheduler.MultiStepLR, {"milestones": [1, 2]}),  # its annotations cannot be evaluated
        (Trainer, {"precision": "32-true", "max_steps": 5, "val_check_interval": {"hours": 1}, "logger": False}),
        (ModelCheckpoint, {"save_last": "link", "save_top_k": 1, "monitor": None}),
    ],
)
def test_what_fits_passes(call, given):
    check_arguments(call, given, "section")


@pytest.mark.parametrize(
    "call, given, message",
    [
        (torch.optim.Adam, {"lr": "1"}, "section.lr is '1'; expected a number"),
        (torch.optim.Adam, {"lr": None}, "section.lr is None; expected a number"),
        (torch.optim.Adam, {"lr": True}, "section.lr is True; expected a number"),
        (torch.optim.Adam, {"betas": [0.9]}, "section.betas is .0.9.; expected a list of 2"),
        (torch.optim.Adam, {"betas": [0.9, "x"]}, "section.betas .* expected a list of 2"),
        (torch.optim.Adam, {"fused": "x"}, "section.fused is 'x'; expected true or false or null"),
        (torch.optim.Adam, {"lrr": 1.0}, "section.lrr: Adam has no such argument; did you mean 'lr'?"),
        (lr_scheduler.ExponentialLR, {"gamma": [0.1]}, "section.gamma is .0.1.; expected a number"),
        (Trainer, {"val_check_interval": []}, "section.val_check_interval is ..; expected a number or text"),
        (Trainer, {"precision": 3.7}, "section.precision is 3.7; expected 64 or 32 or 16 or"),
        (ModelCheckpoint, {"monitor": 3}, "section.monitor is 3; expected text or null"),
    ],
)
def test_what_does_not_is_named(call, given, message):
    with pytest.raises(OptionError, match=message):
        check_arguments(call, given, "section")


def test_arguments_of_ours_are_not_offered():
    with pytest.raises(OptionError, match="no such argument") as caught:
        check_arguments(torch.optim.Adam, {"params": {}}, "section", ours=["params"])
    assert "params, " not in str(caught.value)
