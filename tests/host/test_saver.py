"""Pictures, videos and files: written, read back, compared."""

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from latent_prior import OptionError
from latent_prior.host.embedded.pictures import grayscale_picture, grid_picture, rgb_picture
from latent_prior.host.embedded.saver import SaverMixin
from PIL import Image


@pytest.fixture
def saver(tmp_path):
    saver = SaverMixin()
    saver.set_save_dir(tmp_path / "save")
    return saver


def read(path):
    return np.asarray(Image.open(path))


def test_colours_survive_a_png(saver):
    img = torch.tensor([[[0.0, 0.5, 1.0], [2.0, -1.0, 0.2]]], requires_grad=True)
    picture = read(saver.save_rgb_image("a/b.png", img))
    assert picture.tolist() == [[[0, 127, 255], [255, 0, 51]]]


def test_maps_are_grey():
    ramp = torch.tensor([[0.0, 2.0, 4.0, 6.0, 8.0, 9.0]])
    assert grayscale_picture(ramp, data_range=(0, 8))[0].tolist() == [[v, v, v] for v in (0, 63, 127, 191, 255, 255)]


def test_grids_align_panels(saver):
    small, big = torch.ones(4, 4, 3), torch.zeros(8, 8)
    panels = [
        {"type": "rgb", "img": small, "kwargs": {"data_format": "HWC"}},
        {"type": "grayscale", "img": big, "kwargs": {"cmap": None, "data_range": (0, 1)}},
    ]
    picture = read(saver.save_image_grid("grid.png", panels, align=8))
    assert picture.shape == (8, 16, 3)
    assert (picture[:, :8] == 255).all() and (picture[:, 8:] == 0).all()
    assert grid_picture(panels, 5).shape == (5, 10, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: rgb_picture(torch.zeros(2, 2)),
        lambda: rgb_picture(torch.zeros(2, 2, 4)),
        lambda: rgb_picture(torch.zeros(3, 2, 2), data_format="CHW"),
        lambda: grayscale_picture(torch.zeros(2, 2, 1), (0, 1)),
        lambda: grayscale_picture(torch.zeros(2, 2), (0, 1), cmap="jet"),
        lambda: SaverMixin().get_save_path("x"),
    ],
)
def test_bad_calls_are_errors_but_not_the_users(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert not isinstance(caught.value, OptionError)


def test_a_picture_that_is_not_finite_says_what_to_do():
    with pytest.raises(OptionError, match="12 of 12 numbers that are not finite; lower the learning rate"):
        rgb_picture(torch.full((2, 2, 3), float("nan")))


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_turntable_video(saver, size):
    levels = [20, 90, 160, 230, 120, 60, 200, 30, 140, 220, 40]  # eleven frames: 10 comes after 9, not after 1
    for i, level in enumerate(levels):
        saver.save_rgb_image(f"it1-test/{i}.png", torch.full((*size, 3), level / 255 + 1e-4))
    saver.save_rgb_image("it1-test/other.png", torch.zeros(*size, 3))
    path = saver.save_img_sequence("it1-test", "it1-test", r"(\d+)\.png", save_format="mp4", fps=10)
    frames = imageio.mimread(path)
    even = tuple(side + side % 2 for side in size)
    assert len(frames) == len(levels) and all(frame.shape == (*even, 3) for frame in frames)
    np.testing.assert_allclose([frame.mean() for frame in frames], levels, atol=6)  # H.264 is lossy


def test_a_video_of_nothing_is_an_error(saver, tmp_path):
    (tmp_path / "save" / "empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected images in"):
        saver.save_img_sequence("v", "empty", r"(\d+)\.png")


def test_files_are_copied(saver, tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    assert open(saver.save_file("deep/note.txt", str(tmp_path / "note.txt"))).read() == "hello"


def test_a_video_that_is_cut_short_is_not_kept(saver, monkeypatch):
    """ffmpeg's failure, on a full disk for example, is not raised by imageio."""
    for index in range(3):
        saver.save_rgb_image(f"a/{index}.png", torch.rand(16, 16, 3))
    path = Path(saver.save_img_sequence("a", "a", r"(\d+)\.png"))
    before = path.read_bytes()
    monkeypatch.setattr(imageio, "mimsave", lambda beside, *_, **__: beside.write_bytes(before[:500]))
    with pytest.raises(RuntimeError, match="FFMPEG call failed|number of frames"):
        saver.save_img_sequence("a", "a", r"(\d+)\.png")
    assert path.read_bytes() == before and not list(path.parent.glob(".*"))
