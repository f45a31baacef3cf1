"""The truth, written as a user's mesh would be, has perfect figures; other looks have not; the command from end to end."""

import dataclasses
import json

import pytest
import torch
from code_run import command as code_command
from latent_prior import cli
from latent_prior.evaluate.text_to_3d import views
from latent_prior.evaluate.text_to_3d.surface import mean_colour
from latent_prior.evaluate.text_to_3d.views import mesh_views
from latent_prior.evaluate.texturing import evaluation, measure, solids
from latent_prior.meshes.asset import Asset
from latent_prior.pocket.captions import every_subject, parse
from latent_prior.pocket.truth import truth_mesh
from latent_prior.runs.sweep import jobs

MUG = parse("a striped red mug")


@pytest.fixture(scope="module", autouse=True)
def coarse_solids():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solids, "truth_mesh", lambda kind: truth_mesh(kind, resolution=56))
        patch.setattr(solids, "TEXTURE_SIZE", 256)
        yield


@pytest.fixture(scope="module")
def painted(tmp_path_factory, coarse_solids):
    return solids.write_painted(MUG, tmp_path_factory.mktemp("meshes"))


def test_the_truth_as_a_file_has_the_truths_pictures(painted):
    asset = Asset.read(painted)
    found = mesh_views(asset, views.ring())
    truth = views.truth_views(MUG, views.ring())
    assert (found.opacity - truth.opacity).abs().mean() < 0.01
    assert (found.rgb - truth.rgb).abs().mean() < 0.02


def test_the_truths_figures_are_nearly_perfect_and_another_looks_are_not(painted, fixed_judge, monkeypatch):
    monkeypatch.setattr(measure, "PHASES", {"striped": 2})
    asset = Asset.read(painted)
    opinions = [{MUG: 0.9}] * 12 + [{parse("a red mug"): 0.9}] * 4
    found = measure.figures(MUG, asset, fixed_judge(opinions))
    assert found.psnr > 25 and found.psnr_above > 25
    assert found.best_psnr == pytest.approx(found.psnr)
    assert found.r_ring == 12 / 16 and found.r_ring_mean and found.colour_right
    other = measure.figures(parse("a striped blue mug"), asset, fixed_judge(opinions))
    assert other.psnr < 20 and not other.colour_right and other.colour == "red" and not other.r_ring_mean


def test_the_best_phase_finds_shifted_stripes(monkeypatch):
    monkeypatch.setattr(measure, "PHASES", {"striped": 4})
    shifted = views.truth_views(MUG, views.ring(), phase=1 / 4)
    assert measure._best_psnr(MUG, shifted) == 100
    assert measure._psnr(shifted, views.truth_views(MUG, views.ring()).rgb) < 20


def test_the_mean_colour_is_over_the_surface(tmp_path):
    """A box, half of whose area is red and half blue, by vertex colours on separate faces."""
    import trimesh

    box = trimesh.creation.box()
    box.unmerge_vertices()
    red = box.vertices.reshape(-1, 3, 3)[:, :, 2].mean(axis=1) > 0
    area = box.area_faces[red].sum() / box.area
    box.visual.vertex_colors = [([255, 0, 0, 255] if one else [0, 0, 255, 255]) for one in red for _ in range(3)]
    box.export(tmp_path / "box.ply")
    found = mean_colour(Asset.read(tmp_path / "box.ply"), 20_000)
    assert found == pytest.approx([area, 0, 1 - area], abs=0.02)


def test_every_look_has_another_one_of_the_same_solid():
    known = set(every_subject())
    for subject in known:
        other = solids.other_look(subject)
        assert other.kind == subject.kind and other != subject and other in known


def test_the_command_from_end_to_end(painted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "PHASES", {})
    plan = jobs.planned

    def stand_in(job):
        save = job.run / "save" / "it1-export"
        code = (
            f"import os, shutil; os.makedirs({str(save)!r}); shutil.copy({str(painted)!r}, {str(save / 'model.glb')!r})"
        )
        return dataclasses.replace(job, command=code_command(code))

    given = []
    monkeypatch.setattr(jobs, "planned", lambda *args: [stand_in(job) for job in given.extend(plan(*args)) or given])
    command = [
        "evaluate",
        "texturing",
        "--prompts",
        MUG.caption,
        "--out",
        "out",
        "--config",
        "ours=pocket_mesh_texture",
    ]
    assert cli.main(command) == 0
    (job,) = given
    assert f'system.geometry.mesh="{tmp_path / "out" / "meshes" / "mug.glb"}"' in job.command
    (run,) = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"]
    assert run["psnr"] > 25 and run["colour_right"] and run["error"] is None
    assert (tmp_path / "out" / "contact_sheet-seed0.png").is_file()
    assert "best phase" in capsys.readouterr().out
    assert Asset.read(tmp_path / "out" / "meshes" / "mug.glb").parts[0].colour.is_plain


def test_restyling_starts_from_another_look(tmp_path):
    task = evaluation.task_of("a golden mug", tmp_path, restyling=True)
    assert task.given == "a golden mug" and task.prompt.endswith(" mug → a golden mug")
    assert task.values["system.geometry.start"] == "texture"
    asset = Asset.read(task.values["system.geometry.mesh"])
    assert asset.parts[0].colour.picture is not None


def test_other_configs_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "texturing", "--prompts", MUG.caption, "--config", "latent_prior"]) == 2
    assert "'latent_prior' textures no mesh: its system.geometry_type is 'sdf-grid'" in capsys.readouterr().err
    assert cli.main(["evaluate", "texturing", "system.geometry.mesh=x.glb"]) == 2
    assert torch.is_grad_enabled()
