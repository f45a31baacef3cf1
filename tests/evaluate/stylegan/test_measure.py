"""Figures of generators whose pictures are known."""

import dataclasses

import pytest
import torch
from latent_prior import metrics
from latent_prior.evaluate.stylegan import measure
from latent_prior.evaluate.stylegan import truth as truths
from latent_prior.evaluate.stylegan.features import ScriptFeatures
from latent_prior.evaluate.stylegan.measure import Figures, Measurer
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.pocket.captions import parse
from latent_prior.pocket.judge import Judge
from latent_prior.pocket.mug_scenes import truth
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from PIL import Image

PROMPT, SIZE, COUNT = "a golden mug", 64, 12


class Painter(StyleGAN2):
    """Paints the truth of its z, or what `change` makes of it."""

    def __init__(self, prompt=PROMPT, change=lambda pictures: pictures):
        super().__init__(StyleGAN2Config.of_size(SIZE, z_dim=16, w_dim=16, mapping_layers=1, base=64))
        self.prompt, self.change = prompt, change

    def forward(self, z, truncation=1.0, noise_mode="const", generator=None):
        assert noise_mode == "const"
        return self.change(truth(z, parse(self.prompt), SIZE)) * 2 - 1


@pytest.fixture(scope="module")
def judge():
    return Judge.load(str(POCKET_FOLDER / "judge"))


@pytest.fixture(scope="module")
def measurer(judge, tmp_path_factory):
    cache = tmp_path_factory.mktemp("truth")
    return Measurer(judge, None, COUNT, 1.0, z_dim=16, size=SIZE, cache=cache)


def test_a_generator_that_paints_the_truth(measurer, judge):
    measured = measurer.generator(PROMPT, Painter())
    figures = Figures(**measured.figures)
    assert figures.psnr == measure.PSNR_CAP
    assert figures.recognised > 0.8
    made = truths.to_bytes(truth(truths.codes(COUNT, 16), parse(PROMPT), SIZE)).float() / 255
    embeddings = judge.embed_images(made)
    text = judge.embed_texts([PROMPT])[0]
    cosines = [torch.dot(one, text) for one in embeddings]
    assert figures.clip_score == pytest.approx(100 * float(sum(cosines)) / COUNT, abs=1e-3)
    pairs = [1 - torch.dot(a, b).item() for i, a in enumerate(embeddings) for b in embeddings[i + 1 :]]
    assert figures.diversity == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    domain = truth(truths.codes(COUNT, 16, truths.TRUTH_SEED), parse(PROMPT), SIZE)
    features = [judge.project_images(truths.to_bytes(p).float() / 255) for p in (made, domain)]
    assert figures.frechet == pytest.approx(metrics.frechet_distance(*features), rel=1e-4)
    torch.testing.assert_close(measured.pictures, made[:8])


def test_others_are_farther_off(measurer):
    right = Figures(**measurer.generator(PROMPT, Painter()).figures)
    wrong = Figures(**measurer.generator(PROMPT, Painter("a blue mug")).figures)
    assert wrong.frechet > 2 * right.frechet and wrong.clip_score < right.clip_score
    assert wrong.psnr < 30 and wrong.recognised == 0
    alike = Figures(
        **measurer.generator(PROMPT, Painter(change=lambda pictures: pictures[:1].expand_as(pictures))).figures
    )
    assert alike.diversity == pytest.approx(0, abs=1e-6) and alike.frechet > right.frechet


def test_psnr_is_of_the_first_z_alone(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(truths, "PAIRED", 3)
    measurer = Measurer(judge, None, 6, 1.0, z_dim=16, size=SIZE, cache=tmp_path)

    def spoiled(pictures):
        return torch.cat([pictures[:3], 1 - pictures[3:]])

    assert measurer.generator(PROMPT, Painter(change=spoiled)).figures["psnr"] == measure.PSNR_CAP
    measured = measurer.truth(PROMPT)
    torch.testing.assert_close(
        measured.pictures, truths.rendered(tmp_path, parse(PROMPT), 6, 16, SIZE)[1].float() / 255
    )


def test_the_truths_own_figures(measurer):
    figures = Figures(**measurer.truth(PROMPT).figures)
    assert figures.frechet is None and figures.psnr is None
    assert figures.recognised > 0.8 and 0 < figures.diversity < 1


def test_against_a_folder(judge, tmp_path):
    pictures = truths.to_bytes(truth(truths.codes(6, 16), parse(PROMPT), SIZE))
    for i, picture in enumerate(pictures):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    cache = tmp_path / "cache"
    real = Measurer(judge, None, 6, 1.0, z_dim=16, size=SIZE, cache=cache, real=tmp_path)
    figures = Figures(**real.generator("my own mug", Painter()).figures)
    assert figures.frechet == pytest.approx(0, abs=1e-4)  # the very same pictures
    assert figures.psnr is None and figures.recognised is None and figures.clip_score is not None
    torch.testing.assert_close(real.truth("my own mug").pictures, pictures.float() / 255)
    assert not cache.exists()


class Mean(ScriptFeatures):
    """The mean colour and its square, without a file."""

    def __init__(self):
        self.name, self.digest = "mean.pt", "mean"

    def __call__(self, pictures):
        mean = pictures.float().mean((2, 3)) / 255
        return torch.cat([mean, mean.square()], 1)


def test_features_of_a_file_without_a_judge(measurer):
    plain = dataclasses.replace(measurer, judge=None, extractor=Mean())
    figures = Figures(**plain.generator(PROMPT, Painter()).figures)
    assert figures.clip_score is None and figures.recognised is None and figures.psnr == measure.PSNR_CAP
    made, domain = (
        Mean()(truths.to_bytes(truth(truths.codes(COUNT, 16, seed), parse(PROMPT), SIZE)))
        for seed in (truths.Z_SEED, truths.TRUTH_SEED)
    )
    assert figures.frechet == pytest.approx(metrics.frechet_distance(made, domain), rel=1e-6)
    assert figures.diversity == pytest.approx(metrics.mean_cosine_distance(made), rel=1e-6)


def test_truncation_and_batches_reach_the_generator(monkeypatch):
    monkeypatch.setattr(measure, "BATCH", 3)
    generator = StyleGAN2(StyleGAN2Config.of_size(8, z_dim=16, w_dim=16, mapping_layers=2, base=64)).eval()
    generator.mapping.estimate_average()
    z = truths.codes(7, 16)
    batches = list(measure.pictures_of(generator, z, 0.5))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    with torch.no_grad():
        expected = truths.to_bytes((generator(z, 0.5, "const") + 1) / 2)
    assert (torch.cat(batches).int() - expected.int()).abs().max() <= 1  # batches round differently


def test_generators_that_cannot_be_measured(measurer):
    other = StyleGAN2(StyleGAN2Config.of_size(8, z_dim=16, w_dim=16, mapping_layers=2, base=64))
    with pytest.raises(ValueError, match="16 entries of z and 8 pixels per side; expected 16 and 64"):
        measurer.generator(PROMPT, other)
    with pytest.raises(ValueError, match="not finite"):
        measurer.generator(PROMPT, Painter(change=lambda pictures: pictures * float("nan")))


def test_the_digest_tells_settings_apart(measurer, tmp_path):
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    changes = [{}, {"count": 7}, {"truncation": 0.7}, {"size": 8}, {"z_dim": 32}, {"judge": None}]
    changes += [{"extractor": Mean()}, {"real": tmp_path}]
    digests = [dataclasses.replace(measurer, **change).digest for change in changes]
    Image.new("RGB", (9, 8)).save(tmp_path / "b.png")
    digests.append(dataclasses.replace(measurer, real=tmp_path).digest)
    assert len(set(digests)) == len(digests)
    assert dataclasses.replace(measurer, cache=tmp_path).digest == measurer.digest
