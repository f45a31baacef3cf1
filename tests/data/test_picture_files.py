"""Pictures from files against what was written into them."""

import numpy as np
import pytest
import torch
from latent_prior import OptionError
from latent_prior.data import picture_files
from latent_prior.data.picture_files import read_mask, read_picture, scaled, scaled_size, to_picture, to_tensor
from PIL import Image


def _random(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".gif"])
def test_lossless_formats_give_back_their_pixels(tmp_path, suffix):
    pixels = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], 3, 2).repeat(20, 1)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(np.array(read_picture(tmp_path / f"a{suffix}")), pixels)


@pytest.mark.parametrize("orientation, turn", [(1, 0), (3, 180), (6, 270), (8, 90)])
def test_exif_orientation_is_honoured(tmp_path, orientation, turn):
    image = Image.fromarray(_random(10, 14))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.array(read_picture(tmp_path / "a.png")), np.array(image.rotate(turn, expand=True)))


def test_transparency_is_flattened_over_white(tmp_path):
    pixels = _random(6, 6, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(np.array(read_picture(tmp_path / "a.png")) - expected).max() <= 1


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 32896], [65535, 257]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.array(read_picture(tmp_path / "a.png"))[..., 0].tolist() == [[0, 128], [255, 1]]


@pytest.mark.parametrize(
    "size, short, expected",
    [((64, 64), 64, (64, 64)), ((1000, 500), 64, (128, 64)), ((300, 400), 64, (64, 88)), ((1000, 100), 64, (256, 24))],
)
def test_short_side(size, short, expected):
    assert scaled_size(size, short) == expected
    assert scaled(Image.new("RGB", size), short).size == expected


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_to_picture_undoes_to_tensor(channels):
    pixels = torch.from_numpy(_random(5, 7, channels)).permute(2, 0, 1) / 255
    back = to_tensor(to_picture(pixels))
    assert back.shape == pixels.shape and torch.equal(back, pixels)


def test_masks_are_black_or_white(tmp_path):
    Image.fromarray(np.array([[0, 127], [128, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", Image.new("RGB", (2, 2)))
    assert np.array(mask).tolist() == [[0, 0], [255, 255]]


def test_bad_files_are_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(_random(40, 40)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    Image.new("L", (40, 40)).save(tmp_path / "black.png")
    Image.new("L", (39, 40), 255).save(tmp_path / "small.png")
    picture = read_picture(tmp_path / "whole.png")
    cases = [
        (lambda: read_picture(tmp_path / "none.png"), "data.image: there is no file"),
        (lambda: read_picture(tmp_path), "data.image: there is no file"),
        (lambda: read_picture(tmp_path / "text.png", "IMAGE"), "IMAGE: .*text.png cannot be read as a picture"),
        (lambda: read_picture(tmp_path / "cut.png"), "data.image: .*cut.png cannot be read as a picture"),
        (lambda: read_mask(tmp_path / "black.png", picture), "data.mask: .*black all over; expected white"),
        (lambda: read_mask(tmp_path / "small.png", picture), "data.mask: .*39x40, but the picture is 40x40"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(picture_files, "LARGEST", 1599)
    with pytest.raises(ValueError, match="data.image: .*megapixels; expected at most"):
        read_picture(tmp_path / "whole.png")
    assert Image.MAX_IMAGE_PIXELS is not None


def test_a_hundred_megapixels_are_refused_by_the_header_alone(tmp_path):
    """The pixels are never unpacked: the file ends after its header."""
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "large.png").read_bytes()[:100])
    with pytest.raises(ValueError, match="100 megapixels; expected at most 80"):
        read_picture(tmp_path / "cut.png")


def test_home_is_expanded_and_an_unknown_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    assert picture_files.read_picture("~/p.png").size == (20, 20)
    with pytest.raises(OptionError, match="data.image: there is no file ~no_such_user_here/p.png"):
        picture_files.read_picture("~no_such_user_here/p.png")
