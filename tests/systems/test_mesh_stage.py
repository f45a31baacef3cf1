"""The last stage of text to 3D: when it begins, what it renders, what it still trains, and that the export is its mesh."""

import numpy as np
import pytest
import torch
from latent_prior import OptionError
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.files import WORLD_TO_Y_UP
from systems.test_text_to_3d import batch_of, system_of

FIELD = {
    "geometry_type": "sdf-grid",
    "geometry": {"radius": 0.9, "levels": [4, 8, 16], "sphere": 0.5, "feature_size": 8, "isosurface_resolution": 16},
    "renderer": {"radius": 0.9, "num_samples_per_ray": 16, "randomized": False, "inv_std": 60.0},
    "exporter": {"fmt": "glb", "save_video": False, "texture_size": 64, "max_faces": 400},
}
LOSS = {
    "lambda_grey": 1.0,
    "lambda_curvature": 0.5,
    "lambda_eikonal": 0.5,
    "lambda_sparsity": 0.5,
    "lambda_opaque": 0.5,
}


def staged(from_step=5, **settings):
    system = system_of(**(FIELD | {"mesh_stage": {"from_step": from_step}, "loss": LOSS} | settings))
    torch.nn.init.normal_(system.geometry.features, generator=torch.Generator().manual_seed(0))
    return system


def at(system, step):
    system.set_resume_status(0, step)
    return system.train()


def test_before_the_stage_the_field_is_rendered_and_after_it_the_mesh():
    system, batch = staged(), batch_of()
    early, late = at(system, 4)(batch), at(system, 5)(batch)
    assert "weights" in early and "mesh" not in early
    assert "mesh" in late and "weights" not in late
    assert ((early["opacity"] > 0.5) == (late["opacity"] > 0.5)).float().mean() > 0.9
    assert system._renderer_now() is system._renderer_now()  # the mesh is extracted once


def test_only_the_colours_train_on_the_mesh():
    system, batch = staged(), batch_of()
    for step, moves in ((4, True), (5, False)):
        system.zero_grad(set_to_none=True)
        at(system, step).training_step(batch, 0)["loss"].backward()
        assert system.geometry.features.grad.abs().sum() > 0
        assert all((level.grad is not None) == moves for level in system.geometry.levels)


def test_the_weights_hold_nothing_of_the_mesh():
    system = staged()
    before = set(system.state_dict())
    at(system, 9)(batch_of())
    assert set(system.state_dict()) == before


def test_the_export_is_the_mesh_of_the_stage(tmp_path):
    system = at(staged(), 9)
    mesh = system(batch_of())["mesh"]
    system.set_save_dir(str(tmp_path))
    system.eval().on_predict_start()
    system.on_predict_epoch_end()
    points, _ = Asset.read(tmp_path / "it9-export" / "model.glb").joined()
    world = np.unique((points @ WORLD_TO_Y_UP[:3, :3]).round(5), axis=0)
    np.testing.assert_allclose(world, np.unique(mesh.v_pos.numpy().astype(float).round(5), axis=0), atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mesh_stage": {"from_step": -1}}, "system.mesh_stage.from_step is -1; expected a step of at least 0"),
        ({"mesh_stage": {"step": 3}}, "unknown config key 'mesh_stage.step'"),
        (
            {"exporter_type": "textured-mesh-exporter"},
            "system.exporter_type is 'textured-mesh-exporter'; expected vertex-color-mesh-exp",
        ),
        (
            {"geometry": FIELD["geometry"] | {"level_steps": [0, 2, 4], "level_fade": 3}},
            "system.mesh_stage.from_step is 5; expected at least 7",
        ),
    ],
)
def test_a_stage_that_cannot_begin_is_refused(settings, message):
    with pytest.raises(OptionError, match=message):
        staged(**settings)


def test_a_field_without_an_inside_says_so():
    system = staged()
    with torch.no_grad():
        system.geometry.levels[0].fill_(-100.0)
    with pytest.raises(OptionError, match="no inside"):
        at(system, 5)(batch_of())
