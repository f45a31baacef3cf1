"""The masked editor as a command: what it writes, what it measures, what it refuses."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_prior.cli import main
from latent_prior.files import lock
from latent_prior.files.pictures import read_picture, to_picture, to_tensor
from latent_prior.runs import masked_editing
from latent_prior.runs.masked_editing import background_psnr, composited, masked_part, touched
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
    assert {path.name for path in (out / "samples").iterdir()} == {"seed7.png", "seed8.png", "seed9.png"}
    assert json.loads((out / "origin.json").read_text())["arguments"]["prompt"] == "a cat"
    assert str(out / "composite.png") in capsys.readouterr().out


def test_a_seeds_picture_does_not_depend_on_the_others(files, tiny_prior):
    pictures = []
    for samples, seed in (("2", "3"), ("1", "4")):
        assert main(command(files, tiny_prior, "--samples", samples, "--seed", seed, "--clip", "none")) == 0
        pictures.append(to_tensor(read_picture(files / "out" / "samples" / "seed4.png")))
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
        (["--samples", "0"], "--samples is 0; expected 1 to 100"),
        (["--samples", "1000000000"], "--samples is 1000000000; expected 1 to 100"),
        (["--seed", "-1"], "--seed is -1; expected 0 to"),
        (["--seed", str(2**70)], "--seed is "),
        (["--steps", "1001"], "--steps is 1001; expected 1 to 500"),
        (["--strength", "1.5"], "--strength is 1.5"),
        (["--strength", "nan"], "--strength is nan; expected 0 to 1"),
        (["--guidance-scale", "nan"], "--guidance-scale is nan; expected 1 to 100"),
        (["--guidance-scale", "inf"], "--guidance-scale is inf"),
        (["--reconstruction-steps", "-1"], "--reconstruction-steps is -1"),
        (["--mask", "alpha"], "--mask: alpha needs a picture that is transparent somewhere"),
        (["--strength", "0.1"], "--strength 0.1 of --steps 4 leaves no step"),
        (["--short-side", "8"], "--short-side is 8"),
        (["--clip", "none/there"], "--clip: "),
        (["--checkpoint", "nowhere.safetensors"], "--checkpoint: 'nowhere.safetensors' does not exist"),
        (["--mask", "black.png"], "--mask: .*black all over"),
        (["--mask", "small.png"], "--mask: .*is 10x10, but the picture is 80x64"),
        (["--out", "photo.png"], "--out: cannot write to the folder photo.png: .*photo.png is not a folder"),
        (
            ["--out", "photo.png/new/folder"],
            "--out: cannot write to .*photo.png/new/folder: .*photo.png is not a folder",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(files, tiny_prior, flags, message, capsys, monkeypatch):
    monkeypatch.chdir(files)
    Image.new("L", (80, 64)).save("black.png")
    Image.new("L", (10, 10), 255).save("small.png")
    assert main(command(files, tiny_prior, *flags)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.match(f"error: {message}", said[-1]), said
    assert {path.name for path in files.iterdir()} == {"photo.png", "mask.png", "black.png", "small.png"}


def test_pictures_that_are_none_or_too_small_are_refused(files, tiny_prior, capsys):
    (files / "photo.png").write_text("no picture")
    assert main(command(files, tiny_prior)) == 2
    assert "IMAGE: " in capsys.readouterr().err
    Image.new("RGB", (12, 40)).save(files / "photo.png")
    assert main(command(files, tiny_prior)) == 2
    assert "12x40, too small to edit" in capsys.readouterr().err


def _photo(files, mode: str, size=(150, 110)) -> np.ndarray:
    """A picture of another size than the checkpoint's, with a soft mask in its middle."""
    rng, width, height = np.random.default_rng(0), *size
    pixels = rng.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[30:80, 40:110] = 255
    mask[30:80, 40:60] = np.linspace(0, 255, 20).astype(np.uint8)
    Image.fromarray(pixels).save(files / "photo.png")
    Image.fromarray(mask).save(files / "mask.png")
    return pixels


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_outside_the_mask_the_users_own_picture_comes_back_to_the_bit(files, tiny_prior, mode):
    pixels = _photo(files, mode)
    assert main(command(files, tiny_prior, "--samples", "2")) == 0
    mask = np.array(Image.open(files / "mask.png"))
    for path in (files / "out" / "composite.png", *(files / "out" / "samples").iterdir()):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((150, 110), mode)
            made = np.array(image)
        assert np.array_equal(made[mask == 0], pixels[mask == 0])
        assert np.abs(made[mask == 255].astype(int) - pixels[mask == 255])[:, :3].mean() > 20


def test_composites_blend_through_the_mask_as_light_does():
    """One pixel after the other: in RGBA, the edit with the mask for its alpha, over the picture."""
    rng = np.random.default_rng(1)
    pixels, edit = (rng.integers(0, 256, (9, 9, n), dtype=np.uint8) for n in (4, 3))
    mask = rng.integers(0, 256, (9, 9), dtype=np.uint8)
    mask[0], pixels[1, :, 3], mask[2] = 0, 255, 255
    found = np.array(composited(Image.fromarray(pixels), Image.fromarray(mask), Image.fromarray(edit)), dtype=float)
    plain = np.array(composited(Image.fromarray(pixels[..., :3]), Image.fromarray(mask), Image.fromarray(edit)))
    for i in range(9):
        for j in range(9):
            m, a = mask[i, j] / 255, pixels[i, j, 3] / 255
            over = m * edit[i, j] + (1 - m) * a * pixels[i, j, :3]
            expected = over / (m + (1 - m) * a) if m + a else pixels[i, j, :3]
            assert np.abs(found[i, j, :3] - expected).max() <= 1.01
            assert found[i, j, 3] == max(mask[i, j], pixels[i, j, 3])
            assert np.abs(plain[i, j] - (m * edit[i, j] + (1 - m) * pixels[i, j, :3])).max() <= 1.01
    assert np.array_equal(found[0], pixels[0]) and np.array_equal(plain[0], pixels[0, :, :3])


def test_a_mask_is_sampled_wherever_it_shows():
    pixels = np.zeros((90, 60), dtype=np.uint8)
    pixels[40, 31], pixels[80, 2], pixels[10, 10] = 255, 40, 5  # one pixel, a soft one, and one too faint to be seen
    expected = torch.zeros(1, 1, 6, 4)
    expected[0, 0, 40 // 15, 31 // 15] = expected[0, 0, 80 // 15, 2 // 15] = 1
    assert torch.equal(touched(Image.fromarray(pixels), 6, 4), expected)


def test_cut_out_pictures_are_edited_where_they_are_opaque(files, tiny_prior):
    shape = np.array(Image.open(files / "mask.png"))
    photo = Image.open(files / "photo.png")
    photo.putalpha(Image.fromarray(shape))
    photo.save(files / "photo.png")
    pixels = np.array(photo)
    for flags, edited in ((["--mask", "alpha"], shape == 255), (["--mask", "alpha", "--invert-mask"], shape == 0)):
        assert main(command(files, tiny_prior, "--samples", "1", *flags)) == 0
        made = np.array(Image.open(files / "out" / "composite.png"))
        assert np.array_equal(made[~edited], pixels[~edited]) and (made[edited][:, 3] == 255).all()
        assert np.abs(made[edited].astype(int) - pixels[edited])[:, :3].mean() > 20


@pytest.mark.parametrize(("number", "made"), [(signal.SIGINT, 0), (signal.SIGTERM, 2), (signal.SIGHUP, 3)])
def test_an_interrupted_edit_leaves_what_was_made(files, tiny_prior, monkeypatch, capsys, made, number):
    """Its samples, their table and overview, and the best one as decoded; nothing, without a sample.

    Of three samples; after that the background is being fitted.
    """
    steps = []

    class Struck(masked_editing.tqdm):
        def update(self, n=1):
            steps.append(n)
            if len(steps) == 3 * made + 2:  # of each sample's three steps, or of the background's
                os.kill(os.getpid(), number)
            super().update(n)

    monkeypatch.setattr(masked_editing, "tqdm", Struck)
    assert main(command(files, tiny_prior, "--samples", "3", "--clip", "none")) == 130
    out, said = files / "out", capsys.readouterr().err
    assert said.endswith("Interrupted\n") and "Traceback" not in said
    if not made:
        assert not out.exists()
        return
    assert f"{out} holds {made} of 3 samples" in said
    assert {path.name for path in (out / "samples").iterdir()} == {f"seed{seed}.png" for seed in range(made)}
    assert read_picture(out / "samples.png").size == (made * 320, 256)
    assert (out / "composite.png").read_bytes() == (out / "samples" / "seed0.png").read_bytes()
    with (out / "samples.csv").open(newline="") as file:
        assert [row["background_psnr_reconstructed"] for row in csv.DictReader(file)] == [""] * made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_edit_interrupted_while_it_loads_leaves_no_folder(files, tiny_prior, monkeypatch, number):
    def struck(*args):
        os.kill(os.getpid(), number)

    monkeypatch.setattr(masked_editing.BlendedDiffusion, "from_pretrained", struck)
    assert main(command(files, tiny_prior, "--out", str(files / "new" / "out"))) == 130
    assert not (files / "new").exists()


def test_where_nothing_can_be_written_is_known_before_anything_is_made(files, tiny_prior, monkeypatch, capsys):
    def full(self):
        raise OSError(28, "No space left on device")

    def never(*args, **options):
        raise AssertionError("sampled")

    monkeypatch.setattr(lock.FolderLock, "acquire", full)
    monkeypatch.setattr(masked_editing.BlendedDiffusion, "edit", never)
    assert main(command(files, tiny_prior)) == 2
    assert f"--out: cannot write to the folder {files / 'out'}: no space left" in capsys.readouterr().err
    assert not (files / "out").exists()


def test_results_that_are_not_finite_are_refused(files, tiny_prior, monkeypatch, capsys):
    monkeypatch.setattr(
        masked_editing.BlendedDiffusion, "edit", lambda self, picture, *a, **o: torch.full((1, 4, 16, 20), math.nan)
    )
    assert main(command(files, tiny_prior)) == 2
    assert "are not finite in the sample of seed 0; lower --guidance-scale" in capsys.readouterr().err


def test_a_stop_counts_the_samples_of_this_edit_alone(files, tiny_prior, monkeypatch, capsys):
    """The folder holds those of an earlier one; nothing of this one is there before its first sample."""
    assert main(command(files, tiny_prior, "--samples", "2")) == 0
    sample, calls = masked_editing.BlendedDiffusion.edit, []

    def broken_at(number):
        def edit(*args, **options):
            calls.append(None)
            return sample(*args, **options) * (math.nan if len(calls) == number else 1)

        calls.clear()
        monkeypatch.setattr(masked_editing.BlendedDiffusion, "edit", edit)

    broken_at(1)
    assert main(command(files, tiny_prior, "--samples", "2")) == 2
    assert "samples so far" not in capsys.readouterr().err
    broken_at(2)
    assert main(command(files, tiny_prior, "--samples", "2")) == 1
    assert "are not finite in the sample of seed 1; lower --guidance-scale; the samples so far (1) stay in" in " ".join(
        capsys.readouterr().err.split()
    )


def test_every_run_has_a_folder_of_its_own_whatever_the_prompt(files, tiny_prior, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")
    prompt = "../a red/blue mug: \n'?*\"" + " and so on" * 40
    flags = ["--prompt", prompt, "--samples", "1", "--out", ""]
    for _ in range(3):
        assert main(command(files, tiny_prior, *flags)) == 0
    folders = sorted((files / "outputs" / "edit_masked").iterdir())
    assert len(folders) == 3 and all((folder / "composite.png").is_file() for folder in folders)
    assert all(re.fullmatch(r"[\w-]{1,60}@20260101-000000(-\d)?", folder.name) for folder in folders)
    assert json.loads((folders[0] / "origin.json").read_text())["arguments"]["prompt"] == prompt
    assert {path.name for path in files.iterdir()} == {"photo.png", "mask.png", "outputs"}


def test_the_gpu_and_the_host_are_chosen_before_torch_or_a_host_is_imported(files):
    code = """
import argparse, os, sys
from latent_prior.cli import edit_masked
from latent_prior.runs import experiment, gpus

def choose(gpu):
    assert gpu == "1" and os.environ["LATENT_PRIOR_HOST"] == "embedded"
    assert "torch" not in sys.modules and "latent_prior.host" not in sys.modules
    sys.exit(7)

gpus.choose_gpus = choose
parser = argparse.ArgumentParser()
edit_masked.add_arguments(parser)
edit_masked.edit_masked(parser.parse_args())
"""
    flags = ["photo.png", "--mask", "mask.png", "--prompt", "a cat", "--gpu", "1", "--host", "embedded"]
    env = {name: value for name, value in os.environ.items() if name != "LATENT_PRIOR_HOST"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2] / "custom")
    run = subprocess.run([sys.executable, "-c", code, *flags], env=env, cwd=files, capture_output=True, text=True)
    assert run.returncode == 7, run.stderr
