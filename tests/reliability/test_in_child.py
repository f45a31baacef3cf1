"""The watcher of children sees what it should: each kind of end, the time, the memory and the programs started."""

import os

from reliability import watched
from reliability.in_child import outcomes


def test_every_kind_of_end_is_told_apart(tmp_path):
    readers = [os.fspath, watched.refuse, watched.fail, watched.die, watched.wait, watched.grow, watched.start]
    found = outcomes([(reader.__name__, reader, tmp_path) for reader in readers], patience=2)
    assert [outcome.how for outcome in found] == ["read", "refused", "raised", "died", "hung", "read", "read"]
    assert [outcome.name for outcome in found] == [reader.__name__ for reader in readers]
    assert [len(outcome.faults()) for outcome in found] == [1, 0, 1, 1, 1, 1, 2]
    assert found[1].text == "x is 1; expected 2" and found[2].text == "KeyError: 'bug'" and "-11" in found[3].text
    # pages that were free in the process already do not count
    assert 290 << 20 < found[5].growth < 400 << 20 and found[0].growth < 10 << 20
    assert "true" in found[6].started[0]
