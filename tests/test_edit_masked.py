"""The masked editor as a command: what it writes, what it measures, what it refuses."""

import csv
import json
import math

import pytest
import torch
from latent_prior.cli import main
from latent_prior.data.picture_files import read_picture, to_picture, to_tensor
from latent_prior.masked_editing import background_psnr, masked_part
from PIL import Image


@pytest.fixture
def files(tmp_path):
    g = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 64, 80)
    mask[:, 16:40, 24:56] = 1
    to_picture(torch.rand(3, 64, 80, generator=g)).save(tmp_path / "photo.png")
    to_picture(mask).save(tmp_path / "mask.png")
    return tmp_path


def command(files, tiny_prior, *more: str) -> list[str]:
    flags = ["--mask", str(files / "mask.png"), "--prompt", "a cat", "--checkpoint", str(tiny_prior)]
    quick = ["--steps", "4", "--reconstruction-steps", "2", "--out", str(files / "out")]
    return ["edit-masked", str(files / "photo.png"), *flags, *quick, *more]


def test_writes_samples_in_the_order_of_clip_and_the_best_one(files, tiny_prior, capsys):
    assert main(command(files, tiny_prior, "--samples", "3", "--seed", "7")) == 0
    out = files / "out"
    with (out / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    distances = [float(row["clip_distance"]) for row in rows]
    assert distances == sorted(distances) and sorted(int(row["seed"]) for row in rows) == [7, 8, 9]
    assert rows[0]["background_psnr_reconstructed"] and not rows[1]["background_psnr_reconstructed"]
    made = {name: read_picture(out / name) for name in ("composite.png", "before_after.png", "samples.png")}
    assert made["composite.png"].size == (80, 64) and made["samples.png"].size == (3 * 320, 256)
    assert len(list((out / "samples").iterdir())) == 3
    assert json.loads((out / "origin.json").read_text())["arguments"]["prompt"] == "a cat"
    assert str(out / "composite.png") in capsys.readouterr().out


def test_a_seeds_picture_does_not_depend_on_the_others(files, tiny_prior):
    pictures = []
    for samples, seed in (("2", "3"), ("1", "4")):
        assert main(command(files, tiny_prior, "--samples", samples, "--seed", seed, "--clip", "none")) == 0
        pictures.append(to_tensor(read_picture(files / "out" / "samples" / f"{int(samples) - 1}.png")))
    assert torch.equal(*pictures)


def test_background_psnr_counts_the_outside_only():
    original, mask = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    made = original.clone()
    made[..., :2, :] = 0
    assert background_psnr(made, original, mask) == math.inf
    made[..., 2:, :] += 10 / 255
    assert background_psnr(made, original, mask) == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert background_psnr(made, original, torch.ones_like(mask)) is None


def test_clip_looks_at_the_masks_box_with_a_margin():
    places = torch.arange(100.0).view(1, 1, 10, 10).expand(1, 3, 10, 10)
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., 2:7, 4:6] = 1  # 5 by 2, so a square of 6 about its centre
    part = masked_part(places, mask)
    assert part[0, 0, 0, 0] == 12 and part.shape[-2:] == (7, 6)  # rows 1.5 to 7.5, columns 2 to 8
    mask[..., 0, 0] = 1
    assert masked_part(places, mask)[0, 0, 0, 0] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", " "], "--prompt is empty"),
        (["--samples", "0"], "--samples is 0; expected at least 1"),
        (["--strength", "1.5"], "--strength is 1.5"),
        (["--strength", "0.1"], "--strength 0.1 of --steps 4 leaves no step"),
        (["--short-side", "8"], "--short-side is 8"),
        (["--clip", "none/there"], "--clip: "),
        (["--checkpoint", "nowhere.safetensors"], "--checkpoint: 'nowhere.safetensors' does not exist"),
        (["--mask", "black.png"], "--mask: .*black all over"),
        (["--mask", "small.png"], "--mask: .*is 10x10, but the picture is 80x64"),
        (["--out", "photo.png"], "--out: .*is a file"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(files, tiny_prior, flags, message, capsys, monkeypatch):
    import re

    monkeypatch.chdir(files)
    Image.new("L", (80, 64)).save("black.png")
    Image.new("L", (10, 10), 255).save("small.png")
    assert main(command(files, tiny_prior, *flags)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.match(f"error: {message}", said[-1]), said
    assert not (files / "out").exists()


def test_pictures_that_are_none_or_too_small_are_refused(files, tiny_prior, capsys):
    (files / "photo.png").write_text("no picture")
    assert main(command(files, tiny_prior)) == 2
    assert "IMAGE: " in capsys.readouterr().err
    Image.new("RGB", (12, 40)).save(files / "photo.png")
    assert main(command(files, tiny_prior)) == 2
    assert "12x40, too small to edit" in capsys.readouterr().err
