"""Optimisers and schedules from config."""

import pytest
import torch
from latent_prior.host.embedded.optimizers import parse_optimizer, parse_scheduler
from omegaconf import OmegaConf
from torch import nn


@pytest.fixture
def model():
    model = nn.Module()
    model.geometry = nn.Module()
    model.geometry.encoding = nn.Linear(2, 3)
    model.geometry.bias = nn.Parameter(torch.zeros(1))
    model.background = nn.Linear(1, 1)
    return model


def test_per_module_parameters_and_arguments(model):
    config = OmegaConf.create(
        {
            "name": "Adam",
            "args": {"lr": 0.1, "betas": [0.9, 0.99]},
            "params": {"geometry.encoding": {"lr": 0.5}, "geometry.bias": {}},
        }
    )
    optimizer = parse_optimizer(config, model)
    groups = optimizer.param_groups
    assert [(g["name"], g["lr"], len(g["params"])) for g in groups] == [
        ("geometry.encoding", 0.5, 2),
        ("geometry.bias", 0.1, 1),
    ]
    assert groups[0]["params"][0] is model.geometry.encoding.weight
    assert type(groups[0]["betas"]) in (list, tuple)  # no OmegaConf object may get into a checkpoint


def test_without_params_everything_is_optimised(model):
    optimizer = parse_optimizer(OmegaConf.create({"name": "SGD", "args": {"lr": 1.0}}), model)
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"name": "Adan"}, "unknown Optimizer 'Adan'; did you mean 'Adam'"),
        ({"name": "Adam", "args": {"lrr": 1.0}}, "optimizer.args.lrr: .*did you mean .lr"),
        (
            {"name": "Adam", "params": {"geometry.encodin": {}}},
            "no 'encodin' in 'geometry.encodin'; did you mean 'encoding'",
        ),
        ({"args": {}}, "optimizer.name"),
        ({"name": "Adam", "args": {"betas": [0.9]}}, "args.betas is .0.9.; expected a list of 2"),
        ({"name": "Adam", "args": {"lr": -1.0}}, "args.lr is -1.0; expected a number above 0"),
        ({"name": "Adam", "params": {"geometry": {"lr": "x"}}}, "params.geometry.lr is 'x'; expected a number"),
        ({"name": "Adam", "params": {"geometry": {"lrr": 0.1}}}, "params.geometry.lrr: Adam has no such argument"),
        ({"name": "SparseAdam"}, "args: SparseAdam does not support dense gradients"),  # found by a step
    ],
)
def test_bad_optimizers_name_the_key(model, config, message):
    with pytest.raises(ValueError, match=message):
        parse_optimizer(OmegaConf.create({"optimizer": config}).optimizer, model)


def learning_rates(config, steps):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = parse_scheduler(OmegaConf.create(config), optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler["scheduler"].step()
    return rates, scheduler["interval"]


def test_warm_up_then_decay():
    config = {
        "name": "SequentialLR",
        "interval": "step",
        "milestones": [3],
        "schedulers": [
            {"name": "LinearLR", "args": {"start_factor": 0.25, "end_factor": 1.0, "total_iters": 3}},
            {"name": "ExponentialLR", "args": {"gamma": 0.5}},
        ],
    }
    rates, interval = learning_rates(config, 6)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.5, 0.25]) and interval == "step"


@pytest.mark.parametrize(
    "config, message",
    [
        ({"name": "ExponentialLRR", "args": {}}, "did you mean 'ExponentialLR'"),
        ({"name": "StepLR", "interval": "day"}, "interval is 'day'; expected 'step' or 'epoch'"),
        ({"name": "ExponentialLR", "args": {"gamma": [0.1]}}, "args.gamma is .0.1.; expected a number"),
        ({"name": "StepLR", "args": {"step_size": 0}}, "args: .*by zero"),  # found by a step
        ({"name": "SequentialLR", "schedulers": 5}, "schedulers is 5; expected a list of schedules"),
        ({"name": "SequentialLR", "schedulers": [None]}, "schedulers is .None.; expected a list of schedules"),
        (
            {"name": "SequentialLR", "schedulers": [{"name": "ExponentialLR", "args": {"gamma": None}}]},
            r"schedulers\[0\].args.gamma is None; expected a number",
        ),
        (
            {"name": "SequentialLR", "schedulers": [{"name": "ConstantLR"}] * 2, "milestones": ["x"]},
            "milestones is .'x'.; expected a list of steps",
        ),
        ({"name": "SequentialLR"}, "schedulers is None; expected one schedule or more"),
        (
            {"name": "SequentialLR", "schedulers": [{"name": "ConstantLR"}], "milestones": [3]},
            "milestones is .3.; expected 0 milestones for the 1 of schedulers",
        ),
    ],
)
def test_bad_schedules_name_the_key(config, message):
    with pytest.raises(ValueError, match=message):
        learning_rates(config, 1)


def test_a_schedule_is_tried_on_a_stand_in():
    """The learning rate of the optimiser itself is as the schedule begins."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    config = OmegaConf.create({"name": "ExponentialLR", "args": {"gamma": 0.5}})
    schedule = parse_scheduler(config, optimizer)["scheduler"]
    assert optimizer.param_groups[0]["lr"] == 1.0 and schedule.last_epoch == 0
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
