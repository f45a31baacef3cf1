"""Pictures from files against what was written into them."""

import struct

import numpy as np
import pytest
import torch
from latent_prior import OptionError
from latent_prior.files import pictures as picture_files
from latent_prior.files.pictures import (
    read_mask,
    read_picture,
    read_with_alpha,
    scaled,
    scaled_size,
    to_picture,
    to_tensor,
)
from PIL import Image, ImageCms


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


SHAPE = np.zeros((6, 8), dtype=np.uint8)
SHAPE[1:4, 2:7] = 255  # the mask that the files below all mean
FULL = np.full_like(SHAPE, 255)


def _palette_mask() -> Image.Image:
    """A palette of two whites, of which the second is transparent, as GIF and PNG have it."""
    image = Image.fromarray(SHAPE // 255).convert("P")
    image.putpalette([255] * 6)
    image.info["transparency"] = bytes([0, 255])
    return image


MASKS = {
    "white on black": lambda: Image.fromarray(SHAPE),
    "white on transparent": lambda: Image.fromarray(np.stack([FULL, FULL, FULL, SHAPE], -1)),
    "grey white on transparent": lambda: Image.fromarray(np.stack([FULL, SHAPE], -1), "LA"),
    "white, black under transparent white": lambda: Image.fromarray(np.stack([SHAPE, SHAPE, SHAPE, FULL], -1)),
    "one bit": lambda: Image.fromarray(SHAPE).convert("1"),
    "0 and 1": lambda: Image.fromarray(SHAPE // 255),
    "0 and 1 in colour": lambda: Image.fromarray(np.stack([SHAPE // 255] * 3, -1)),
    "0 and 1 in 16 bits": lambda: Image.fromarray((SHAPE // 255).astype(np.uint16)),
    "0 and 255 in 16 bits": lambda: Image.fromarray(SHAPE.astype(np.uint16)),
    "16 bits": lambda: Image.fromarray(SHAPE.astype(np.uint16) * 257),
    "32 bits": lambda: Image.fromarray(SHAPE.astype(np.int32)),
    "floats": lambda: Image.fromarray(SHAPE.astype(np.float32) / 255),
    "a palette with transparency": _palette_mask,
    "CMYK": lambda: Image.fromarray(SHAPE).convert("RGB").convert("CMYK"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_the_same_however_it_is_stored(tmp_path, name):
    image = MASKS[name]()
    path = tmp_path / ("m.png" if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "m.tiff")
    image.save(path, **({"transparency": image.info["transparency"]} if "transparency" in image.info else {}))
    mask = read_mask(path, Image.new("RGB", (8, 6)))
    assert mask.mode == "L" and np.array_equal(np.array(mask), SHAPE)


def test_masks_can_be_inverted(tmp_path):
    for name in ("white on black", "white on transparent", "0 and 1"):
        MASKS[name]().save(tmp_path / "m.png")
        mask = read_mask(tmp_path / "m.png", Image.new("RGB", (8, 6)), invert=True)
        assert np.array_equal(np.array(mask), 255 - SHAPE)


def test_soft_masks_stay_soft(tmp_path):
    levels = np.array([[0, 127], [128, 255]], dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "m.png")
    half = np.stack([np.full_like(levels, 128), levels], -1)  # half white, with a soft rim
    Image.fromarray(half, "LA").save(tmp_path / "half.png")
    picture = Image.new("RGB", (2, 2))
    assert np.array_equal(np.array(read_mask(tmp_path / "m.png", picture)), levels)
    assert np.array(read_mask(tmp_path / "half.png", picture)).tolist() == [[0, 63], [64, 128]]


def test_the_pictures_own_alpha_as_a_mask(tmp_path):
    Image.fromarray(np.stack([FULL, FULL, FULL, SHAPE], -1)).save(tmp_path / "cut_out.png")
    picture = read_with_alpha(tmp_path / "cut_out.png")
    assert np.array_equal(np.array(read_mask("alpha", picture)), SHAPE)
    assert np.array_equal(np.array(read_mask("alpha", picture, invert=True)), 255 - SHAPE)
    for opaque in (Image.new("RGB", (8, 6)), Image.new("RGBA", (8, 6), (0, 0, 0, 255))):
        with pytest.raises(OptionError, match="--mask: alpha needs a picture that is transparent somewhere"):
            read_mask("alpha", opaque, "--mask")


def test_colours_under_transparency_are_kept_where_they_are_asked_for(tmp_path):
    pixels = _random(6, 6, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(np.array(read_with_alpha(tmp_path / "a.png")), pixels)


def test_float_pictures_are_read_between_0_and_1(tmp_path):
    values = np.array([[0, 0.25], [0.5, 1]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert np.array(read_picture(tmp_path / "a.tiff"))[..., 1].tolist() == [[0, 64], [128, 255]]
    for wrong, message in (
        (values * 255, r"values from 0 to 255; expected floats in \[0, 1\]"),
        (values - 0.5, r"values from -0.5 to 0.5; expected floats in \[0, 1\]"),
        (values * np.float32("nan"), "values from nan to nan"),
        ((values * 1e6).astype(np.int32), r"values from 0 to 1e\+06; expected integers in \[0, 65535\]"),
    ):
        Image.fromarray(wrong).save(tmp_path / "b.tiff")
        with pytest.raises(OptionError, match=f"data.image: .*b.tiff has {message}"):
            read_picture(tmp_path / "b.tiff")


# Colorants under D50 as in the profiles themselves, rows X, Y, Z; of these two spaces ICC profiles are matrices.
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
GAMMA = 563 / 256  # Adobe RGB's


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """A version 2 ICC profile for displays, byte by byte (ICC.1:2001-04)."""
    d50 = _fixed(0.9642, 1.0, 0.8249)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), **tags}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + d50
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    table, data = b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(tags)) + table + data
    head = struct.pack(">I4s4s4s4s4s", 128 + len(body), bytes(4), bytes([2, 16, 0, 0]), b"mntr", space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + d50
    return head.ljust(128, b"\0") + body


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _adobe_rgb() -> bytes:
    tags = {}
    for i, colour in enumerate("rgb"):
        tags[f"{colour}XYZ".encode()] = b"XYZ " + bytes(4) + _fixed(*ADOBE[:, i])
        tags[f"{colour}TRC".encode()] = _curve(GAMMA)
    return _profile(b"RGB ", tags)


def _encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB's transfer function, to bytes."""
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _from_adobe(pixels: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1 of the pixels' XYZ."""
    return _encoded((pixels / 255) ** GAMMA @ (np.linalg.inv(SRGB) @ ADOBE).T)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jpg"])
def test_pictures_come_in_srgb(tmp_path, suffix):
    levels = np.array([0, 60, 128, 200, 255], dtype=np.uint8)
    pixels = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(5, 25, 3).repeat(8, 0).repeat(8, 1)
    more = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", icc_profile=_adobe_rgb(), **more)
    stored = np.array(Image.open(tmp_path / f"a{suffix}"))
    picture = read_picture(tmp_path / f"a{suffix}")
    error = np.abs(np.array(picture) - _from_adobe(stored))
    assert error.max() <= 1.1
    assert np.abs(_from_adobe(stored) - stored).max() > 20  # the profile can be told from none
    picture.save(tmp_path / "b.png")
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info


def test_alpha_and_grey_go_through_their_profiles_too(tmp_path):
    pixels = _random(6, 6, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=_adobe_rgb())
    picture = np.array(read_with_alpha(tmp_path / "a.png"))
    assert np.array_equal(picture[..., 3], pixels[..., 3])
    assert np.abs(picture[..., :3] - _from_adobe(pixels[..., :3])).max() <= 1.1
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    profile = _profile(b"GRAY", {b"kTRC": _curve(1.0)})
    for image in (Image.fromarray(grey), Image.fromarray(np.stack([grey, np.full_like(grey, 255)], -1), "LA")):
        image.save(tmp_path / "g.png", icc_profile=profile)
        found = np.array(read_picture(tmp_path / "g.png")).astype(float)
        assert np.abs(found - _encoded(grey / 255)[..., None]).max() <= 1.1


def test_cmyk_goes_through_its_profile(tmp_path):
    """By a table of corners (lut8Type) that makes every ink a grey: without it cyan would be blue."""
    inks = np.stack(np.meshgrid(*[[0, 255]] * 4, indexing="ij"), -1).reshape(-1, 4)
    lightness = 100 - inks @ [10, 20, 30, 40] / 255
    corners = np.stack([lightness * 2.55, np.full(16, 128), np.full(16, 128)], -1).round().astype(np.uint8)
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * ramp + corners.tobytes()
    profile = _profile(b"CMYK", {b"A2B0": table + 3 * ramp}, b"Lab ")
    pixels = inks.astype(np.uint8).reshape(4, 4, 4)
    Image.fromarray(pixels, "CMYK").save(tmp_path / "a.tiff", icc_profile=profile)
    found = np.array(read_picture(tmp_path / "a.tiff")).reshape(16, 3)
    lightness = corners[:, :1] / 2.55
    expected = _encoded(np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3))  # CIE 1976
    assert np.abs(found - expected).max() <= 1.1


def test_pictures_in_srgb_keep_their_bytes(tmp_path):
    pixels = _random(32, 32)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=srgb)
    assert np.array_equal(np.array(read_picture(tmp_path / "a.png")), pixels)


@pytest.mark.parametrize(
    "profile", [b"no profile", _adobe_rgb()[:200], _profile(b"CMYK", {}), _profile(b"GRAY", {b"kTRC": _curve(1.0)})]
)
def test_a_profile_that_cannot_be_used_is_taken_as_srgb_with_a_notice(tmp_path, profile, caplog):
    pixels = _random(6, 6)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(np.array(read_picture(tmp_path / "a.png")), pixels)
    assert len(caplog.messages) == 1
    assert "a.png: its colour profile cannot be used and is taken as sRGB" in caplog.messages[0]


def test_a_faint_mask_is_said_to_be_faint(tmp_path, caplog):
    Image.fromarray(SHAPE // 5).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", Image.new("RGB", (8, 6))).getextrema() == (0, 51)
    assert "m.png is nowhere brighter than 51 of 255" in caplog.messages[0]


def test_bad_files_are_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(_random(40, 40)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    Image.new("L", (40, 40)).save(tmp_path / "black.png")
    Image.new("L", (39, 40), 255).save(tmp_path / "small.png")
    Image.new("L", (40, 40), 255).save(tmp_path / "white.png")
    Image.new("L", (40, 40), 5).save(tmp_path / "dark.png")
    Image.new("RGBA", (40, 40), (0, 0, 0, 99)).save(tmp_path / "ink.png")  # black on transparency
    picture = read_picture(tmp_path / "whole.png")
    cases = [
        (lambda: read_picture(tmp_path / "none.png"), "data.image: there is no file"),
        (lambda: read_picture(tmp_path), "data.image: there is no file"),
        (lambda: read_picture("a" * 300), "data.image: there is no file"),
        (lambda: read_picture(tmp_path / "text.png", "IMAGE"), "IMAGE: .*text.png cannot be read as a picture"),
        (lambda: read_picture(tmp_path / "cut.png"), "data.image: .*cut.png cannot be read as a picture"),
        (lambda: read_mask(tmp_path / "black.png", picture), "data.mask: .*black all over; expected white"),
        (lambda: read_mask(tmp_path / "ink.png", picture, invert=True), "ink.png is black all over; .*transparent"),
        (
            lambda: read_mask(tmp_path / "dark.png", picture),
            "data.mask: .*nowhere brighter than 5 of 255; expected white",
        ),
        (lambda: read_mask(tmp_path / "white.png", picture, invert=True), "white all over, so that nothing is left"),
        (lambda: read_mask(tmp_path / "small.png", picture), "data.mask: .*39x40, but the picture is 40x40"),
    ]
    for call, message in cases:
        with pytest.raises(OptionError, match=message) as caught:
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
    with pytest.raises(ValueError, match="100 megapixels; expected at most 64"):
        read_picture(tmp_path / "cut.png")


def test_home_is_expanded_and_an_unknown_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    assert picture_files.read_picture("~/p.png").size == (20, 20)
    with pytest.raises(OptionError, match="data.image: there is no file ~no_such_user_here/p.png"):
        picture_files.read_picture("~no_such_user_here/p.png")
