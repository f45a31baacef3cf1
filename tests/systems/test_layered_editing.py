"""The system that edits a picture: its objective, what the guidance is shown, what it writes, and exact resuming."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from latent_prior.files.pictures import read_picture, to_picture, to_tensor
from latent_prior.runs import experiment
from latent_prior.runs import folder as run_folder
from latent_prior.systems.layered_editing import SCREENS, LayeredEditingSystem, sparsity
from PIL import Image

CONFIGS = Path(__file__).parents[2] / "configs"
LAYERED = ["pocket_layered_editing", "pocket_layered_editing_lsd", "pocket_layered_editing_clip", "sd_layered_editing"]


class Guidance:
    """Stands for a guidance: pulls pictures towards mid-grey, and says what it was given."""

    def __init__(self):
        self.seen = None

    def __call__(self, rgb, prompt_utils, elevation, azimuth, camera_distances, source_rgb, prompt, **batch):
        self.seen = {"rgb": rgb, "utils": prompt_utils, "source": source_rgb, "prompt": prompt}
        return {"loss_grey": (rgb - 0.5).square().mean(), "min_step": 3}


def system_of(**settings) -> LayeredEditingSystem:
    torch.manual_seed(0)
    settings = {
        "loss": {"lambda_grey": 2.0},
        "generator": {"channels": 8},
        "short_side": 16,
        "prompt_processor": {"prompt": "a cat"},
    } | settings
    system = LayeredEditingSystem(settings)
    system.guidance = Guidance()
    system.prompt_processor, system.screen_prompt_processor = lambda: "cat", lambda: "screen"
    system._screen_prompt = "a cat on a screen"
    system.logged = {}
    system.log = lambda name, value, **options: system.logged.update({name: float(value)})
    return system


def batch_of(**more) -> dict:
    g = torch.Generator().manual_seed(5)
    camera = {"elevation": torch.zeros(1), "azimuth": torch.zeros(1), "camera_distances": torch.ones(1)}
    return {"picture": torch.rand(1, 3, 16, 16, generator=g), "height": 16, **camera, **more}


def test_sparsity_is_text2lives():
    alpha = torch.tensor([0.0, 1.0, 0.25, 0.5]).view(1, 1, 2, 2)
    expected = sum(a + 2 / (1 + 2.718281828 ** (-5 * a)) - 1 for a in (0.0, 1.0, 0.25, 0.5)) / 4
    assert sparsity(alpha).item() == pytest.approx(expected, abs=1e-6)
    assert sparsity(torch.zeros(1, 1, 3, 3)) == 0


def test_loss_is_the_guidances_and_what_keeps_the_layer_small():
    weights = {"lambda_grey": 2.0, "lambda_sparsity": 3.0, "lambda_mask": 5.0}
    system = system_of(loss=weights)
    batch, mask = batch_of(), torch.zeros(1, 1, 16, 16)
    mask[..., 4:9, 3:12] = 1
    picture = batch["picture"].clone()
    layer = system(picture)
    composite = layer.alpha * layer.rgb + (1 - layer.alpha) * picture
    expected = 2 * (composite - 0.5).square().mean() + 3 * sparsity(layer.alpha) + 5 * F.mse_loss(layer.alpha, mask)
    loss = system.training_step({**batch, "mask": mask}, 0)["loss"]
    torch.testing.assert_close(loss, expected)
    without = system.training_step(batch_of(), 0)["loss"]
    torch.testing.assert_close(loss - without, 5 * F.mse_loss(layer.alpha, mask))
    assert {"train/loss_grey", "train/loss_sparsity", "train/loss_mask", "train/min_step"} <= set(system.logged)


def test_the_guidance_sees_composite_and_screen_in_turn(monkeypatch):
    system, step = system_of(screen_every=3), [0]
    monkeypatch.setattr(LayeredEditingSystem, "true_global_step", property(lambda self: step[0]))
    picture = batch_of()["picture"]
    layer = system(picture)
    green = torch.tensor(SCREENS["green"]).view(1, 3, 1, 1).expand_as(picture)
    for step[0] in range(7):
        system.training_step(batch_of(), 0)
        seen = system.guidance.seen
        on_screen = step[0] % 3 == 2
        background = green if on_screen else picture
        torch.testing.assert_close(seen["rgb"].permute(0, 3, 1, 2), layer.over(background))
        before = layer.alpha * picture + (1 - layer.alpha) * green if on_screen else picture
        torch.testing.assert_close(seen["source"].permute(0, 3, 1, 2), before)
        assert not seen["source"].requires_grad
        assert (seen["utils"], seen["prompt"]) == (("screen", "a cat on a screen") if on_screen else ("cat", "a cat"))
    assert "train/screen_loss_grey" in system.logged


def test_screens_can_be_left_out_or_grey(monkeypatch):
    monkeypatch.setattr(LayeredEditingSystem, "true_global_step", property(lambda self: 1))
    never = system_of(screen_every=0)
    never.training_step(batch_of(), 0)
    torch.testing.assert_close(never.guidance.seen["source"].permute(0, 3, 1, 2), batch_of()["picture"])
    grey = system_of(screen="grey", screen_every=2)._screen(batch_of()["picture"])
    assert grey.shape == (1, 3, 16, 16) and len(grey.unique()) == 1


def test_structure_compares_self_similarities():
    system = system_of(loss={"lambda_grey": 0.0, "lambda_structure": 4.0})

    class Similarity:
        @staticmethod
        def self_similarity(pictures):
            return pictures.flatten(2)[:, 0, :, None] * pictures.flatten(2)[:, 0, None, :]

    system._structure = Similarity
    batch = batch_of()
    picture = batch["picture"].clone()
    composite = system(picture).over(picture)
    expected = 4 * F.mse_loss(Similarity.self_similarity(composite), Similarity.self_similarity(picture))
    torch.testing.assert_close(system.training_step(batch, 0)["loss"], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"screen": "blue"}, "system.screen is 'blue'; expected one of green, grey"),
        ({"screen_every": -1}, "system.screen_every is -1"),
        ({"generator": {"code": "top"}}, "system.generator.code is 'top'"),
        ({"generator": {"depth": 3}}, "depth"),
        ({"short_side": 7}, "system.short_side is 7; expected at least 8"),
        ({"guidance_type": "clip-guidance", "loss": {"lambda_sds": 1.0}}, "lambda_sds is not used by this system"),
        ({"loss": {"lambda_sparsity": -1.0}}, "expected a weight >= 0"),
    ],
)
def test_bad_config_names_its_key(settings, message):
    with pytest.raises(ValueError, match=message):
        system_of(**settings)


@pytest.fixture
def picture_file(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    to_picture(torch.rand(3, 36, 48, generator=torch.Generator().manual_seed(1))).save(path)
    return path


def overrides(picture_file, tiny_prior, folder, steps):
    return [
        f"data.image={picture_file}",
        "data.short_side=16",
        "system.generator.channels=8",
        f"system.guidance.pretrained_model_name_or_path={tiny_prior}",
        f"system.prompt_processor.pretrained_model_name_or_path={tiny_prior}",
        "system.prompt_processor.use_cache=false",
        "system.scheduler.args.gamma=0.99",
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=2",
        "trainer.log_every_n_steps=1",
        "checkpoint.every_n_train_steps=2",
        "use_timestamp=false",
        f"exp_root_dir={folder}",
    ]


def test_run_writes_what_a_user_came_for_and_resumes_exactly(picture_file, tiny_prior, tmp_path):
    config = str(CONFIGS / "pocket_layered_editing.yaml")
    whole = experiment.run([config], overrides(picture_file, tiny_prior, tmp_path / "whole", 4))
    half = experiment.run([config], overrides(picture_file, tiny_prior, tmp_path / "half", 2), modes=("train",))
    go_on = [f"resume={half.folder / 'ckpts' / 'last.ckpt'}"]
    resumed = experiment.run([config], overrides(picture_file, tiny_prior, tmp_path / "half", 4) + go_on)

    save = whole.folder / "save"
    names = {path.name for path in run_folder.products(whole.folder)}
    pictures = {"composite.png", "alpha.png", "edit.rgba.png", "screen.png", "before_after.png"}
    assert pictures | {"curves.png", "last.ckpt"} <= names
    modes = {"composite": "RGB", "alpha": "L", "edit.rgba": "RGBA", "screen": "RGB"}
    for name, mode in modes.items():
        with Image.open(save / f"{name}.png") as image:
            assert (image.size, image.mode) == ((48, 36), mode)  # the picture's own size
    # the layer as a user would lay it over the picture elsewhere
    photo = read_picture(picture_file).convert("RGBA")
    with Image.open(save / "edit.rgba.png") as layer:
        laid_over = to_tensor(Image.alpha_composite(photo, layer).convert("RGB"))
    assert (laid_over - to_tensor(read_picture(save / "composite.png"))).abs().max() <= 2.5 / 255

    states = [run.system.generator.state_dict() for run in (whole, resumed)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-5)


def test_a_cut_out_picture_keeps_its_alpha(tmp_path):
    system, g = system_of(), torch.Generator().manual_seed(2)
    system.set_save_dir(str(tmp_path))
    original = torch.rand(1, 4, 20, 24, generator=g)
    system.test_step({"picture": torch.rand(1, 3, 16, 16, generator=g), "original": original}, 0)
    with Image.open(tmp_path / "composite.png") as image:
        assert image.mode == "RGBA"
        torch.testing.assert_close(to_tensor(image)[3], original[0, 3], rtol=0, atol=0.51 / 255)
    with Image.open(tmp_path / "before_after.png") as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("name", LAYERED)
def test_shipped_configs_name_terms_and_layers_that_exist(name):
    from latent_prior import host

    cfg = host.load_config(str(CONFIGS / f"{name}.yaml"), cli_args=["system.generator.channels=4"])
    system = LayeredEditingSystem(host.config_to_primitive(cfg.system))
    assert system.generator.cfg.scales == (7 if name.startswith("sd_") else 5)
