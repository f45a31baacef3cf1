"""Words for cameras: what a checkpoint states, the nearest word, and what is refused."""

import json

import pytest
import torch
from latent_prior import OptionError
from latent_prior.models.camera_words import Angles, CameraWords
from latent_prior.models.checkpoint import resolve

WORDS = CameraWords(azimuth=Angles(-180, 150, 30), elevation=Angles(-20, 80, 20))


def test_words_and_cameras_have_one_order():
    cameras = list(WORDS.cameras())
    assert len(cameras) == 12 * 6 and len(WORDS.every) == 12 + 6 == len(set(WORDS.every))
    assert WORDS.words(-30, 40) == "<azimuth-030> <elevation+40>"
    assert set(WORDS.words(*cameras[17]).split()) <= set(WORDS.every)
    azimuth, elevation = torch.tensor(cameras, dtype=torch.float32).T
    assert WORDS.index(azimuth, elevation).tolist() == list(range(len(cameras)))


def test_the_nearest_camera_against_a_loop():
    draw = torch.Generator().manual_seed(0)
    azimuth, elevation = torch.rand(300, generator=draw) * 720 - 360, torch.rand(300, generator=draw) * 180 - 90
    cameras = list(WORDS.cameras())
    for a, e, found in zip(azimuth.tolist(), elevation.tolist(), WORDS.index(azimuth, elevation).tolist(), strict=True):

        def away(camera, a=a, e=e):
            turned = abs((camera[0] - a + 180) % 360 - 180)
            return round(turned, 3) + 1000 * round(abs(camera[1] - e), 3)

        assert away(cameras[found]) == min(map(away, cameras))


@pytest.fixture
def stating(folder, tmp_path):
    """A checkpoint's folder that states something about its camera words."""
    import shutil

    def state(words):
        target = tmp_path / "stating"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        (target / "latent_prior.json").write_text(json.dumps({"camera_words": words}))
        return resolve(str(target))

    return state


def test_a_checkpoint_states_its_words(stating, folder):
    azimuth, elevation = vars(WORDS.azimuth), vars(WORDS.elevation)
    assert CameraWords.of(stating({"azimuth": azimuth, "elevation": elevation})) == WORDS
    assert CameraWords.of(resolve(str(folder))) is None
    assert CameraWords.of(resolve("pocket")) is not None


@pytest.mark.parametrize(
    "words",
    [
        "all",
        {"azimuth": {"first": 0, "last": 10, "step": 5}},
        {"azimuth": {"first": 0, "last": 10, "step": 0}, "elevation": {"first": 0, "last": 10, "step": 5}},
        {"azimuth": {"first": 0, "last": 10.5, "step": 1}, "elevation": {"first": 0, "last": 10, "step": 5}},
        {"azimuth": {"first": 0, "last": 10**9, "step": 1}, "elevation": {"first": 0, "last": 10, "step": 5}},
        {"azimuth": {"first": 5, "last": 0, "step": 1}, "elevation": {"first": 0, "last": 10, "step": 5}},
        {"azimuth": [0, 1, 2], "elevation": None},
    ],
)
def test_what_is_no_statement_is_refused(stating, words):
    with pytest.raises(OptionError, match=r"camera_words in the latent_prior.json of .* expected first, last and step"):
        CameraWords.of(stating(words))
