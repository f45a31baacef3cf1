"""A field that is the truth: a voxel grid filled from the solid's signed distance and its shaded colours, as a run."""

from pathlib import Path

import code_run
import pytest
import torch

STEP = 250  # of the checkpoints: all levels of the field count
CONFIG = Path(__file__).parents[2] / "custom" / "latent_prior.yaml"


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("LATENT_PRIOR_DEVICE", "cpu")


@pytest.fixture(autouse=True)
def code_runs(monkeypatch):
    """Commands of code_run.py can be run."""
    monkeypatch.setenv("PYTHONPATH", str(code_run.FOLDER))


@pytest.fixture(autouse=True)
def coarse_truth(monkeypatch):
    """The truth's mesh on a coarser grid: a tenth of the time, for figures that are as good."""
    from latent_prior.evaluate.text_to_3d import surface
    from latent_prior.pocket.truth import truth_mesh

    monkeypatch.setattr(surface, "truth_mesh", lambda kind: truth_mesh(kind, resolution=56))
    monkeypatch.setattr(surface, "SAMPLES", 8000)
    for cached in (surface._truth_points, surface.truth_bodies, surface.truth_mean_colours):
        cached.cache_clear()
    yield
    for cached in (surface._truth_points, surface.truth_bodies, surface.truth_mean_colours):
        cached.cache_clear()


def fill_with_truth(system, subject):
    """Make the system's field the subject: its distances, and on its surface its colours."""
    from latent_prior.evaluate.text_to_3d.surface import FACING
    from latent_prior.pocket import renderer, solids

    geometry = system.geometry

    def grid_points(side):
        centres = ((torch.arange(side) + 0.5) / side * 2 - 1) * geometry.cfg.radius
        z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
        return torch.stack([x, y, z], dim=-1)

    finest = geometry.levels[-1]
    distance = solids.signed_distance(subject.kind, grid_points(finest.shape[-1]))
    points = grid_points(geometry.features.shape[-1]).view(-1, 3)
    normal = renderer.normals(subject.kind, points)
    near = points - normal * solids.signed_distance(subject.kind, points)[:, None]
    shaded = renderer.shade(subject, torch.tensor(subject.rgb).expand_as(points), near, normal, FACING * normal)
    with torch.no_grad():
        geometry.shares.fill_(1.0)
        finest.copy_((geometry.start[0, 0] - distance) / geometry.cfg.level_scale)
        geometry.features.copy_(torch.logit(shaded, eps=1e-4).T.reshape_as(geometry.features))


@pytest.fixture(scope="session")
def make_run():
    """Writes a run folder whose field is a subject; returns it. `export` writes its mesh too."""

    def make(folder, prompt, seed=0, export=True, **settings):
        import latent_prior
        from latent_prior import host
        from latent_prior.pocket.captions import parse

        latent_prior.register()
        overrides = [f"{key}={value}" for key, value in {"seed": seed, **settings}.items()]
        system_settings = {"system": {"prompt_processor": {"prompt": prompt}}}
        cfg = host.load_config(str(CONFIG), cli_args=overrides, **system_settings)
        system = host.find(cfg.system_type)(cfg.system)
        fill_with_truth(system, parse(prompt))
        for part in ("configs", "ckpts", f"save/it{STEP}-export"):
            (folder / part).mkdir(parents=True)
        host.dump_config(str(folder / "configs" / "parsed.yaml"), cfg)
        state = {"state_dict": system.state_dict(), "epoch": 0, "global_step": STEP}
        torch.save(state, folder / "ckpts" / "last.ckpt")
        if export:
            system.set_save_dir(str(folder / "save"))
            system.set_resume_status(0, STEP)
            system.eval().on_predict_start()
            system.on_predict_epoch_end()
        return folder

    return make


@pytest.fixture(scope="session")
def true_run(make_run, tmp_path_factory):
    """A red mug."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "mug", "a red mug", **{"system.geometry.isosurface_resolution": 80}
    )


@pytest.fixture
def fixed_judge():
    """Makes a judge of fixed opinions: one row of similarities a picture, the same again for every batch."""
    from latent_prior.pocket.captions import every_subject
    from latent_prior.pocket.judge import Judge

    class FixedJudge(Judge):
        def __init__(self, rows):
            self.subjects = every_subject()
            self.rows = rows

        def similarities(self, images):
            out = torch.zeros(len(images), len(self.subjects))
            for row, liked in zip(out, self.rows, strict=False):
                for subject, value in liked.items():
                    row[self.subjects.index(subject)] = value
            return out

    return FixedJudge
