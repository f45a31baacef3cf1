"""Hostile YAML runs nothing, takes neither 5 s nor 1 GB, and is refused in one line, with no folder left."""

import pytest
from reliability import corpus_yaml
from reliability.in_child import outcomes


@pytest.mark.slow
def test_every_hostile_config_is_refused_quickly_and_in_words(tmp_path):
    cases = corpus_yaml.write(tmp_path)
    assert len(cases) >= 140
    found = {outcome.name: outcome.faults(outcome.name in corpus_yaml.MAY_READ) for outcome in outcomes(cases)}
    assert {name: faults for name, faults in found.items() if faults} == {}
    assert not (tmp_path / corpus_yaml.CANARY).exists()
