"""The system that makes a field: its objective, what the guidance is shown, its checks and what it writes."""

from types import SimpleNamespace

import latent_prior.registration  # noqa: F401
import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError, host
from latent_prior.guidance.latent_prior import LatentPriorGuidance
from latent_prior.host.embedded import registry
from latent_prior.meshes import guide as guides
from latent_prior.meshes.files import load_mesh
from latent_prior.systems import regularisers, text_to_3d
from latent_prior.systems.text_to_3d import LatentPriorSystem
from PIL import Image


class Guidance:
    """Stands for a guidance: pulls pictures towards mid-grey, and says what it was given."""

    def __call__(self, rgb, prompt_utils, elevation, azimuth, camera_distances, rgb_as_latents=False, **batch):
        self.seen = SimpleNamespace(rgb=rgb, utils=prompt_utils, as_latents=rgb_as_latents, batch=batch)
        return {"loss_grey": (rgb - 0.5).square().mean(), "min_step": 3}

    def decode_latents(self, latents):
        return latents[:, :3].sigmoid()


def system_of(**settings) -> LatentPriorSystem:
    """A field of latents where `space` says so, else of colours; its values are random."""
    channels = 4 if settings.get("space") == "latent" else 3
    geometry = {"radius": 0.9, "grid_size": [6, 6, 6], "n_feature_dims": channels, "isosurface_resolution": 12}
    given = {
        "loss": {"lambda_grey": 2.0},
        "geometry_type": "volume-grid",
        "geometry": geometry | {"density_blob_scale": 10.0},
        "material_type": "no-material",
        "material": {"n_output_dims": channels, "color_activation": "sigmoid" if channels == 3 else "none"},
        "background_type": "solid-color-background",
        "background": {"n_output_dims": channels, "color": [1.0] * channels},
        "renderer_type": "dense-volume-renderer",
        "renderer": {"radius": 0.9, "num_samples_per_ray": 8, "randomized": False},
        "exporter_type": "vertex-color-mesh-exporter",
        "exporter": {"fmt": "ply", "save_video": False},
    } | settings
    system = LatentPriorSystem(given)
    field = getattr(system.geometry, "field", system.geometry)
    if hasattr(field, "grid"):
        torch.nn.init.normal_(field.grid[:, 1:], generator=torch.Generator().manual_seed(0))
    system.guidance, system.prompt_processor = Guidance(), lambda: "a thing"
    system.logged = {}
    system.log = lambda name, value, **options: system.logged.update({name: float(value)})
    return system


GUIDED = {"loss": {"lambda_grey": 2.0, "lambda_shape": 3.0}}


def batch_of(count=2, **changes) -> dict:
    settings = {"batch_size": count, "height": 8, "width": 8, "camera_distance_range": [2.0, 2.0]} | changes
    data = host.find("random-camera-datamodule")(settings)
    data.setup("fit")
    torch.manual_seed(0)
    return data.train_dataset.collate(None)


@pytest.fixture
def views():
    """Four views of a turntable, as a loader gives them."""
    settings = {"n_test_views": 4, "n_val_views": 4, "eval_height": 16, "eval_width": 16, "eval_camera_distance": 2.0}
    data = host.find("random-camera-datamodule")(settings)
    data.setup()
    return data.test_dataloader()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "lab"}, "system.space is 'lab'; expected one of rgb, latent"),
        ({"random_background": 0.5}, "system.random_background is 0.5; expected"),
        ({"random_background": "grey"}, "system.random_background is 'grey'; expected"),
        ({"random_background": [0.9, 0.1]}, "system.random_background is"),
        ({"random_background": [0.0, 1.0], "space": "latent"}, "system.space is latent"),
        ({"loss": {"lambda_fm": "much"}}, "system.loss.lambda_fm is 'much'; expected a number"),
        ({"loss": {"lambda_fm": [0, 1.0, -1.0, 9]}}, "system.loss.lambda_fm is .* expected a weight >= 0"),
        (
            {"loss": {"lambda_fm": [0.1, 0.2]}},
            r"system.loss.lambda_fm is \[0.1, 0.2\]; expected a number or a schedule",
        ),
        ({"loss": {"lambda_fm": [0.1]}}, r"system.loss.lambda_fm is \[0.1\]; expected a number or a schedule"),
        ({"loss": {"lambda_fm": float("nan")}}, "system.loss.lambda_fm is nan; expected a weight"),
        ({"loss": {"fm": 1.0}}, "system.loss.fm is not a weight"),
        ({"loss": {"emptiness_scale": "ten"}}, "system.loss.emptiness_scale is 'ten'"),
        ({"loss": {"emptiness_scale": 0}}, "system.loss.emptiness_scale is 0"),
        (
            {"guidance_type": "latent-prior-guidance", "loss": {"lambda_gan": 1.0}},
            "lambda_gan is not used by this system",
        ),
        ({"guidance_type": "clip-guidance", "loss": {"lambda_sds": 1.0}}, "lambda_sds is not used by this system"),
        ({"loss": {"lambda_shape": [0.0, 1.0, 9]}}, "system.guide.mesh is None; expected a mesh, since .*lambda_shape"),
        ({"guide": {"mesh": "a.obj"}}, "system.loss.lambda_shape is 0; expected a weight, since system.guide.mesh"),
        (GUIDED | {"guide": {"mesh": "a.obj", "radius": 2.0}}, "system.guide.radius is 2.0; expected at most 0.9"),
        (GUIDED | {"guide": {"mesh": "a.obj", "sigma": 0}}, "system.guide.sigma is 0.0; expected a positive length"),
        (GUIDED | {"guide": {"mesh": "a.obj", "scale": 1}}, "unknown config key .*scale"),
    ],
)
def test_bad_config_names_its_key(settings, message):
    with pytest.raises(OptionError, match=message):
        system_of(**settings)


def fit_start(system, guidance_type="other-guidance") -> None:
    """`on_fit_start` with prompts and guidance that are there already."""
    system.cfg.guidance_type, system.cfg.prompt_processor_type = guidance_type, "stand-in"
    system.on_fit_start()


@pytest.fixture(autouse=True)
def stand_in_prompts(monkeypatch):
    find = host.find
    stand_in = {"stand-in": lambda cfg: "a thing"}
    monkeypatch.setattr(host, "find", lambda name, *key: stand_in.get(name) or find(name, *key))


@pytest.mark.parametrize("weight", [0.3, [0.0, 1.0, 100], [0, 0.0, 0.0, 10, 0.5, 20]])
@pytest.mark.parametrize(
    ("guidance_type", "term", "switch"),
    [
        ("latent-prior-guidance", "sds", "use_sds"),
        ("latent-prior-guidance", "fm", "use_fm"),
        ("clip-guidance", "clip_text", "use_text"),
    ],
)
def test_a_weight_of_a_term_that_is_never_computed_is_refused(guidance_type, term, switch, weight):
    """Also one that a schedule raises only later."""
    off = SimpleNamespace(cfg=dict.fromkeys(("use_sds", "use_fm", "use_kl", "use_directional", "use_text"), False))
    system = system_of(loss={f"lambda_{term}": weight})
    system.guidance = off
    with pytest.raises(OptionError, match=f"lambda_{term} is above 0, but system.guidance.{switch} is False"):
        fit_start(system, guidance_type)
    system = system_of(loss={f"lambda_{term}": [0.0, 0.0, 100]})
    system.guidance = off
    fit_start(system, guidance_type)


def test_an_export_without_colours_is_refused_before_training(monkeypatch):
    """A guidance of another's decodes latents, but has no autoencoder of ours to fit colours to."""
    system = system_of(space="latent")
    with pytest.raises(OptionError, match="system.exporter.latent_to_rgb is None; expected a matrix, .*other-guidance"):
        fit_start(system, "other-guidance")
    matrix = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    fit_start(system_of(space="latent", exporter={"latent_to_rgb": matrix}), "other-guidance")
    fit_start(system_of(), "other-guidance")
    with pytest.raises(OptionError, match="system.exporter_type: unknown type 'mesh-exporter'"):
        fit_start(system_of(space="latent", exporter_type="mesh-exporter"), "other-guidance")
    monkeypatch.setitem(registry.__modules__, "mesh-exporter", host.Exporter)  # threestudio's brings its own colours
    fit_start(system_of(space="latent", exporter_type="mesh-exporter"), "other-guidance")


def test_bad_settings_of_the_exporter_are_known_before_training():
    with pytest.raises(OptionError, match="exporter.smoothing is -1"):
        fit_start(system_of(exporter={"smoothing": -1}))


def test_loss_is_the_guidances_and_the_regularisers():
    loss = {"lambda_grey": 2.0, "lambda_sparsity": 3.0, "lambda_tv_features": 5.0, "lambda_emptiness": 0.5}
    system = system_of(loss=loss | {"emptiness_scale": 4.0})
    batch = batch_of()
    out = system(batch)
    expected = 2 * (out["comp_rgb"] - 0.5).square().mean() + 3 * regularisers.sparsity(out["opacity"])
    expected = expected + 5 * regularisers.total_variation(system.geometry.grid[:, 1:])
    expected = expected + 0.5 * regularisers.emptiness(out["weights"], 4.0)
    torch.testing.assert_close(system.training_step(batch, 0)["loss"], expected)
    seen = system.guidance.seen
    torch.testing.assert_close(seen.rgb, out["comp_rgb"])
    assert (seen.utils, seen.as_latents) == ("a thing", False) and seen.batch["height"] == 8
    terms = {"train/loss_grey", "train/loss_sparsity", "train/loss_tv_features", "train/loss_emptiness"}
    assert terms | {"train/min_step", "train/opacity", "train_params/lambda_grey"} <= set(system.logged)


@pytest.fixture
def block(tmp_path, monkeypatch) -> str:
    """A guide's file: a block, wider (along y) than it is deep and high."""
    monkeypatch.setattr(guides, "CELLS", 16)
    monkeypatch.setattr(guides, "SAMPLES", 5000)
    trimesh.creation.box((2.0, 1.0, 1.0)).export(tmp_path / "block.stl")
    return str(tmp_path / "block.stl")


HASH_GRID = {"otype": "HashGrid", "n_levels": 3, "n_features_per_level": 2, "log2_hashmap_size": 10}
FIELDS = {
    "volume-grid": {"grid_size": [12, 12, 12]},
    "implicit-volume": {
        "pos_encoding_config": HASH_GRID | {"base_resolution": 4, "per_level_scale": 1.5},
        "mlp_network_config": {"otype": "VanillaMLP", "activation": "ReLU", "n_neurons": 16, "n_hidden_layers": 1},
    },
}


@pytest.mark.parametrize("geometry_type", FIELDS)
def test_a_field_becomes_its_guide(geometry_type, block, monkeypatch):
    """The guide alone turns an empty field into the block, and the renderer's box, shrunk before, grows to it."""
    monkeypatch.setattr(text_to_3d, "GUIDE_POINTS", 512)
    geometry = {"radius": 0.9, "density_bias": -4.0, **FIELDS[geometry_type]}
    renderer = {"radius": 0.9, "num_samples_per_ray": 16, "grid_prune": True, "prune_every": 1, "prune_resolution": 8}
    parts = {"geometry_type": geometry_type, "geometry": geometry, "renderer": renderer}
    torch.manual_seed(0)
    system = system_of(**parts, loss={"lambda_shape": 1.0}, guide={"mesh": block, "sigma": 0.1})
    fit_start(system)
    system.renderer.occupied_bbox.copy_(torch.tensor([[-0.1] * 3, [0.1] * 3]))
    optimiser = torch.optim.Adam(system.geometry.parameters(), lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        (system.weighted("shape", system._shape)).backward()
        optimiser.step()
    points = torch.tensor([[0.0, 0, 0], [0, 0.4, 0], [0, -0.4, 0], [0.6, 0, 0], [0, 0, -0.6], [0, 0.85, 0]])
    alpha = -torch.expm1(-system.geometry.forward_density(points) * 0.1)[:, 0]
    assert (alpha[:3] > 0.9).all() and (alpha[3:] < 0.1).all(), alpha
    system.renderer.update_step(0, 1)
    low, high = system.renderer.occupied_bbox
    assert (low[1] < -0.55) and (high[1] > 0.55)


def test_the_guides_term_joins_the_others_and_draws_nothing_at_weight_0(block):
    loss = {"lambda_grey": 2.0, "lambda_shape": [0.0, 3.0, 1]}  # from the next step on
    guided, plain = system_of(loss=loss, guide={"mesh": block}), system_of()
    fit_start(guided)
    guided.prompt_processor = plain.prompt_processor
    batch, states = batch_of(), []
    for system in (guided, plain):
        torch.manual_seed(1)
        states.append((system.training_step(batch, 0)["loss"], torch.rand(1)))
    assert states[0] == states[1] and "train/loss_shape" not in guided.logged
    guided.cfg.loss.lambda_shape = 3.0
    torch.manual_seed(1)
    with_guide = guided.training_step(batch, 0)["loss"]
    shape = guided.logged["train/loss_shape"]
    assert shape > 0
    torch.testing.assert_close(with_guide, states[1][0] + 3 * shape)


def test_a_mesh_has_no_density_to_guide(block):
    parts = {"material_type": "no-material", "background_type": "solid-color-background"}
    surface = {"geometry_type": "textured-mesh", "geometry": {"mesh": block}, "renderer_type": "mesh-rasterizer"}
    with pytest.raises(OptionError, match="guide.mesh is .*; expected null, since a MeshRasterizer has no density"):
        LatentPriorSystem(parts | surface | GUIDED | {"guide": {"mesh": block}})


def test_latents_go_to_the_guidance_as_such():
    system = system_of(space="latent")
    system.training_step(batch_of(), 0)
    assert system.guidance.seen.as_latents and system.guidance.seen.rgb.shape == (2, 8, 8, 4)


def test_a_term_that_is_not_finite_stops_the_run_even_at_weight_0():
    system = system_of(loss={"lambda_odd": 0.0})
    system.guidance = lambda *args, **batch: {"loss_odd": torch.tensor(float("nan"))}
    with pytest.raises(ValueError, match="diverged: loss_odd = nan"):
        system.training_step(batch_of(), 0)


@pytest.mark.parametrize("bounds", ["box", "sphere"])
def test_what_no_picture_shows_is_not_part_of_the_body_that_may_be_hollow(bounds, monkeypatch):
    system = system_of(
        geometry_type="sdf-grid",
        geometry={"radius": 0.9, "levels": [4, 16], "feature_size": 8},
        renderer={"radius": 0.9, "num_samples_per_ray": 8, "inv_std": 50.0, "bounds": bounds},
    )
    grid = system.geometry.levels[-1]
    with torch.no_grad():
        grid[0, 0, 0, :4, :4] = 100.0  # matter in a corner
    seen = []
    monkeypatch.setattr(text_to_3d.hollowing, "hollow", lambda cfg, geometry, *rest: seen.append(geometry.distances()))
    system._hollow(batch_of())
    corner = seen[0][0, 0, 0, :4, :4]
    assert (corner < 0).all() if bounds == "box" else (corner > 0).all()


def test_random_backgrounds_are_greys_of_the_range_while_training():
    """Drawn per picture; the field's own background, white, comes back in evaluation."""
    system = system_of(random_background=[0.2, 0.4])
    system.geometry.grid.data[:, 0] = -1e3  # nothing there but the background
    batch = batch_of(32, height=2, width=2)
    grey = system(batch)["comp_rgb"]
    assert 0.2 <= grey.min() < 0.25 and 0.35 < grey.max() <= 0.4
    assert torch.equal(grey, grey[:, :1, :1, :1].expand_as(grey)) and len(grey.unique()) == 32
    assert (system.eval()(batch)["comp_rgb"] == 1).all()


@pytest.mark.parametrize("space", ["rgb", "latent"])
@pytest.mark.parametrize("predicting", [True, False])
@torch.no_grad()
def test_the_turntable_is_rendered_in_a_test_and_in_an_export(tmp_path, views, predicting, space):
    """Normals are rendered for the views whose panels are written: four of a turntable, all of these."""
    system = system_of(space=space).eval()
    system.set_save_dir(str(tmp_path))
    loaders = {"predict_dataloaders": views if predicting else None, "test_dataloaders": None if predicting else views}
    system._trainer = SimpleNamespace(predicting=predicting, global_step=7, current_epoch=0, **loaders)
    for batch in views:
        system.test_step(batch, 0)
        shown = system(batch, decode=True)["decoded_rgb"][0]
        with Image.open(tmp_path / "it7-test" / f"{int(batch['index'][0])}.png") as picture:
            expected = (shown.clamp(0, 1) * 255).byte().numpy()
            assert abs(np.asarray(picture).astype(int) - expected).max() <= 1
    assert len(list(tmp_path.glob("it7-test/panels-*.png"))) == 4
    with Image.open(tmp_path / "it7-test" / "panels-0.png") as panels:
        assert panels.size == (4 * 128, 128)  # colour, opacity, depth, normal
    system.on_test_epoch_end()
    assert (tmp_path / "it7-test.mp4").is_file()


def test_normals_are_rendered_for_panels_alone(tmp_path, views, monkeypatch):
    system, asked = system_of().eval(), []
    forward = system.renderer.forward
    monkeypatch.setattr(
        system.renderer, "forward", lambda **b: asked.append(b.get("render_normal", True)) or forward(**b)
    )
    system.set_save_dir(str(tmp_path))
    loader = SimpleNamespace(dataset=SimpleNamespace(n_views=8))
    system._trainer = SimpleNamespace(predicting=False, global_step=7, current_epoch=0, test_dataloaders=loader)
    (first, *_) = views
    with torch.no_grad():
        for index in range(4):
            system.test_step({**first, "index": torch.tensor([index])}, index)
    assert asked == [True, False] * 2


def test_a_field_of_latents_is_exported_in_the_autoencoders_colours(tmp_path, tiny_prior):
    system = system_of(space="latent").eval()
    system.set_save_dir(str(tmp_path))
    system._trainer = SimpleNamespace(predicting=True, global_step=7, current_epoch=0)
    system.guidance = LatentPriorGuidance({"pretrained_model_name_or_path": str(tiny_prior)})
    system.on_predict_start()
    system.on_predict_epoch_end()
    colours = load_mesh(tmp_path / "it7-export" / "model.ply").visual.vertex_colors
    assert len(np.unique(colours[:, :3], axis=0)) > 10


def test_it_is_registered():
    assert host.find("latent-prior-system") is LatentPriorSystem
