"""Every optimiser and schedule finds its own state fit; tests/reliability/test_odd_checkpoints.py has what is not."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from latent_prior import OptionError
from latent_prior.host.embedded.cameras import RandomCameraDataModule
from latent_prior.runs import resumable
from latent_prior.runs.checkpoint import Saved, WholeCheckpoints
from latent_prior.runs.resume import KEY, ExactResume, require_rng_state, rng_state
from pytorch_lightning.callbacks import ModelCheckpoint

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("does not have many workers", "exists and is not empty", "lr_scheduler.step")
]
STEPS = 3

OPTIMIZERS = {
    "Adam": {},
    "Adam, fused": {"fused": True},
    "Adam, amsgrad": {"amsgrad": True},
    "AdamW": {},
    "SGD": {},
    "SGD, momentum": {"momentum": 0.9},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adagrad": {},
    "Adadelta": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "ASGD": {},
    "Rprop": {},
    "Adafactor": {},
    "LBFGS": {},
}
SCHEDULERS = {
    "none": None,
    "ExponentialLR": {"args": {"gamma": 0.9}},
    "MultiStepLR": {"args": {"milestones": [1, 2]}},
    "CosineAnnealingLR": {"args": {"T_max": 5}},
    "CosineAnnealingWarmRestarts": {"args": {"T_0": 2}},
    "OneCycleLR": {"args": {"max_lr": 0.1, "total_steps": 10}},
    "PolynomialLR": {"args": {}},
    "SequentialLR": {
        "schedulers": [
            {"name": "ConstantLR", "args": {"factor": 1.0, "total_iters": 2}},
            {"name": "ExponentialLR", "args": {"gamma": 0.5}},
        ],
        "milestones": [2],
    },
    "SequentialLR, its second not begun": {
        "schedulers": [
            {"name": "ConstantLR", "args": {"factor": 1.0, "total_iters": 4}},
            {"name": "ExponentialLR", "args": {"gamma": 0.5}},
        ],
        "milestones": [4],
    },
}


def trainer(folder, max_steps=STEPS):
    return pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        callbacks=[ExactResume(), ModelCheckpoint(dirpath=folder, save_last=True, every_n_train_steps=2)],
        plugins=[WholeCheckpoints()],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )


def saved(toy_system, folder, **changes):
    """A checkpoint of STEPS steps, and what it holds."""
    done = trainer(folder)
    done.fit(toy_system(**changes), datamodule=RandomCameraDataModule({"height": 4, "width": 4}))
    done.save_checkpoint(folder / "end.ckpt")
    return Saved(folder / "end.ckpt", 0, STEPS), torch.load(folder / "end.ckpt", weights_only=True)


def optimizer_of(name):
    return {"name": name.split(",")[0], "args": {"lr": 0.01, **OPTIMIZERS[name]}, "params": {"geometry": {"lr": 0.05}}}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimisers_own_state_fits_and_a_smaller_one_does_not(toy_system, tmp_path, name):
    config = {"optimizer": optimizer_of(name) if name != "LBFGS" else {"name": name, "args": {"lr": 0.01}}}
    if name == "LBFGS":
        config["scheduler"] = None
    found, whole = saved(toy_system, tmp_path, **config)
    resumable.check(found, toy_system(resumed=True, **config), trainer(tmp_path), trains=True)
    moments = whole["optimizer_states"][0]["state"].get(0, {})
    large = [key for key, value in moments.items() if isinstance(value, torch.Tensor) and value.numel() > 1]
    assert bool(large) or name == "SGD"
    for key in large if name != "LBFGS" else ():  # which needs a closure: what it remembers is not known
        changed = copy.deepcopy(whole)
        changed["optimizer_states"][0]["state"][0][key] = moments[key][:1].clone()
        torch.save(changed, tmp_path / "end.ckpt")
        with pytest.raises(
            OptionError, match=rf"resume: .*end.ckpt' cannot be resumed from: its .*state\[0\].{key} is"
        ):
            resumable.check(found, toy_system(resumed=True, **config), trainer(tmp_path), trains=True)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedules_own_state_fits_and_resumes(toy_system, tmp_path, name):
    schedule = SCHEDULERS[name]
    config = {"scheduler": schedule and {"name": name.split(",")[0], "interval": "step", **schedule}}
    found, _ = saved(toy_system, tmp_path, **config)
    system, more = toy_system(resumed=True, **config), trainer(tmp_path, STEPS + 2)
    resumable.check(found, system, more, trains=True)
    more.fit(system, datamodule=RandomCameraDataModule({"height": 4, "width": 4}), ckpt_path=str(found.path))
    assert more.global_step == STEPS + 2


def test_other_groups_are_refused_in_words(toy_system, tmp_path):
    """What Lightning said with a traceback: the config got another group since."""
    found, _ = saved(toy_system, tmp_path, scheduler=None)
    groups = {"name": "Adam", "args": {"lr": 0.1}, "params": {"geometry": {"lr": 0.05}, "material": {"lr": 0.1}}}
    changed = toy_system(resumed=True, scheduler=None, optimizer=groups)
    with pytest.raises(OptionError, match=r"param_groups is a list of 1; expected a list of 2"):
        resumable.check(found, changed, trainer(tmp_path), trains=True)
    resumable.check(found, changed, trainer(tmp_path), trains=False)  # for an export it does not matter


def test_each_process_has_its_state(toy_system, tmp_path):
    found, whole = saved(toy_system, tmp_path)
    own = whole[KEY]
    wrong = {"rng": {}, "waiting": [], "updated_at": None}
    cases = {
        "the list": [own, own],
        "ranks is a list of 0; expected": [],
        "ranks is a dict of 3; expected a list": own,
        "has no rng": [own, {}],
        "rng is not what": [own, wrong],
        "expected a dictionary": None,
    }
    for message, ranks in cases.items():
        torch.save(whole | {KEY: {"ranks": ranks} if ranks is not None else []}, tmp_path / "end.ckpt")
        system = toy_system(resumed=True)
        if message == "the list":
            resumable.check(found, system, trainer(tmp_path), trains=True)
            continue
        with pytest.raises(OptionError, match=message):
            resumable.check(found, system, trainer(tmp_path), trains=True)


def test_random_states_are_tried_without_being_changed():
    before = rng_state()
    require_rng_state(before)
    for change in (
        {"python": [3, [1], None]},
        {"torch": torch.zeros(3)},
        {"numpy": [*before["numpy"][:2], 625, 0, 0.0]},
    ):
        with pytest.raises((ValueError, TypeError)):
            require_rng_state(before | change)
    after = rng_state()
    assert after["python"] == before["python"] and torch.equal(after["torch"], before["torch"])
    assert after["numpy"][2:] == before["numpy"][2:] and torch.equal(after["numpy"][1], before["numpy"][1])
