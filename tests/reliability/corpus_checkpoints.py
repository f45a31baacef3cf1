"""Checkpoints that a run cannot be resumed from, or only just: a whole one of a small run with one thing changed.

The run is of tests/toys.py, with fused Adam, which reads and writes as many numbers as a parameter has.
"""

import copy
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import toys
import yaml
from latent_prior.cli.resume import in_place
from latent_prior.host.embedded import registry
from latent_prior.runs import experiment
from latent_prior.runs.folder import config_of
from latent_prior.runs.resume import KEY
from reliability.in_child import Case

STEPS = 4
# odd, but whole in what counts
MAY_READ = {
    "no schedule",  # a config may add its schedule, or drop it
    "two schedules",
    "unchanged",
    "weights in float64",
    "no entry for a parameter",
    "a step as a number",
    "no entry of ours",
    "no random states for GPUs",
    "an unknown entry",
    "an old learning rate",
    "an extra hyperparameter",
    "moments that are parameters",
    "hyperparameters of another run",
    "a loop without its progress",
    "a version to come",
    "unchanged, as weights",
    "weights in float64, as weights",
    "only weights, as weights",
    "unchanged, for export",
    "no loops, for export",
}

CONFIG = {
    "name": "toy",
    "tag": "run",
    "use_timestamp": False,
    "data_type": "random-camera-datamodule",
    "data": {"height": 4, "width": 4, "eval_height": 4, "eval_width": 4, "n_val_views": 1, "n_test_views": 1},
    "system_type": "toy-system",
    "system": toys.config_with(
        optimizer={"name": "Adam", "args": {"lr": 0.1, "fused": True}, "params": {"geometry": {"lr": 0.05}}}
    ),
    "trainer": {"max_steps": STEPS, "log_every_n_steps": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False},
    "checkpoint": {"save_last": True, "save_top_k": -1, "every_n_train_steps": STEPS},
}


def register() -> None:
    """Make the toys known to the host of this process."""
    types = {"geometry": toys.ToyGeometry, "part": toys.ToyPart, "renderer": toys.ToyRenderer}
    registry.__modules__.update({f"toy-{name}": cls for name, cls in types.items()})
    registry.__modules__.update({"toy-exporter": toys.ToyExporter, "toy-system": toys.ToySystem})


@functools.cache
def _ready() -> None:
    experiment.load()
    register()


def resume(folder: Path) -> None:
    """As `latent-prior resume` with some steps left. A refusal has to leave the folder as it was."""
    _ready()
    before = _content(folder)
    try:
        experiment.run(
            [str(config_of(folder))],
            [f"trainer.max_steps={STEPS + 2}"],
            ("train",),
            resume=str(folder / "ckpts" / "last.ckpt"),
            **in_place(folder, []),
        )
    except ValueError:
        assert _content(folder) == before, f"changed: {before.keys() ^ _content(folder).keys()}"
        raise


def export(folder: Path) -> None:
    """As `latent-prior export`, which needs the weights alone."""
    _ready()
    checkpoint = str(folder / "ckpts" / "last.ckpt")
    experiment.run([str(config_of(folder))], [], ("export",), resume=checkpoint, **in_place(folder, []))


def weights(folder: Path) -> None:
    """As `system.weights=FILE` in a run of its own."""
    _ready()
    checkpoint = folder / "ckpts" / "last.ckpt"
    settings = {"exp_root_dir": str(folder / "out"), "system": {"weights": str(checkpoint)}}
    try:
        experiment.run([str(config_of(folder))], [f"trainer.max_steps={STEPS}"], ("train",), **settings)
    except ValueError:
        assert not (folder / "out").exists(), "a folder is left"
        raise


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path) -> list[Case]:
    """A run folder for each case, whose last.ckpt is the odd one."""
    config = folder / "toy.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    run = experiment.run([str(config)], [], ("train",), exp_root_dir=str(folder / "out")).folder
    whole = torch.load(run / "ckpts" / "last.ckpt", weights_only=True)
    cases: list[Case] = []
    for number, (name, (reader, change)) in enumerate(CHANGES.items()):
        target = folder / "cases" / str(number) / "run"
        shutil.copytree(run / "configs", target / "configs")
        (target / "ckpts").mkdir()
        changed = change(copy.deepcopy(whole))
        torch.save(changed, target / "ckpts" / "last.ckpt")
        cases.append((name, reader, target))
    return cases


Change = Callable[[Any], Any]


def put(*keys: Any, value: Any) -> Change:
    """Sets an entry."""

    def change(checkpoint: Any) -> Any:
        place = checkpoint
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return checkpoint

    return change


def drop(*keys: Any) -> Change:
    """Removes an entry."""

    def change(checkpoint: Any) -> Any:
        place = checkpoint
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        return checkpoint

    return change


def to(*keys: Any, function: Callable[[Any], Any]) -> Change:
    """Replaces an entry by a function of it."""

    def change(checkpoint: Any) -> Any:
        place = checkpoint
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = function(place[keys[-1]])
        return checkpoint

    return change


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ADAM = ("optimizer_states", 0)
MOMENTS = (*ADAM, "state", 0)
GROUP = (*ADAM, "param_groups", 0)
RATE = ("lr_schedulers", 0)
LOOP = ("loops", "fit_loop")
PROGRESS = (*LOOP, "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total")
RNG = (KEY, "rng")
VALUES = ("state_dict", "geometry.values")
BIG = 10**15
LINE = "a\n\x1b[31mb" * 1000

_RESUMED: dict[str, Change] = {
    "unchanged": lambda whole: whole,
    # weights
    "weights in float64": to(*VALUES, function=torch.Tensor.double),
    "weights in int64": to(*VALUES, function=torch.Tensor.long),
    "weights that are complex": to(*VALUES, function=lambda t: t.to(torch.complex64)),
    "weights too short": to(*VALUES, function=lambda t: t[:1].clone()),
    "weights that are sparse": to(*VALUES, function=torch.Tensor.to_sparse),
    "weights that are a list": to(*VALUES, function=torch.Tensor.tolist),
    "a weight named by a number": put("state_dict", 7, value=torch.ones(1)),
    "weights that are a number": put("state_dict", value=3),
    "weights that are a list of pairs": to("state_dict", function=lambda state: list(state.items())),
    "a weight with a long name": put("state_dict", LINE, value=torch.ones(1)),
    # counters
    "epoch as text": put("epoch", value="0"),
    "epoch below zero": put("epoch", value=-1),
    "step below zero": put("global_step", value=-5),
    "step as a fraction": put("global_step", value=2.5),
    "step as true": put("global_step", value=True),
    "step as a tensor": put("global_step", value=torch.tensor(4)),
    "step beyond all runs": put("global_step", value=BIG),
    "epoch beyond all runs": put("epoch", value=BIG),
    "step of another moment": put("global_step", value=3),
    # optimisers
    "no optimiser": put("optimizer_states", value=[]),
    "no list of optimisers": drop("optimizer_states"),
    "two optimisers": to("optimizer_states", function=lambda states: states * 2),
    "optimisers in a dictionary": to("optimizer_states", function=lambda states: {0: states[0]}),
    "an optimiser as text": put(*ADAM, value=LINE),
    "no group": put(*ADAM, "param_groups", value=[]),
    "two groups": to(*ADAM, "param_groups", function=lambda groups: groups * 2),
    "a group without parameters": put(*GROUP, "params", value=[]),
    "a group with a parameter twice": put(*GROUP, "params", value=[0, 0]),
    "a group with another parameter": put(*GROUP, "params", value=[1]),
    "parameters as text": put(*GROUP, "params", value="0"),
    "a parameter that is a list": put(*GROUP, "params", value=[[0]]),
    "no state": drop(*ADAM, "state"),
    "a state in a list": to(*ADAM, "state", function=lambda state: [state[0]]),
    "no entry for a parameter": put(*ADAM, "state", value={}),
    "an entry for an unknown parameter": put(*ADAM, "state", 5, value={"exp_avg": torch.ones(2)}),
    "a parameter's entry as a tensor": put(*MOMENTS, value=torch.ones(4)),
    "smaller moments": put(*MOMENTS, "exp_avg", value=torch.zeros(1)),
    "empty moments": put(*MOMENTS, "exp_avg_sq", value=torch.zeros(0)),
    "larger moments": put(*MOMENTS, "exp_avg_sq", value=torch.zeros(400)),
    "moments of another shape": put(*MOMENTS, "exp_avg", value=torch.zeros(2, 2)),
    "moments of one stored number": put(*MOMENTS, "exp_avg", value=torch.zeros(1).expand(4)),
    "moments in steps": put(*MOMENTS, "exp_avg", value=torch.zeros(8)[::2]),
    "moments in int8": put(*MOMENTS, "exp_avg", value=torch.zeros(4, dtype=torch.int8)),
    "moments that are complex": put(*MOMENTS, "exp_avg", value=torch.zeros(4, dtype=torch.complex64)),
    "moments that are sparse": put(*MOMENTS, "exp_avg", value=torch.zeros(4).to_sparse()),
    "moments that are parameters": put(*MOMENTS, "exp_avg", value=torch.nn.Parameter(torch.zeros(4))),
    "moments as a list": put(*MOMENTS, "exp_avg", value=[0.0] * 4),
    "moments as text": put(*MOMENTS, "exp_avg", value=LINE),
    "no second moments": drop(*MOMENTS, "exp_avg_sq"),
    "a step of four numbers": put(*MOMENTS, "step", value=torch.ones(4)),
    "a step of no number": put(*MOMENTS, "step", value=torch.zeros(0)),
    "a step as a number": put(*MOMENTS, "step", value=4.0),
    "a step as text": put(*MOMENTS, "step", value="4"),
    "a step below zero": put(*MOMENTS, "step", value=torch.tensor(-1.0)),
    "a step that is not a number": put(*MOMENTS, "step", value=torch.tensor(float("nan"))),
    "a learning rate as text": put(*GROUP, "lr", value="fast"),
    "a learning rate as a list": put(*GROUP, "lr", value=[0.1]),
    "an old learning rate": put(*GROUP, "lr", value=0.5),
    "three betas": put(*GROUP, "betas", value=(0.9, 0.99, 0.999)),
    "betas as a number": put(*GROUP, "betas", value=0.9),
    "an extra hyperparameter": put(*GROUP, "verbose", value=False),
    "an extra hyperparameter of many parts": put(*GROUP, "more", value=_nested(60)),
    "hyperparameters of another run": put(*GROUP, "weight_decay", value=0.1),
    # schedules
    "no schedule": put("lr_schedulers", value=[]),
    "no list of schedules": drop("lr_schedulers"),
    "two schedules": to("lr_schedulers", function=lambda states: states * 2),
    "a schedule as text": put(*RATE, value=LINE),
    "a schedule beyond all runs": put(*RATE, "last_epoch", value=BIG),
    "a schedule before all runs": put(*RATE, "last_epoch", value=-BIG),
    "a schedule's place as text": put(*RATE, "last_epoch", value="4"),
    "a schedule without its place": drop(*RATE, "last_epoch"),
    "a schedule's factor as a list": put(*RATE, "gamma", value=[0.9]),
    "a schedule's rates as a number": put(*RATE, "base_lrs", value=0.1),
    "a schedule of two rates": put(*RATE, "base_lrs", value=[0.1, 0.1]),
    "a schedule that has its own step": put(*RATE, "step", value=3),
    "a schedule that has its own optimiser": put(*RATE, "optimizer", value=None),
    # loops
    "no loops": drop("loops"),
    "loops as a list": put("loops", value=[]),
    "no loop of training": drop(*LOOP),
    "a loop as a number": put(*LOOP, value=3),
    "a loop without its progress": drop(*LOOP, "epoch_progress"),
    "progress as text": put(*LOOP, "epoch_progress", value=LINE),
    "progress below zero": put(*PROGRESS, "completed", value=-3),
    "progress beyond all runs": put(*PROGRESS, "completed", value=BIG),
    "progress as a tensor": put(*PROGRESS, "completed", value=torch.ones(3)),
    "progress of another moment": put(*PROGRESS, "completed", value=1),
    # callbacks
    "callbacks as a list": put("callbacks", value=[1]),
    "a callback's state as text": to("callbacks", function=lambda states: {name: LINE for name in states}),
    "callbacks with empty states": to("callbacks", function=lambda states: {name: {"a": 1} for name in states}),
    "a best checkpoint elsewhere": to(
        "callbacks",
        function=lambda states: {
            name: state | {"best_model_path": f"{state.get('dirpath')}/../../../precious"}
            for name, state in states.items()
        },
    ),
    # ours
    "no entry of ours": drop(KEY),
    "our entry as a list": put(KEY, value=[1, 2]),
    "no random states": drop(*RNG),
    "random states as text": put(*RNG, value=LINE),
    "no random states for GPUs": put(*RNG, "cuda", value=[]),
    "Python's state too short": put(*RNG, "python", value=[3, [1, 2, 3], None]),
    "Python's state below zero": put(*RNG, "python", value=[3, [-1] * 625, None]),
    "Python's state of version 9": put(*RNG, "python", 0, value=9),
    "NumPy's state too short": put(*RNG, "numpy", 1, value=torch.zeros(3, dtype=torch.int64)),
    "NumPy's place beyond its state": put(*RNG, "numpy", 2, value=10**6),
    "NumPy's place before its state": put(*RNG, "numpy", 2, value=-(10**6)),
    "NumPy's state of another generator": put(*RNG, "numpy", 0, value="PCG64"),
    "torch's state too short": put(*RNG, "torch", value=torch.zeros(16, dtype=torch.uint8)),
    "torch's state of zeros": to(*RNG, "torch", function=torch.zeros_like),
    "torch's state in floats": to(*RNG, "torch", function=torch.Tensor.float),
    "waiting as a number": put(KEY, "waiting", value=3),
    "waiting as a list of numbers": put(KEY, "waiting", value=[1, 2]),
    "a waiting batch without its rays": drop(KEY, "waiting", 0, 0, "rays_d"),
    "a waiting batch as text": put(KEY, "waiting", value=[(LINE, 0, 0)]),
    "a waiting batch of other shapes": put(KEY, "waiting", 0, 0, "rays_d", value=torch.zeros(3)),
    "a waiting batch of integers": put(KEY, "waiting", 0, 0, "rays_d", value=torch.zeros(1, 4, 4, 3, dtype=torch.int64)),
    "an update as text": put(KEY, "updated_at", value="now"),
    "an update of three": put(KEY, "updated_at", value=(0, 1, 2)),
    "an update beyond all runs": put(KEY, "updated_at", value=(0, BIG)),
    # the whole
    "no version": drop("pytorch-lightning_version"),
    "a version as a number": put("pytorch-lightning_version", value=2),
    "a version in words": put("pytorch-lightning_version", value=LINE),
    "a version to come": put("pytorch-lightning_version", value="99.0"),
    "an unknown entry": put("more", value=[1, 2]),
    "a list": lambda whole: [whole],
    "a tensor": lambda whole: torch.ones(3),
    "text": lambda whole: LINE,
    "nothing": lambda whole: None,
    "only weights": lambda whole: {key: whole[key] for key in ("state_dict", "epoch", "global_step")},
}  # fmt: skip

_WEIGHTS = (
    "unchanged", "weights in float64", "weights that are complex", "weights too short", "weights that are sparse",
    "weights that are a list", "a weight named by a number", "weights that are a number", "epoch as text",
    "step as a tensor", "step beyond all runs", "a list", "only weights",
)  # fmt: skip
_EXPORTED = ("unchanged", "weights too short", "weights that are a list", "no loops", "loops as a list", "only weights")

CHANGES: dict[str, tuple[Callable[[Path], None], Change]] = (
    {name: (resume, change) for name, change in _RESUMED.items()}
    | {f"{name}, as weights": (weights, _RESUMED[name]) for name in _WEIGHTS}
    | {f"{name}, for export": (export, _RESUMED[name]) for name in _EXPORTED}
)
