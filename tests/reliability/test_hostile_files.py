"""A hostile or broken file of weights costs neither time nor memory, runs nothing, and gives one short line.

The bars stand in in_child.py: 5 s, 1 GB, 300 characters.
"""

import os
import pickle
import random
from pathlib import Path

import pytest
from reliability.corpus import Case
from reliability.corpus_weights import CANARY, CASES, READERS, whole
from reliability.in_child import outcomes
from reliability.pickle_attacks import calls

KINDS = sorted({case.name.split("-")[0] for case in CASES})


def assert_as_promised(cases: list[Case], folder: Path) -> None:
    def written(case: Case) -> Path:
        own = folder / f"case{cases.index(case)}"
        own.mkdir()
        return case.write(own)

    found = outcomes([(case.name, READERS[case.reader], written(case)) for case in cases])
    faults = {case.name: outcome.faults(case.readable) for case, outcome in zip(cases, found, strict=True)}
    assert {name: faults for name, faults in faults.items() if faults} == {}
    assert not CANARY.exists()


def test_a_sample_of_all_kinds(tmp_path):
    assert_as_promised(random.Random(0).sample(CASES, 20), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_file(kind, tmp_path):
    assert_as_promised([case for case in CASES if case.name.split("-")[0] == kind], tmp_path)


def test_the_corpus_is_as_large_as_promised():
    names = [case.name for case in CASES]
    random_ones = [name for name in names if "-cut" in name or "-flip" in name]
    assert len(set(names)) == len(names) and len(names) - len(random_ones) > 300 and len(random_ones) > 60


def test_the_payloads_run_where_pickles_are_trusted():
    """An attack that does nothing anywhere could not show that it is refused."""
    ran = set()
    for name, stream in calls(CANARY).items():
        CANARY.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                pickle.loads(whole(stream))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        ran |= {name} if CANARY.exists() else set()
    CANARY.unlink(missing_ok=True)
    assert ran >= {
        "system",
        "eval",
        "exec",
        "open",
        "loads",
        "storage",
        "map",
        "stack_global",
        "inst",
        "obj",
    }
