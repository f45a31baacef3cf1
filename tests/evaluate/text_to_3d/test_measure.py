"""A run whose field is the truth gets near-perfect figures, through checkpoint, renderer and exported mesh."""

import shutil

import pytest
import torch
from latent_prior.evaluate.text_to_3d import measure, views
from latent_prior.meshes.files import newest_mesh
from latent_prior.pocket.captions import parse


@pytest.fixture(scope="module")
def system(true_run):
    return measure.load_system(true_run)


def test_a_true_field_measures_well(true_run):
    subject = parse("a red mug")
    measured = measure.measure_run(true_run, subject, judge=None)
    # what is left: a voxel grid of 64^3, and light that does not follow the camera
    mesh = measured.mesh
    assert mesh.loads and mesh.one_body and mesh.colour_right
    assert mesh.chamfer < 0.02
    assert mesh.pictures.iou > 0.97 and mesh.pictures.psnr > 27
    assert max(mesh.solid.normals_to, mesh.solid.normals_from) < 8
    assert mesh.solid.area == pytest.approx(1, abs=0.05) and mesh.solid.volume == pytest.approx(1, abs=0.05)
    assert mesh.solid.watertight and mesh.solid.crossings == 0 and mesh.solid.hidden == 0
    assert mesh.solid.hollow == pytest.approx(1, abs=0.05)
    assert measured.field.field_iou > 0.95 and measured.field.field_psnr > 26 and measured.field.fog < 0.002
    assert measured.pictures.shape == (4, 3, views.SHEET_SIZE, views.SHEET_SIZE)


def test_the_same_mesh_under_another_prompt_measures_badly(true_run):
    figures = measure.measure_mesh(parse("a blue chair"), measure.read_mesh(newest_mesh(true_run)), judge=None)
    assert figures.pictures.iou < 0.7 and figures.pictures.psnr < 15
    assert figures.solid.normals_to > 30 and figures.solid.volume > 1.3


def test_without_a_mesh_the_field_is_still_measured(true_run, tmp_path):
    shutil.copytree(true_run, tmp_path / "run", ignore=shutil.ignore_patterns("*-export"))
    measured = measure.measure_run(tmp_path / "run", parse("a red mug"), judge=None)
    assert not measured.mesh.loads and measured.mesh.pictures is None
    assert measured.field.field_iou > 0.95
    assert measured.pictures.shape == (4, 3, views.SHEET_SIZE, views.SHEET_SIZE)


def test_a_system_comes_back_as_it_was_saved(true_run, system):
    saved = torch.load(true_run / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in system.state_dict().items():
        assert torch.equal(value, saved[name])
    assert not system.training and system.true_global_step == 250


def test_what_is_no_run_is_refused(tmp_path, true_run):
    with pytest.raises(ValueError, match="run folder"):
        measure.load_system(tmp_path)
    shutil.copytree(true_run / "configs", tmp_path / "run" / "configs")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        measure.load_system(tmp_path / "run")
