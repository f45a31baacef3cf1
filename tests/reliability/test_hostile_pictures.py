"""Hostile pictures run nothing, take neither 5 s nor 1 GB, and are refused in one line."""

import pytest
from reliability import corpus_pictures
from reliability.in_child import outcomes


@pytest.mark.parametrize(
    "write, count",
    [(corpus_pictures.write_small, 50), pytest.param(corpus_pictures.write, 120, marks=pytest.mark.slow)],
)
def test_every_hostile_picture_is_refused_quickly_and_in_words(tmp_path, write, count):
    cases = write(tmp_path)
    assert len(cases) >= count
    found = {outcome.name: outcome.faults(outcome.name in corpus_pictures.MAY_READ) for outcome in outcomes(cases)}
    assert {name: faults for name, faults in found.items() if faults} == {}
    assert not (tmp_path / corpus_pictures.CANARY).exists()
