"""The training of the pocket models: resumable, augmented as it says, and one command from pictures to a checkpoint."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from latent_prior import Diverged
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.pocket import cameras, captions, pictures
from latent_prior.pocket.training import everything, loop
from latent_prior.pocket.training.batches import two_sided
from latent_prior.pocket.training.clip import augmented, tokens_of
from latent_prior.pocket.training.diffusion import _UNetAndWords, build
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer


class Killed(Exception):
    """Stands for a SIGKILL between two steps."""


def fit(folder, steps=12, killed_at=None, ema=None):
    """A linear model fitted to noise drawn by the loop's own generator; returns its weights."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    taken = []

    def loss(g):
        taken.append(1)
        if killed_at is not None and len(taken) > killed_at:
            raise Killed
        x = torch.randn(8, 3, generator=g)
        return (model(x) - x[:, :2]).square().mean(), {}

    loop.train(folder, model, loss, steps, peak_lr=0.05, seed=3, ema=ema)
    return model.weight.detach().clone()


def test_killed_training_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    averages = [nn.Linear(3, 2).requires_grad_(False) for _ in range(2)]
    averages[1].load_state_dict(averages[0].state_dict())
    whole = fit(tmp_path / "whole", ema=averages[0])
    with pytest.raises(Killed):
        fit(tmp_path / "killed", killed_at=5, ema=averages[1])
    resumed = fit(tmp_path / "killed", ema=averages[1])
    assert torch.equal(whole, resumed)
    assert torch.equal(averages[0].weight, averages[1].weight)
    assert not torch.equal(whole, fit(tmp_path / "shorter", steps=6))


def test_finished_training_only_loads(tmp_path):
    first = fit(tmp_path / "run")
    assert torch.equal(first, fit(tmp_path / "run", killed_at=0))


def test_diverged_training_says_so(tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(Diverged, match="autoencoder: the loss = nan, .*step 0 is not applied"):
        loop.train(tmp_path, model, lambda g: (model.weight.sum() * torch.nan, {}), 3, 0.1, 0, label="autoencoder")


def test_augmented_pictures_are_mirrored_moved_and_noised():
    g = torch.Generator().manual_seed(0)
    images = torch.rand(64, 3, 16, 16, generator=g)
    out = augmented(images, g)
    found, moves = {"kept": 0, "mirrored": 0}, set()
    for before, after in zip(images, out, strict=True):
        errors = {
            (name, dy, dx): (after - picture.roll((dy, dx), (-2, -1))).square().mean().item()
            for name, picture in (("kept", before), ("mirrored", before.flip(-1)))
            for dy in range(-3, 4)
            for dx in range(-3, 4)
        }
        (name, *move), error = min(errors.items(), key=lambda item: item[1])
        assert error < 0.05**2
        found[name] += 1
        moves.add(tuple(move))
    assert len(moves) == 1  # the whole batch moves together
    assert min(found.values()) > 15


def test_most_pictures_are_taken_at_eye_level(monkeypatch):
    seen = {}

    def spy(subjects, elevation, azimuth, background, distance, fovy, size, paint):
        seen.update(elevation=elevation, distance=distance, fovy=fovy)
        blank = torch.zeros(len(subjects), 3, size, size)
        return type("Picture", (), {"rgb": blank})

    monkeypatch.setattr(pictures, "render", spy)
    pictures.draw_shard(5, None, size=4, count=2000)
    low, high = cameras.EYE_LEVEL
    inside = ((seen["elevation"] >= low) & (seen["elevation"] <= high)).float().mean().item()
    wide = (high - low) / (cameras.ELEVATION_RANGE[1] - cameras.ELEVATION_RANGE[0])
    assert inside == pytest.approx(cameras.EYE_LEVEL_SHARE + (1 - cameras.EYE_LEVEL_SHARE) * wide, abs=0.04)
    for name, bounds in (
        ("elevation", cameras.ELEVATION_RANGE),
        ("distance", cameras.DISTANCE_RANGE),
        ("fovy", cameras.FOVY_RANGE),
    ):
        assert bounds[0] <= seen[name].min() and seen[name].max() <= bounds[1]


@pytest.mark.slow
def test_one_command_trains_everything_and_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "SHARD", 12)
    first, second = tmp_path / "first", tmp_path / "second"
    everything.train_everything(tmp_path / "work", first, quick=True)
    modes = {file.stat().st_mode & 0o777 for file in first.rglob("*.safetensors")}
    assert modes == {first.stat().st_mode & 0o666}
    assert StableDiffusionPipeline.from_pretrained(first).scheduler.config.prediction_type == "v_prediction"
    assert set(json.loads((first / "quality.json").read_text())) == {"training pairs", "held-out pairs"}

    everything.train_everything(tmp_path / "work", second, quick=True, start_from=first)

    def changed(part: str, name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        before, after = load_file(first / part / name), load_file(second / part / name)
        return {key: (before[key], after[key]) for key in before if not torch.equal(before[key], after[key])}

    weights = "diffusion_pytorch_model.safetensors"
    assert not changed("vae", weights)
    for part, name in {"unet": weights, "clip": "model.safetensors", "judge": "model.safetensors"}.items():
        assert changed(part, name), part
    words = changed("text_encoder", "model.safetensors")
    assert [name.removeprefix("text_model.") for name in words] == ["embeddings.token_embedding.weight"]
    before, after = words.popitem()[1]
    tokenizer = CLIPTokenizer.from_pretrained(second / "tokenizer")
    rows = set((before != after).any(dim=-1).nonzero().flatten().tolist())
    learned = " ".join(["front back side overhead view", *captions.CAMERAS.every])
    assert rows <= set(tokenizer(learned, add_special_tokens=False).input_ids)


def test_view_words_are_learned_and_no_other_word():
    tokenizer = CLIPTokenizer.from_pretrained(POCKET_FOLDER / "tokenizer")
    text = CLIPTextModel.from_pretrained(POCKET_FOLDER / "text_encoder", torch_dtype=torch.float32)
    text.eval().requires_grad_(False)
    model = _UNetAndWords(build(text.config.hidden_size), text, tokenizer)
    ids = tokens_of(tokenizer, ["a red mug", "a red mug, back view"])
    torch.testing.assert_close(model.hidden(text, ids), text(ids).last_hidden_state)
    model.hidden(text, ids).square().sum().backward()
    said = tokenizer("back view", add_special_tokens=False).input_ids
    learned = (model.words.grad != 0).any(dim=-1)
    assert set(model.rows[learned].tolist()) == set(said)
    with torch.no_grad():
        model.words += 0.1
    after = model.hidden(text, ids)
    torch.testing.assert_close(after[0], text(ids).last_hidden_state[0])
    assert not torch.allclose(after[1], text(ids).last_hidden_state[1])


def test_going_on_from_what_is_no_checkpoint_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="--start-from.*no vae"):
        everything.train_everything(tmp_path / "work", tmp_path / "out", quick=True, start_from=tmp_path / "nothing")
    assert not (tmp_path / "work").exists()


def test_two_sided_pictures_are_of_what_looks_different_from_behind():
    subjects = [captions.Subject(kind, "red") for kind in ("mug", "cone", "chair", "mug", "jug")]
    views = ["front view", "front view", "back view", "side view", "back view"]
    chosen = two_sided(pictures.PictureSet(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), subjects, views, [""] * 5))
    assert chosen.tolist() == [0, 2, 4]


def test_a_folder_with_other_things_in_it_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="--out: .* holds 'thesis.tex'"):
        everything.train_everything(tmp_path / "work", tmp_path, quick=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
