"""A run whose field is the truth gets near-perfect figures, through checkpoint, renderer and exported mesh."""

import shutil

import pytest
import torch
from latent_prior.evaluate.text_to_3d import measure, views
from latent_prior.pocket.captions import parse


@pytest.fixture(scope="module")
def system(true_run):
    return measure.load_system(true_run)


def test_a_true_field_measures_well(true_run):
    subject = parse("a red mug")
    measured = measure.measure_run(true_run, subject, judge=None)
    # what is left: a voxel grid of 64^3 with 48 samples a ray against exact edges, and light that does not follow
    # the camera
    assert measured.field.iou > 0.95
    assert measured.field.psnr > 27
    assert measured.field.fog < 0.002
    assert measured.mesh.loads and measured.mesh.one_body and measured.mesh.colour_right
    assert measured.mesh.chamfer < 0.02
    assert measured.pictures.shape == (4, 3, views.SHEET_SIZE, views.SHEET_SIZE)


def test_the_same_field_under_another_prompt_measures_badly(system):
    ring, single = views.field_views(system, views.ring()), views.field_views(system, views.single())
    figures = measure.measure_field(parse("a blue chair"), ring, single, judge=None)
    assert figures.iou < 0.7 and figures.psnr < 15


def test_a_system_comes_back_as_it_was_saved(true_run, system):
    saved = torch.load(true_run / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in system.state_dict().items():
        assert torch.equal(value, saved[name])
    assert not system.training and system.true_global_step == 7


def test_what_is_no_run_is_refused(tmp_path, true_run):
    with pytest.raises(ValueError, match="run folder"):
        measure.load_system(tmp_path)
    shutil.copytree(true_run / "configs", tmp_path / "run" / "configs")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        measure.load_system(tmp_path / "run")
