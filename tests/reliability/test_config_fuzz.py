"""Promise: a config with a fault is refused in one line that names the key, and leaves nothing; or it runs to the end.

Mutations of every shipped config, drawn from a fixed seed: see config_mutations.py.
"""

import copy

import pytest
from reliability.config_mutations import IN_MAPPINGS, VALUES, Mutation, dotted, keys, mutations
from reliability.config_runs import Child, Outcome, tiny
from small_configs import CONFIGS, write_inputs

SEED = 17
OF_EACH = 46  # mutations of each config
QUICK = 1  # of each config where the slow tests are left out


@pytest.fixture(scope="module")
def trees(tmp_path_factory, tiny_prior) -> dict[str, dict]:
    inputs = write_inputs(tmp_path_factory.mktemp("inputs"), tiny_prior)
    return {name: tiny(name, inputs) for name in CONFIGS}


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    child = Child(tmp_path_factory.mktemp("runs"))
    yield child
    child.close()


def faults(child: Child, some: list[Mutation]) -> list[str]:
    found = [(mutation, child(mutation).fault(mutation.names)) for mutation in some]
    return [f"{mutation}\n    {fault}" for mutation, fault in found if fault]


def test_some_faulty_configs_are_refused_or_run(trees, child):
    some = [mutation for name in CONFIGS for mutation in mutations(name, trees[name], QUICK, SEED)]
    assert faults(child, some) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_faulty_configs_are_refused_or_run(name, trees, child):
    some = mutations(name, trees[name], OF_EACH, SEED)
    assert len(some) * len(CONFIGS) >= 700
    assert faults(child, some) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_an_unchanged_config_runs_to_the_end(name, trees, child):
    assert child(Mutation(name, "none", "", trees[name], ())).code == 0


def test_mutations_are_seeded_and_reach_every_section(trees):
    for name, tree in trees.items():
        before = copy.deepcopy(tree)
        some = mutations(name, tree, OF_EACH, SEED)
        assert some == mutations(name, tree, OF_EACH, SEED) != mutations(name, tree, OF_EACH, SEED + 1)
        assert tree == before and all(mutation.tree != before for mutation in some)
        for section in {dotted(path[:-1]) for path in keys(tree)}:
            assert any(mutation.key.startswith(section) for mutation in some), section
    assert {m.kind for name in trees for m in mutations(name, trees[name], OF_EACH, SEED)} >= {*VALUES, *IN_MAPPINGS}


@pytest.mark.parametrize(
    "outcome, fault",
    [
        (Outcome(0, left=("outputs",)), ""),
        (Outcome(2, errors=("error: data.height is -1",)), ""),
        (Outcome(2, errors=("error: height is -1",)), "does not name the key"),
        (Outcome(2, errors=("error: data.height is -1",), left=("outputs",)), "left outputs"),
        (Outcome(2, errors=("error: data.height", "is -1")), "exit 2 with 2 lines"),
        (Outcome(2), "exit 2 with 0 lines"),
        (Outcome(1, errors=("error: the numbers have diverged",), left=("outputs",)), ""),
        (Outcome(1, errors=("error: data.height is -1; its checkpoint is kept",), left=("outputs",)), "exit 1"),
        (Outcome(None, raised="Traceback"), "Traceback"),
    ],
)
def test_what_counts_as_a_fault(outcome, fault):
    assert outcome.fault(("data.height",)).startswith(fault) and bool(outcome.fault(("data.height",))) == bool(fault)
