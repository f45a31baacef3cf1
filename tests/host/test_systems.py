"""Systems: building parts, moments of training, weights, export."""

import json

import pytest
import pytorch_lightning as pl
import torch
from latent_prior import OptionError
from latent_prior.host.embedded.cameras import RandomCameraDataModule

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in ("does not have many workers", "predict returned None")
]


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of an earlier run."""
    run = tmp_path / "runs" / "mug@20240101-000000"
    (run / "ckpts").mkdir(parents=True)
    state = {"geometry.values": torch.full((4,), 3.0), "gone.weight": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 1, "global_step": 50}, run / "ckpts" / "last.ckpt")
    return str(tmp_path / "runs" / "mug@LAST" / "ckpts" / "last.ckpt")


def test_parts_are_built_from_the_config(toy_system):
    system = toy_system(geometry={"size": 5})
    assert system.geometry.values.shape == (5,)
    assert [name for name, _ in system.named_parameters()] == ["geometry.values"]


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"geometry_type": "toy-geometri"},
            "system.geometry_type: unknown type 'toy-geometri'; did you mean 'toy-geometry'",
        ),
        ({"renderer_type": ""}, "system.renderer_type is ''; expected the registered name of a renderer"),
        ({"geometry": {"sise": 3}}, "unknown config key 'system.geometry.sise'; did you mean 'size'"),
        ({"gometry": {}}, "unknown config key 'system.gometry'; did you mean 'geometry'"),
        ({"loggers": {"wandb": {"enable": True, "project": "p", "name": "n"}}}, "pip install wandb"),
    ],
)
def test_bad_configs_name_the_key(toy_system, changes, message, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ValueError, match=message):
        toy_system(**changes)


def test_the_optimizer_reports_its_key(toy_system):
    system = toy_system(optimizer={"name": "Adam", "args": {}, "params": {"geometri": {}}})
    with pytest.raises(ValueError, match="system.optimizer.params: there is no 'geometri'"):
        system.configure_optimizers()


def test_moment_of_training(toy_system):
    system = toy_system()
    assert (system.true_global_step, system.true_current_epoch) == (0, 0)
    assert system.C([0, 1.0, 2.0, 10]) == 1.0
    system.set_resume_status(2, 5)
    assert (system.true_global_step, system.true_current_epoch) == (5, 2)
    assert system.C([0, 1.0, 2.0, 10]) == 1.5
    assert not system.resumed and toy_system(resumed=True).resumed


def test_weights_are_taken_over(toy_system, checkpoint):
    torch.testing.assert_close(toy_system(weights=checkpoint).geometry.values.detach(), torch.full((4,), 3.0))
    kept = toy_system(weights=checkpoint, weights_ignore_modules=["geometry"])
    torch.testing.assert_close(kept.geometry.values.detach(), torch.zeros(4))


def test_weights_that_do_not_fit_name_their_key(toy_system, checkpoint):
    with pytest.raises(OptionError, match="system.weights: no checkpoint at 'nowhere.ckpt'"):
        toy_system(weights="nowhere.ckpt")
    with pytest.raises(OptionError, match="system.weights: .*last.ckpt' does not fit: .*geometry.values"):
        toy_system(weights=checkpoint, geometry={"size": 5})


def evaluate(system, what):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    module = RandomCameraDataModule({"eval_height": 4, "eval_width": 6, "n_test_views": 3})
    getattr(trainer, what)(system, datamodule=module)


def test_test_views_and_export(toy_system, tmp_path):
    system = toy_system()
    system.set_save_dir(tmp_path)
    system.set_resume_status(0, 30)
    evaluate(system, "test")
    assert sorted(path.name for path in (tmp_path / "it30-test").iterdir()) == ["0.png", "1.png", "2.png"]
    evaluate(system, "predict")
    assert json.loads((tmp_path / "it30-export" / "values.json").read_text()) == [0, 0, 0, 0]


def test_export_may_render_the_turntable_too(toy_system, tmp_path):
    system = toy_system(exporter={"save_video": True})
    system.set_save_dir(tmp_path)
    evaluate(system, "predict")
    assert (tmp_path / "it0-test" / "2.png").exists() and (tmp_path / "it0-export" / "values.json").exists()
