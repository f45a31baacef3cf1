"""The system's own checks and steps; tests/test_launch.py runs it whole."""

from types import SimpleNamespace

import pytest
import torch
from latent_prior import host
from latent_prior.systems.loss_weights import LossWeights
from latent_prior.systems.text_to_3d import LatentPriorSystem
from omegaconf import OmegaConf


class Parts(LossWeights, SimpleNamespace):
    """What a method of the system needs of it, and no more."""

    loss_settings = LatentPriorSystem.loss_settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "lab"}, "system.space is 'lab'"),
        ({"random_background": 0.5}, "system.random_background is 0.5; expected"),
        ({"random_background": "grey"}, "system.random_background is grey; expected"),
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
    ],
)
def test_bad_config_names_its_key(settings, message):
    with pytest.raises(ValueError, match=message):
        LatentPriorSystem(settings)


@pytest.mark.parametrize("weight", [0.3, [0.0, 1.0, 100], [0, 0.0, 0.0, 10, 0.5, 20]])
def test_a_weight_of_a_term_that_is_never_computed_is_refused(weight):
    """Also one that a schedule raises only later."""
    cfg = OmegaConf.create({"guidance_type": "latent-prior-guidance", "loss": {"lambda_sds": 1.0, "lambda_fm": weight}})
    guidance = SimpleNamespace(cfg={"use_fm": False, "use_kl": False})
    system = Parts(cfg=cfg, guidance=guidance)
    with pytest.raises(ValueError, match="lambda_fm is above 0, but system.guidance.use_fm is False"):
        LatentPriorSystem._check_terms_known(system)
    cfg.loss["lambda_fm"] = [0.0, 0.0, 100]
    LatentPriorSystem._check_terms_known(system)


def test_a_term_that_is_not_finite_stops_the_run_even_at_weight_0():
    logged = {}
    system = dict(
        cfg=SimpleNamespace(space="rgb", loss={"lambda_odd": 0.0}),
        prompt_processor=lambda: None,
        guidance=lambda *args, **batch: {"loss_odd": torch.tensor(float("nan"))},
        geometry=None,
        log=lambda name, value, **options: logged.update({name: value}),
        C=float,
    )
    picture = {"comp_rgb": torch.zeros(1, 2, 2, 3), "opacity": torch.zeros(1, 2, 2, 1)}

    class System(Parts):
        def __call__(self, batch):
            return picture

    with pytest.raises(ValueError, match="diverged: loss_odd = nan"):
        LatentPriorSystem.training_step(System(**system), {}, 0)


@pytest.mark.parametrize("predicting", [True, False])
def test_the_turntable_is_rendered_in_a_test_and_in_an_export(predicting):
    """Normals are rendered for the four views whose panels are written."""
    loader = SimpleNamespace(dataset=SimpleNamespace(n_views=8))
    asked, grids = [], []

    class System(SimpleNamespace):
        def __call__(self, batch, decode, normals):
            asked.append(normals)
            return {"decoded_rgb": torch.zeros(1, 4, 4, 3)}

    system = System(
        true_global_step=7,
        trainer=SimpleNamespace(
            predicting=predicting,
            predict_dataloaders=loader if predicting else None,
            test_dataloaders=None if predicting else loader,
        ),
        save_rgb_image=lambda *args, **options: None,
        save_image_grid=lambda name, *args, **options: grids.append(name),
        _panels=lambda out: [],
    )
    for index in range(8):
        LatentPriorSystem.test_step(system, {"index": torch.tensor([index]), "height": 4}, index)
    assert asked == [True, False] * 4
    assert grids == [f"it7-test/panels-{index}.png" for index in (0, 2, 4, 6)]


def test_random_backgrounds_are_greys_of_the_range_while_training():
    asked = []
    system = SimpleNamespace(
        training=True,
        cfg=SimpleNamespace(random_background=[0.2, 0.4]),
        renderer=lambda **batch: asked.append(batch) or {},
    )
    batch = {"rays_o": torch.zeros(64, 2, 2, 3)}
    LatentPriorSystem.forward(system, batch)
    grey = asked[0]["bg_color"]
    assert grey.shape == (64, 3) and 0.2 <= grey.min() < 0.25 and 0.35 < grey.max() <= 0.4
    assert torch.equal(grey, grey[:, :1].expand(-1, 3)) and "render_normal" not in asked[0]
    system.training = False
    LatentPriorSystem.forward(system, batch, normals=False)
    assert "bg_color" not in asked[1] and asked[1]["render_normal"] is False


def test_it_is_registered():
    assert host.find("latent-prior-system") is LatentPriorSystem
