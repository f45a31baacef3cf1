"""`latent-prior paint`: what a step does, what is recorded, and the command with its files."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from latent_prior import LatentPrior, OptionError, cli
from latent_prior.cli import paint as command
from latent_prior.models.options import PriorOptions
from latent_prior.runs import painting
from latent_prior.runs.painting import Variant, paint
from PIL import Image
from torch.testing import assert_close


@pytest.fixture(scope="module")
def prior(tiny_prior):
    return LatentPrior.from_pretrained(str(tiny_prior), device="cpu")


def variant(weights=painting.SCORE_ALONE, **options):
    return Variant("one", {"guidance_scale": 2.0, **options}, weights)


def test_one_step_is_adams_along_the_scores_gradient(prior):
    """Adam's first step has the length of its rate in every entry, against the sign of the gradient."""
    made = paint(prior, variant(), "a mug", steps=1, seed=3, learning_rate=0.5)
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(1, prior.autoencoder.latent_channels, *prior.denoiser.sample_size, generator=generator)
    options = prior.complete(PriorOptions(timestep_annealing="sqrt", guidance_scale=2.0))
    t_max = prior.timestep_bounds(options, 0.0)
    with torch.no_grad():
        found = prior.score(v, prior.condition("a mug", "", 1, options), t_max, options, generator)
        moved = v - 0.5 * found.delta.sign()
        assert_close(made.picture, prior.autoencoder.decode(moved).clamp(0, 1)[0], atol=1e-4, rtol=0)


def test_the_same_seed_paints_the_same(prior):
    first, again, other = (paint(prior, variant(), "a mug", steps=3, seed=seed).picture for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("space", ["latent", "picture"])
def test_frames_and_pulls(prior, space):
    steps = []
    weights = painting.WITH_FM
    made = paint(
        prior, variant(weights), "a mug", steps=9, space=space, gradients=True, on_step=lambda: steps.append(1)
    )
    assert len(steps) == len(made.frames) == 9 and made.frames[0].dtype == np.uint8
    assert np.abs(made.frames[-1] / 255 - made.picture.permute(1, 2, 0).numpy()).max() < 1 / 255
    assert [pull.step for pull in made.pulls] == [0, 3, 5, 8]
    for pull in made.pulls:
        assert list(pull.terms) == ["sds", "fm", "kl"]
        for change in pull.terms.values():
            assert (change - 0.5).abs().max() == pytest.approx(0.5, abs=1e-4)  # as large as can be shown


def test_what_a_gradient_pulls_at_is_where_the_picture_moves(prior):
    """Of the term (x - target)^2 in one corner, the pull is there and towards the target."""
    x = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    term = (x[..., :2, :2] - 1).square().sum()
    change = painting._pull(term, x, lambda x: x.clamp(0, 1)[0])
    assert_close(change[:, :2, :2], torch.ones(3, 2, 2)) and assert_close(change[:, 2:, 2:], torch.full((3, 6, 6), 0.5))


def test_pixels_as_a_target_need_pictures(prior):
    of_pixels = variant(painting.WITH_FM, fm_target="pixels")
    assert of_pixels.of_pixels and not variant(fm_target="pixels").of_pixels
    with pytest.raises(OptionError, match="--space is 'latent'; expected picture, since fm_target is pixels"):
        painting.check([of_pixels], "latent")
    made = paint(prior, of_pixels, "a mug", steps=2, space="picture")
    assert made.picture.shape[0] == 3


@pytest.fixture
def run(tiny_prior, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(*words):
        try:
            return cli.main(["paint", *words, "--checkpoint", str(tiny_prior), "--out", str(tmp_path / "out")])
        except SystemExit as end:
            return end.code

    run.out = tmp_path / "out"
    return run


def test_the_command_writes_what_it_promises(run, capsys):
    words = ["--compare", "fm_target=residual,pixels", "score=sds,csd"]
    assert run("a red mug", *words, "--gradients", "--steps", "3", "guidance_scale=4") == 0
    said = capsys.readouterr().out
    for name in ("report.html", "picture.png", "film.mp4", "variants.png", "gradients.png"):
        assert str(run.out / name) in said and (run.out / name).stat().st_size > 100
    side = Image.open(run.out / "picture.png").width
    film = iio.imread(run.out / "film.mp4")
    assert film.shape[0] == 3 and film.shape[2] == 4 * film.shape[1] >= 4 * side
    sheet = Image.open(run.out / "variants.png")
    assert 0.8 < sheet.width / sheet.height < 1  # two rows of two
    arguments = json.loads((run.out / "origin.json").read_text())["arguments"]
    assert arguments["compare"] == words[1:3] and arguments["overrides"] == ["guidance_scale=4"]
    page = (run.out / "report.html").read_text()
    assert "a red mug" in page and "what each term pulls at" in page and "data:video/mp4" in page


def test_an_fm_option_or_its_weight_turns_it_on(tiny_prior):
    def weights(*words):
        parser = cli.parser(["paint"])
        args, rest = parser.parse_known_args(["paint", "a mug", *words])
        args.overrides += rest
        return [made.weights["fm"] for made in command.variants(args)]

    assert weights() == [0] and weights("fm_target=paper") == [30] and weights("lambda_fm=2") == [2]
    assert weights("--compare", "lambda_fm=0,1.5") == [0, 1.5]
    assert weights("--compare", "score=sds,csd", "fm_layers=[mid],[up_0,up_1]") == [30] * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([" "], "PROMPT is empty"),
        (["a mug", "--steps", "0"], "--steps is 0; expected a whole number of at least 1"),
        (["a mug", "--seed", "-1"], "--seed is -1"),
        (["a mug", "--learning-rate", "nan"], "--learning-rate is nan"),
        (["a mug", "--view", "high"], "--view is 'high'; expected azimuth and elevation in degrees, such as 30,20"),
        (["a mug", "scale=3"], "there is no option 'scale'"),
        (["a mug", "score=best"], "score is 'best'"),
        (["a mug", "lambda_fm=-1"], "lambda_fm is '-1'; expected a number of at least 0"),
        (["a mug", "lambda_fm=[1"], "lambda_fm is '[1'"),
        (["a mug", "guidance_scale=high"], "guidance_scale"),
        (["a mug", "--compare", "score"], "--compare is 'score'"),
        (["a mug", "--compare", "score=sds,csd", "score=sdi,ism"], "--compare: a key is duplicated"),
        (["a mug", "--compare", "guidance_scale=" + ",".join(map(str, range(65)))], "--compare: 65 combinations"),
        (["a mug", "--space", "latent", "fm_target=pixels"], "--space is 'latent'; expected picture"),
        (["a mug", "fm_layers=[nowhere]"], "fm_layers"),
    ],
)
def test_bad_input_is_one_line(run, words, message, capsys):
    assert run(*words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0], lines
    assert not run.out.exists()


def test_a_checkpoint_that_is_not_there(tmp_path, capsys):
    assert cli.main(["paint", "a mug", "--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "error: --checkpoint: " in capsys.readouterr().err and not (tmp_path / "out").exists()
