"""The system that adapts a generator: its objective, what it trains, what it writes, and exact resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from latent_prior.runs import experiment
from latent_prior.runs import folder as run_folder
from latent_prior.stylegan2.files import load_generator, save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from latent_prior.stylegan2.layers import layers_of_w_plus
from latent_prior.systems.stylegan_adaptation import StyleGANAdaptationSystem, to_rgb
from PIL import Image

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def generator_file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config.of_size(16, z_dim=8, w_dim=8, mapping_layers=2, base=64, most=8))
    path = tmp_path_factory.mktemp("generator") / "source.safetensors"
    save_generator(generator, path)
    return path


@pytest.fixture(scope="module")
def noisy_file(generator_file) -> Path:
    """The same generator with noise that shows."""
    generator = load_generator(generator_file)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    path = generator_file.with_name("noisy.safetensors")
    save_generator(generator, path)
    return path


class Guidance:
    """Stands for a guidance: pulls pictures towards mid-grey, and says what it was given."""

    def __init__(self):
        self.seen = None

    def __call__(self, rgb, prompt_utils, elevation, azimuth, camera_distances, source_rgb=None, **batch):
        self.seen = (rgb, source_rgb, batch)
        return {"loss_grey": (rgb - 0.5).square().mean(), "min_step": 3}


def system_of(generator_file, **settings) -> StyleGANAdaptationSystem:
    settings = {"loss": {"lambda_grey": 2.0}, "pretrained_generator": str(generator_file)} | settings
    system = StyleGANAdaptationSystem(settings)
    system.guidance, system.prompt_processor = Guidance(), lambda: None
    system.logged = {}
    system.log = lambda name, value, **options: system.logged.update({name: float(value)})
    return system


def batch_of(count=3, z_dim=8) -> dict:
    camera = {"elevation": torch.zeros(count), "azimuth": torch.zeros(count), "camera_distances": torch.ones(count)}
    return {"z": torch.randn(count, z_dim, generator=torch.Generator().manual_seed(5)), "height": 16, **camera}


def test_loss_is_the_guidances_and_what_holds_to_the_source(generator_file):
    weights = {"lambda_grey": 2.0, "lambda_reconstruction": 3.0, "lambda_styles": 5.0}
    system = system_of(generator_file, loss=weights)
    with torch.no_grad():
        for parameter in system.generator.parameters():
            parameter.mul_(1.2)
    z = batch_of()["z"]
    with torch.no_grad():
        now, before = system.generator(z), load_generator(generator_file)(z)
        w_now, w_before = system.generator.mapping(z), load_generator(generator_file).mapping(z)
    loss = system.training_step(batch_of(), 0)["loss"]
    expected = 2 * (to_rgb(now) - 0.5).square().mean()
    expected = expected + 3 * F.mse_loss(now, before) + 5 * F.mse_loss(w_now, w_before)
    torch.testing.assert_close(loss.detach(), expected)
    rgb, source_rgb, batch = system.guidance.seen
    torch.testing.assert_close(rgb.detach(), to_rgb(now))
    torch.testing.assert_close(source_rgb, to_rgb(before))
    assert batch == {"height": 16}
    assert {"train/loss_grey", "train/loss_reconstruction", "train/min_step", "train/loss"} <= set(system.logged)


def test_random_noise_is_the_same_for_generator_and_source(noisy_file):
    """With equal weights the pictures are equal to the bit, step by step with other noise."""
    system = system_of(noisy_file, noise_mode="random", loss={"lambda_grey": 0.0, "lambda_reconstruction": 1.0})
    seen = []
    for _ in range(2):
        assert system.training_step(batch_of(), 0)["loss"] == 0
        rgb, source_rgb, _ = system.guidance.seen
        assert torch.equal(rgb, source_rgb)
        seen.append(rgb)
    assert not torch.allclose(*seen, atol=1e-3)
    assert not torch.allclose(seen[0][0], to_rgb(load_generator(noisy_file)(batch_of()["z"]))[0], atol=1e-3)


def test_pictures_shown_under_random_noise_differ_by_their_weights_alone(noisy_file):
    system = system_of(noisy_file, noise_mode="random").eval()
    state = torch.get_rng_state()
    before, after = system._pair(batch_of()["z"])
    assert torch.equal(before, after)
    assert torch.equal(torch.get_rng_state(), state)  # looking does not disturb training


def test_what_is_out_of_range_still_has_a_gradient(generator_file):
    """A picture far too bright is darkened: only what is shown is cut to [0, 1]."""
    system = system_of(generator_file)
    with torch.no_grad():
        system.generator.synthesis.b16.torgb.bias.fill_(9.0)
    system.training_step(batch_of(), 0)["loss"].backward()
    assert system.guidance.seen[0].min() > 1
    assert (system.generator.synthesis.b16.torgb.bias.grad > 0).all()
    _, after = system._pair(batch_of()["z"])
    assert after.min() == after.max() == 1


@pytest.mark.parametrize("count", [3, 8, 12, 16])
def test_the_grid_shows_every_code(generator_file, tmp_path, count):
    system = system_of(generator_file)
    system.set_save_dir(str(tmp_path))
    z = batch_of(count)["z"]
    system.on_validation_epoch_start()
    for part in z.split(5):
        system.validation_step({"z": part}, 0)
    system.on_validation_epoch_end()
    (file,) = tmp_path.glob("*before_after.png")
    shown = np.asarray(Image.open(file))
    rows, columns = -(-count // 8), min(8, count)
    assert shown.shape == (rows * 2 * 16, columns * 16, 3)
    with torch.no_grad():
        pictures = (to_rgb(system.generator(z)).clamp(0, 1) * 255).byte().numpy()
    tiles = shown.reshape(rows, 2, 16, columns, 16, 3).transpose(1, 0, 3, 2, 4, 5).reshape(2, -1, 16, 16, 3)
    for before_or_after in tiles:
        assert abs(before_or_after[:count].astype(int) - pictures).max() <= 1
        assert (before_or_after[count:] == 255).all()


def test_only_what_is_named_trains(generator_file):
    system = system_of(generator_file, trainable=["synthesis.*.conv1.weight", "mapping.fc1.*"])
    system.training_step(batch_of(), 0)["loss"].backward()
    trained = {name for name, p in system.generator.named_parameters() if p.grad is not None and p.grad.any()}
    convolutions = {f"synthesis.b{side}.conv1.weight" for side in (4, 8, 16)}
    assert trained == convolutions | {"mapping.fc1.weight", "mapping.fc1.bias"}
    assert not any(p.requires_grad for p in system.source.parameters())
    assert all(name.startswith("generator.") for name in system.state_dict())  # the source is not saved


def test_adaptive_places_keep_the_rest_still(generator_file):
    system = system_of(generator_file, trainable=["synthesis.*"], adaptive_layers=2)
    batch = batch_of()
    z = batch["z"].clone()
    system.training_step(batch, 0)["loss"].backward()
    system.on_before_optimizer_step(torch.optim.SGD(system.generator.parameters(), 0.1))
    # the same two places from the gradient on w+, taken apart
    w_plus = system.generator.styles(z).detach().requires_grad_()
    loss = 2 * (to_rgb(system.generator.synthesis(w_plus)) - 0.5).square().mean()
    (gradient,) = torch.autograd.grad(loss, w_plus)
    chosen = gradient.abs().mean((0, 2)).argsort(descending=True)[:2].tolist()
    for place, modules in enumerate(layers_of_w_plus(system.generator)):
        for module in modules:
            assert (module.weight.grad is not None) == (place in chosen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pretrained_generator": "cats.pkl"}, "system.pretrained_generator is 'cats.pkl'; expected pocket or"),
        ({"noise_mode": "some"}, "system.noise_mode is 'some'"),
        ({"trainable": ["convs.*"]}, "system.trainable: 'convs"),
        ({"trainable": []}, "system.trainable is ..; expected patterns"),
        ({"adaptive_layers": 7, "trainable": ["synthesis.*"]}, "system.adaptive_layers is 7; expected 1 to 6"),
        ({"adaptive_layers": 2}, "leave them out, or set adaptive_layers=null"),
        ({"loss": {"lambda_grey": -1.0}}, "expected a weight >= 0"),
        ({"guidance_type": "latent-prior-guidance", "loss": {"lambda_clip_text": 1.0}}, "is not used by this system"),
    ],
)
def test_bad_config_names_its_key(generator_file, settings, message):
    with pytest.raises(ValueError, match=message):
        system_of(generator_file, **settings)


def test_codes_of_another_size_name_their_key(generator_file):
    with pytest.raises(ValueError, match="data.z_dim is 4; expected 8, the size of the generator's z"):
        system_of(generator_file).training_step(batch_of(z_dim=4), 0)


def overrides(generator_file, tiny_prior, folder, steps):
    return [
        f"system.pretrained_generator={generator_file}",
        f"system.guidance.pretrained_model_name_or_path={tiny_prior}",
        f"system.prompt_processor.pretrained_model_name_or_path={tiny_prior}",
        "system.prompt_processor.use_cache=false",
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=2",
        "trainer.log_every_n_steps=1",
        "checkpoint.every_n_train_steps=2",
        "data.z_dim=8",
        "data.n_frames=4",
        "data.n_grid=8",
        "data.batch_size=2",
        "use_timestamp=false",
        f"exp_root_dir={folder}",
        "system.loss.lambda_sds=0.01",
    ]


def schedule_free(path: Path) -> Path:
    """The shipped config without its schedule, whose milestones follow max_steps: a longer run is to begin alike."""
    from omegaconf import OmegaConf

    cfg = OmegaConf.load(CONFIGS / "pocket_stylegan.yaml")
    del cfg["system"]["scheduler"]
    OmegaConf.save(cfg, path)
    return path


def test_run_writes_what_a_user_came_for_and_resumes_exactly(generator_file, tiny_prior, tmp_path):
    config = str(schedule_free(tmp_path / "config.yaml"))
    whole = experiment.run([config], overrides(generator_file, tiny_prior, tmp_path / "whole", 4))
    half = experiment.run([config], overrides(generator_file, tiny_prior, tmp_path / "half", 2), modes=("train",))
    go_on = [f"resume={half.folder / 'ckpts' / 'last.ckpt'}"]
    resumed = experiment.run([config], overrides(generator_file, tiny_prior, tmp_path / "half", 4) + go_on)

    save = whole.folder / "save"
    names = {path.name for path in run_folder.products(whole.folder)}
    made = {"before_after.png", "interpolation.mp4", "generator.safetensors", "generator.pt", "curves.png"}
    assert made <= names
    with Image.open(save / "before_after.png") as grid:
        assert grid.size == (8 * 16, 2 * 16)
    source = load_generator(generator_file)
    adapted, again = load_generator(save / "generator.safetensors"), load_generator(save / "generator.pt")
    in_halves = load_generator(resumed.folder / "save" / "generator.safetensors")
    z = torch.randn(4, 8)
    with torch.no_grad():
        assert not torch.allclose(source(z), adapted(z), atol=1e-3)
        torch.testing.assert_close(again(z), adapted(z))
        torch.testing.assert_close(in_halves(z), adapted(z), rtol=0, atol=1e-5)
    torch.testing.assert_close(adapted.mapping.w_avg, adapted.mapping(torch.randn(20000, 8)).mean(0), rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["pocket_stylegan", "pocket_stylegan_lsd", "pocket_stylegan_nada", "sd_stylegan_cat"])
def test_shipped_configs_name_terms_and_layers_that_exist(name, generator_file):
    from latent_prior import host

    cfg = host.load_config(str(CONFIGS / f"{name}.yaml"), cli_args=[f"system.pretrained_generator={generator_file}"])
    system = StyleGANAdaptationSystem(host.config_to_primitive(cfg.system) | {"adaptive_layers": None})
    assert system._trained
