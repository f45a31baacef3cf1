"""True pictures: of the scenes they should be of, rendered once, or read from a folder."""

import pytest
import torch
from latent_prior.evaluate.stylegan import truth as truths
from latent_prior.pocket.captions import parse
from latent_prior.pocket.mug_scenes import truth
from PIL import Image

MUG = parse("a yellow mug")


def test_the_pairs_are_of_the_generators_z_and_the_domain_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(truths, "PAIRED", 3)
    domain, paired = truths.rendered(tmp_path, MUG, 7, 16, 8)
    z = truths.codes(7, 16)
    expected = (truth(z[:3], MUG, 8) * 255).round().byte()
    torch.testing.assert_close(paired, expected, rtol=0, atol=0)
    assert domain.shape == (7, 3, 8, 8)
    assert not any(torch.equal(a, b) for a in domain for b in paired)


def test_rendered_once(tmp_path, monkeypatch):
    first = truths.rendered(tmp_path, MUG, 5, 16, 8)
    asked = []
    monkeypatch.setattr(truths, "truth", lambda *args: asked.append(args) or truth(*args))
    again = truths.rendered(tmp_path, MUG, 5, 16, 8)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and not asked
    for others in ((MUG, 6, 16, 8), (MUG, 5, 17, 8), (MUG, 5, 16, 16), (parse("a blue jug"), 5, 16, 8)):
        asked.clear()
        truths.rendered(tmp_path, *others)
        assert asked
    assert not list(tmp_path.glob("*.partial"))


def test_a_z_that_tells_no_scene(tmp_path):
    with pytest.raises(ValueError, match="z has 4 entries, but a scene of the pocket world needs 8"):
        truths.rendered(tmp_path, MUG, 5, 4, 8)


def test_pictures_are_rounded_as_they_are_saved():
    pictures = torch.tensor([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.2]).view(1, 1, 2, 3).expand(1, 3, 2, 3)
    assert truths.to_bytes(pictures)[0, 0].flatten().tolist() == [0, 0, 0, 1, 255, 255]


def test_a_folders_pictures_are_cut_about_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(truths, "BATCH", 2)
    wide = Image.new("RGB", (16, 8), (255, 0, 0))
    wide.paste((0, 0, 255), (4, 0, 12, 8))  # the square in the middle
    wide.save(tmp_path / "a.png")
    (tmp_path / "deeper").mkdir()
    exact = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(exact.numpy()).save(tmp_path / "deeper" / "b.PNG")
    Image.new("L", (32, 32), 7).save(tmp_path / "z.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    files = truths.picture_files(tmp_path)
    assert [path.name for path in files] == ["a.png", "b.PNG", "z.png"]
    batches = list(truths.read_pictures(files, 8))
    assert [len(batch) for batch in batches] == [2, 1]
    blue, same, grey = torch.cat(batches)
    assert (blue == torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None]).all()
    assert torch.equal(same, exact.permute(2, 0, 1))
    assert (grey == 7).all()


def test_folders_without_pictures_and_broken_ones(tmp_path):
    with pytest.raises(ValueError, match="--real: there is no folder"):
        truths.picture_files(tmp_path / "nowhere")
    (tmp_path / "a.png").write_text("nothing")
    with pytest.raises(ValueError, match="--real: .* holds 1 pictures"):
        truths.picture_files(tmp_path)
    with pytest.raises(ValueError, match="--real: .*a.png cannot be read"):
        list(truths.read_pictures([tmp_path / "a.png"], 8))
