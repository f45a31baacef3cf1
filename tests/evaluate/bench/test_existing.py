"""Run folders that exist already, as jobs."""

import pytest
from latent_prior.evaluate.bench import existing


def test_given_runs_are_found_below_a_folder(tmp_path):
    for tag, prompt in (("mug", "a red mug"), ("duck", "a golden duck")):
        folder = tmp_path / "exp" / tag / "configs"
        folder.mkdir(parents=True)
        text = f"name: exp\nseed: 4\nsystem: {{prompt_processor: {{prompt: {prompt}}}}}\n"
        (folder / "parsed.yaml").write_text(text)
    found = existing.given([tmp_path / "exp"], tmp_path / "out")
    assert [(j.label, j.prompt, j.seed, j.run.name) for j in found] == [
        ("exp", "a golden duck", 4, "duck"),
        ("exp", "a red mug", 4, "mug"),
    ]
    assert existing.given([tmp_path / "exp" / "mug"], tmp_path / "out") == [found[1]]
    assert found[0].command is None
    assert existing.given([tmp_path / "exp" / "mug", tmp_path / "exp"], tmp_path / "out") == [found[1], found[0]]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--runs: .* is not a run folder"):
        existing.given([tmp_path], tmp_path / "out")
