"""Stored figures: a round trip, and files that are broken."""

import pytest
from latent_prior import OptionError
from latent_prior.evaluate.bench.results import Result
from latent_prior.runs.sweep.arguments import read_prompts
from latent_prior.runs.sweep.work import Record

BROKEN = [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"label": 1}', b"null"]


def test_a_broken_result_is_measured_again(tmp_path):
    result = Result("ours", "a mug", 0, figures={"iou": 0.5})
    result.write(tmp_path / "a.json")
    assert Result.read(tmp_path / "a.json") == result
    for content in BROKEN:
        (tmp_path / "a.json").write_bytes(content)
        assert Result.read(tmp_path / "a.json") is None


def test_a_broken_record_of_a_run_is_named(tmp_path):
    for content in BROKEN:
        (tmp_path / "record.json").write_bytes(content)
        with pytest.raises(OptionError, match="record.json is broken: remove it"):
            Record.read(tmp_path / "record.json")


def test_prompts_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "prompts.txt").write_bytes("a caf\xe9".encode("latin-1"))
    with pytest.raises(OptionError, match="--prompts-file: .*prompts.txt is not text in UTF-8"):
        read_prompts(tmp_path / "prompts.txt")
