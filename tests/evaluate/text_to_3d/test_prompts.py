"""The prompts are fixed: this test fails if the rule, the world or the hold-out list changes what is drawn."""

from collections import Counter

from latent_prior.evaluate.bench.prompts import PER_COLOUR
from latent_prior.evaluate.text_to_3d import prompts
from latent_prior.pocket.captions import is_held_out, parse

BENCHMARK = (
    "a white snowman",
    "a blue ice cream",
    "a red cylinder",
    "a turquoise house",
    "a red cone",
    "a striped pink table",
    "a checkered white fire hydrant",
    "a golden chair",
    # held out of training
    "a turquoise mushroom",
    "a yellow mug",
    "a purple wine glass",
    "a yellow torus",
    "a blue jug",
    "a striped pink sphere",
    "a checkered purple bird",
    "a golden duck",
)
TUNING = (
    "a yellow wine glass",
    "a purple jug",
    "a pink cylinder",
    "a striped blue mug",
    "a checkered white torus",
    "a golden bird",
)


def test_the_lists_are_these():
    assert prompts.benchmark() == BENCHMARK
    assert prompts.tuning() == TUNING
    assert prompts.study() == BENCHMARK[1::2]


def test_the_benchmark_covers_kinds_surfaces_and_both_halves():
    subjects = [parse(prompt) for prompt in prompts.benchmark()]
    assert [is_held_out(subject) for subject in subjects] == [False] * 8 + [True] * 8
    assert len({subject.kind for subject in subjects}) == 16
    assert {subject.surface for subject in subjects} == {"plain", "striped", "checkered", "golden"}
    assert max(Counter(subject.colour for subject in subjects).values()) <= PER_COLOUR


def test_tuning_prompts_are_of_the_training_set_and_not_of_the_benchmark():
    subjects = [parse(prompt) for prompt in prompts.tuning()]
    assert not any(is_held_out(subject) for subject in subjects)
    assert not set(prompts.tuning()) & set(prompts.benchmark())
    assert len(subjects) == len({subject.kind for subject in subjects}) == 6
