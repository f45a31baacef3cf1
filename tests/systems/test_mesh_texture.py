"""Texturing of a mesh by the system of text to 3D: its terms, both spaces, and what a run writes and resumes."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trimesh
from latent_prior import OptionError, cli
from latent_prior.cli import launch
from latent_prior.meshes.asset import Asset
from latent_prior.runs import folder as run_folder
from omegaconf import OmegaConf
from PIL import Image
from systems.test_text_to_3d import batch_of, stand_in_prompts, system_of  # noqa: F401


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A box with colours at its vertices."""
    path = tmp_path_factory.mktemp("mesh") / "box.ply"
    mesh = trimesh.creation.box((1.0, 2.0, 3.0))
    mesh.visual.vertex_colors = np.linspace(20, 230, 32).reshape(8, 4).astype(np.uint8)
    mesh.export(path)
    return path


def texturing(box, channels=3, **settings):
    geometry = {"mesh": str(box), "field": {"grid_size": [6, 6, 6], "n_feature_dims": channels, "radius": 0.8}}
    given = {"geometry_type": "textured-mesh", "renderer_type": "mesh-rasterizer", "renderer": {}}
    given |= {"exporter_type": "textured-mesh-exporter", "exporter": {"texture_size": 64}}
    geometry |= settings.pop("geometry", {})
    return system_of(**given, geometry=geometry, **settings)


def test_its_colours_train_towards_the_guidances(box):
    """The guidance pulls towards grey; the mesh, seen from the side, follows."""
    system = texturing(box, random_background=[0.5, 0.5])
    with torch.no_grad():
        system.geometry.field.grid.fill_(1.0)
    optimizer = torch.optim.Adam(system.geometry.parameters(), 0.1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(system.training_step(batch_of(), 0)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.05 * losses[0]
    assert torch.equal(system.geometry.field.grid[:, 0], torch.ones(1, 6, 6, 6))  # nothing reads the density


def test_the_guidance_is_told_the_places_that_are_seen(box):
    system = texturing(box)
    system.training_step(batch_of(), 0)
    seen = system.guidance.seen.batch
    places = seen["points"][seen["opacity"][..., 0] > 0.99]
    half = system.geometry.isosurface().v_pos.abs().max(dim=0).values
    off = (places.abs() - half).abs().min(dim=1).values  # each lies on one side of the box
    assert len(places) > 10 and off.max() < 1e-5
    assert (places.abs() < half + 1e-5).all()


def test_latents_train_and_are_given_as_such(box):
    system = texturing(box, channels=4, space="latent")
    system.training_step(batch_of(), 0)["loss"].backward()
    assert system.guidance.seen.as_latents and system.guidance.seen.rgb.shape == (2, 8, 8, 4)
    assert system.geometry.field.grid.grad.abs().sum() > 0


def test_lit_pictures_show_the_start_in_the_same_light(box):
    """While the field is zero, nothing may pull on the colours, whatever light a batch gets."""
    lit = {"material_type": "diffuse-with-point-light-material", "material": {"ambient_only_steps": 0}}
    loss = {"lambda_grey": 0.0, "lambda_reconstruction": 2.0}
    system = texturing(box, geometry={"start": "texture"}, loss=loss, **lit)
    torch.nn.init.zeros_(system.geometry.field.grid)
    pictures = []
    for _ in range(8):
        assert system.training_step(batch_of(), 0)["loss"] < 1e-12  # rounding: 1e-17 on some processors
        pictures.append(system(batch_of())["comp_rgb"])
    assert len({picture.sum().item() for picture in pictures}) > 1  # lit, white or plain


def test_the_grid_of_its_colours_can_be_smoothed(box):
    system = texturing(box, loss={"lambda_grey": 0.0, "lambda_tv_features": 3.0})
    with torch.no_grad():
        system.geometry.field.grid.normal_(generator=torch.Generator().manual_seed(0))
    grid = system.geometry.field.grid[:, 1:]
    expected = sum(grid.diff(dim=axis).square().mean() for axis in (2, 3, 4)) / 3
    torch.testing.assert_close(system.training_step(batch_of(), 0)["loss"], 3 * expected)


def test_reconstruction_holds_on_to_the_start(box):
    system = texturing(box, geometry={"start": "texture"}, loss={"lambda_grey": 0.0, "lambda_reconstruction": 2.0})
    batch = batch_of()
    out = system(batch)
    loss = system.training_step(batch, 0)["loss"]
    torch.testing.assert_close(loss, 2 * F.mse_loss(out["comp_rgb"], out["comp_rgb_before"]))
    with torch.no_grad():
        system.geometry.field.grid.zero_()
    assert system.training_step(batch, 0)["loss"] < 1e-10
    with pytest.raises(
        OptionError, match="lambda_reconstruction needs comp_rgb_before from the renderer: set system.geo"
    ):
        texturing(box, loss={"lambda_grey": 0.0, "lambda_reconstruction": 2.0}).training_step(batch, 0)


def command(box, prior, out, *more):
    small = {
        "exp_root_dir": out,
        "use_timestamp": "false",
        "tag": "run",
        "system.prompt_processor.pretrained_model_name_or_path": prior,
        "system.prompt_processor.use_cache": "false",
        "system.guidance.pretrained_model_name_or_path": prior,
        "trainer.max_steps": 4,
        "trainer.log_every_n_steps": 1,
        "checkpoint.every_n_train_steps": 2,
        "data.height": 16,
        "data.width": 16,
        "data.eval_height": 24,
        "data.eval_width": 24,
        "data.n_test_views": 4,
        "system.exporter.texture_size": 64,
        "system.geometry.field.pos_encoding_config.log2_hashmap_size": 8,
    }
    return ["texture", str(box), "a red mug", *(f"{key}={value}" for key, value in small.items()), *more]


@pytest.fixture(scope="module")
def finished(box, tiny_prior, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert cli.main(command(box, tiny_prior, out, "--start", "texture", "--format", "glb,obj")) == 0
    return out / "pocket_mesh_texture" / "run"


def test_a_run_writes_what_a_user_came_for(finished, box):
    save = finished / "save"
    written = {path.name for path in (save / "it4-export").iterdir()}
    assert written == {"model.glb", "model.obj", "model.mtl", "model.png", "model_texture.png"}
    with Image.open(save / "before_after.png") as picture:
        assert picture.size == (8 * 24, 24)
    assert (save / "it4-test.mp4").is_file() and (save / "curves.png").is_file()
    before, after = Asset.read(box), Asset.read(save / "it4-export" / "model.glb")
    np.testing.assert_allclose(
        *([part.vertices.min(axis=0), part.vertices.max(axis=0)] for part in (before.parts[0], after.parts[0])),
        atol=1e-6,
    )
    settings = json.loads((finished / "configs" / "origin.json").read_text())
    assert str(box) in str(settings) or str(box) in (finished / "configs" / "parsed.yaml").read_text()


def test_it_is_resumed_exported_and_textured_further(finished, box, tiny_prior, tmp_path):
    assert cli.main(["resume", str(finished), "trainer.max_steps=6"]) == 0
    assert run_folder.last_step(finished) == 6
    assert cli.main(["export", str(finished), "--format", "ply"]) == 0
    assert (finished / "save" / "it6-export" / "model.ply").is_file()
    assert cli.main(command(finished, tiny_prior, tmp_path, "--start", "texture")) == 0
    # the export of now, and not a later one
    stored = OmegaConf.load(tmp_path / "pocket_mesh_texture" / "run" / "configs" / "parsed.yaml")
    assert stored.system.geometry.mesh == str(finished / "save" / "it6-export" / "model.glb")
    further = tmp_path / "pocket_mesh_texture" / "run" / "save" / "it4-export" / "model.glb"
    old, new = Asset.read(box), Asset.read(further)
    np.testing.assert_allclose(old.parts[0].vertices.max(axis=0), new.parts[0].vertices.max(axis=0), atol=1e-6)


def test_a_run_knows_its_mesh_wherever_it_is_continued(box, tiny_prior, tmp_path, monkeypatch):
    mesh = tmp_path / "in" / "box.ply"
    mesh.parent.mkdir()
    shutil.copy(box, mesh)
    settings = command(mesh, tiny_prior, tmp_path, "trainer.max_steps=1", "system.geometry.mesh=box.ply")[3:]
    settings.append("system.prompt_processor.prompt=a red mug")
    monkeypatch.chdir(mesh.parent)
    config = str(run_folder.config_path("pocket_mesh_texture"))
    assert launch.main(["--config", config, *settings, "--train"]) == 0
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "pocket_mesh_texture" / "run"
    for name in ("parsed.yaml", "unresolved.yaml"):
        assert OmegaConf.load(run / "configs" / name).system.geometry.mesh == str(mesh)
    assert cli.main(["export", str(run)]) == 0


def test_a_mesh_that_is_none_is_one_line(tiny_prior, tmp_path, capsys):
    (tmp_path / "words.glb").write_text("this is no mesh")
    assert cli.main(command(tmp_path / "words.glb", tiny_prior, tmp_path)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: system.geometry.mesh: ") and "words.glb" in said
    assert not (tmp_path / "pocket_mesh_texture").exists()
