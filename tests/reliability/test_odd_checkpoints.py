"""A checkpoint that does not fit is refused in one line, before anything is written and before an optimiser sees it."""

import pytest
from reliability import corpus_checkpoints
from reliability.in_child import outcomes


@pytest.mark.slow
def test_every_odd_checkpoint_is_refused_in_words_and_harms_nothing(tmp_path, toys_registered):
    cases = corpus_checkpoints.write(tmp_path)
    assert len(cases) >= 140
    found = {outcome.name: outcome.faults(outcome.name in corpus_checkpoints.MAY_READ) for outcome in outcomes(cases)}
    assert {name: faults for name, faults in found.items() if faults} == {}
