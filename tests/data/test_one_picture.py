"""Crops of one picture against slices of it, and what the data module refuses."""

import pytest
import torch
from latent_prior import OptionError
from latent_prior.data.one_picture import OnePictureDataModule, RandomCrops, cropped, read
from latent_prior.files.pictures import to_picture


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    g = torch.Generator().manual_seed(0)
    pixels, mask = torch.rand(3, 32, 48, generator=g), torch.zeros(1, 32, 48)
    mask[:, 8:20, 10:30] = 1
    paths = {}
    for name, part in (("image", pixels), ("mask", mask)):
        paths[name] = str(tmp_path / f"{name}.png")
        to_picture(part).save(paths[name])
    return paths


def module_of(files, **settings) -> OnePictureDataModule:
    module = OnePictureDataModule({"short_side": 32, **files, **settings})
    module.setup()
    return module


def test_a_crop_is_a_slice_brought_to_full_size():
    pixels = torch.rand(3, 20, 40)
    assert torch.equal(cropped(pixels, 1.0, (0.3, 0.9), False), pixels)
    assert torch.equal(cropped(pixels, 1.0, (0.0, 0.0), True), pixels.flip(-1))
    part = cropped(pixels, 0.5, (1.0, 0.5), False, mode="nearest")
    expected = pixels[:, 10:20, 10:30].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(part, expected)


def test_training_draws_crops_with_their_masks(files):
    module = module_of(files, crop=[0.5, 0.5], flip=0.0, whole=0.0, batch_size=6)
    batch = next(iter(module.train_dataloader()))
    assert batch["picture"].shape == (6, 3, 32, 48) and batch["mask"].shape == (6, 1, 32, 48)
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(batch["picture"][0], batch["picture"][1])
    assert batch["elevation"].shape == (6,) and (batch["height"], batch["width"]) == (32, 48)


def test_mask_and_picture_are_cropped_alike(files):
    """A picture that is its own mask stays its own mask wherever a crop lies."""
    module = module_of(files, whole=0.0, batch_size=8)
    module.picture.pixels.copy_(module.picture.mask.expand(3, -1, -1))
    batch = RandomCrops(module.cfg, module.picture).collate(None)
    assert ((batch["picture"] > 0.5) != (batch["mask"] > 0.5)).float().mean() < 0.04  # at most along the border


def test_draws_follow_the_global_generator_and_no_other_setting(files):
    torch.manual_seed(3)
    first = module_of(files).train_dataset.collate(None)["picture"]
    torch.manual_seed(3)
    again = module_of(files, jitter=0.2).train_dataset.collate(None)["picture"]
    torch.manual_seed(3)
    same = module_of(files).train_dataset.collate(None)["picture"]
    assert torch.equal(first, same)
    # the same place, only brighter or darker: the order of the pixels stays
    flat, other = first.flatten(), again.flatten()
    assert torch.corrcoef(torch.stack([flat, other]))[0, 1] > 0.98 and not torch.equal(flat, other)


def test_whole_pictures_are_shown_as_often_as_asked(files):
    module = module_of(files, whole=1.0, flip=0.0, batch_size=3)
    batch = module.train_dataset.collate(None)
    assert torch.equal(batch["picture"], module.picture.pixels.expand(3, -1, -1, -1))


def test_evaluation_shows_the_whole_picture_and_the_original(files):
    module = module_of(files, short_side=16)
    (batch,) = list(module.test_dataloader())
    assert batch["picture"].shape == (1, 3, 16, 24) and batch["original"].shape == (1, 3, 32, 48)
    assert batch["mask"].shape == (1, 1, 16, 24)


def test_masks_can_be_soft_inverted_or_the_pictures_alpha(files, tmp_path):
    soft = torch.linspace(0, 1, 48).expand(1, 32, 48)
    to_picture(soft).save(tmp_path / "soft.png")
    to_picture(torch.cat([torch.rand(3, 32, 48), soft])).save(tmp_path / "cut_out.png")
    settings = {"short_side": 32, "mask": str(tmp_path / "soft.png")}
    for own in (settings, {**settings, "image": str(tmp_path / "cut_out.png"), "mask": "alpha"}):
        for inverted in (False, True):
            mask = module_of({**files, **own, "invert_mask": inverted}).picture.mask
            torch.testing.assert_close(mask, 1 - soft if inverted else soft, rtol=0, atol=1 / 255)
    smaller = module_of({**files, **settings, "short_side": 16}).picture.mask
    torch.testing.assert_close(smaller, soft.unflatten(2, (24, 2)).mean(3)[:, ::2], rtol=0, atol=0.02)


def test_a_cut_out_picture_is_seen_over_white_and_given_back_with_its_alpha(files, tmp_path):
    pixels = torch.cat([torch.zeros(3, 32, 48), torch.zeros(1, 32, 48)])
    pixels[3, :, 24:] = 1
    to_picture(pixels).save(tmp_path / "cut_out.png")
    module = module_of({**files, "image": str(tmp_path / "cut_out.png")})
    assert torch.equal(module.picture.pixels, 1 - pixels[3:].expand(3, -1, -1))
    (batch,) = list(module.test_dataloader())
    assert torch.equal(batch["original"][0], pixels)


def test_bad_input_names_its_key(files, tmp_path):
    to_picture(torch.rand(3, 15, 90)).save(tmp_path / "thin.png")
    cases = [
        ({"image": ""}, "data.image is empty"),
        ({"image": str(tmp_path / "thin.png"), "mask": ""}, "data.image: .*90x15, too small to edit"),
        ({"crop": [0.9, 0.5]}, "data.crop is"),
        ({"flip": 2.0}, "data.flip is 2.0"),
        ({"short_side": 8}, "data.short_side is 8"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"flip": float("nan")}, "data.flip is nan"),
        ({"mask": "", "invert_mask": True}, "data.invert_mask is True; expected false where data.mask is empty"),
        ({"mask": "alpha"}, "data.mask: alpha needs a picture that is transparent somewhere"),
    ]
    for settings, message in cases:
        with pytest.raises(OptionError, match=message):
            OnePictureDataModule({**files, **settings})
    assert read(OnePictureDataModule({**files, "mask": ""}).cfg).mask is None
