"""The prompts that results are measured on, and those that may be tuned on. Both were drawn once, before any result.

Rule. All subjects of the pocket world are shuffled with seed 2302. The quotas below, one for each (held out, surface),
are then filled from the front of that deck, the quota with the fewest subjects first; a subject is passed over if its
kind is taken already, or its colour twice. So the benchmark shows 16 different kinds in all four surfaces, 8 of them
held out of the prior's training. The tuning prompts are drawn the same way from the training subjects that are left.
tests/evaluate/test_prompts.py pins the lists that come out. The prompts for adapted generators are a choice, not a draw,
made beforehand as well.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from latent_prior.pocket.captions import Subject, every_subject, is_held_out

SEED = 2302
PER_COLOUR = 2
HALF = {"plain": 5, "striped": 1, "checkered": 1, "golden": 1}  # of each half of the benchmark
BENCHMARK_QUOTAS = {(held_out, surface): n for held_out in (False, True) for surface, n in HALF.items()}
TUNING_QUOTAS = {(False, "plain"): 3, (False, "striped"): 1, (False, "checkered"): 1, (False, "golden"): 1}


@cache
def benchmark() -> tuple[str, ...]:
    """The 16 prompts of the benchmark, the 8 training ones first."""
    return tuple(subject.caption for subject in _draw(BENCHMARK_QUOTAS, taken=()))


@cache
def tuning() -> tuple[str, ...]:
    """6 training prompts, none of them in the benchmark: weights and options may be tuned on these."""
    return tuple(subject.caption for subject in _draw(TUNING_QUOTAS, taken=_draw(BENCHMARK_QUOTAS, taken=())))


LISTS = {"benchmark": benchmark, "tuning": tuning}


def adaptation() -> tuple[str, ...]:
    """What the pocket StyleGAN's mugs are to become: another surface, both, another colour, and other solids."""
    return ("a golden mug", "a striped green mug", "a yellow mug", "a red cylinder", "a blue jug")


def adaptation_tuning() -> tuple[str, ...]:
    """3 training prompts, none of them above: weights and options of adaptations may be tuned on these."""
    return ("a turquoise mug", "a checkered red mug", "a green jug")


ADAPTATION_LISTS = {"adaptation": adaptation, "tuning": adaptation_tuning}


def _draw(quotas: Mapping[tuple[bool, str], int], taken: Sequence[Subject]) -> list[Subject]:
    """Fill the quotas as the rule says, without the subjects in `taken`; in the order of the quotas."""
    deck = [subject for subject in every_subject() if subject not in taken]
    random.Random(SEED).shuffle(deck)
    cells = {quota: [s for s in deck if (is_held_out(s), s.surface) == quota] for quota in quotas}
    kinds: set[str] = set()
    colours: Counter[str] = Counter()
    drawn: dict[tuple[bool, str], list[Subject]] = {quota: [] for quota in quotas}
    for quota in sorted(cells, key=lambda quota: len(cells[quota])):
        for subject in cells[quota]:
            if len(drawn[quota]) == quotas[quota]:
                break
            if subject.kind not in kinds and colours[subject.colour] < PER_COLOUR:
                drawn[quota].append(subject)
                kinds.add(subject.kind)
                colours[subject.colour] += 1
        assert len(drawn[quota]) == quotas[quota], f"the pocket world is too small for the quota of {quota}"
    return [subject for quota in quotas for subject in drawn[quota]]
