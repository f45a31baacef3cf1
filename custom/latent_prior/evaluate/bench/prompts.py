"""Drawing prompts of the pocket world once, before any result.

Rule. All subjects of the pocket world are shuffled with seed 2302. The quotas, one for each (held out, surface), are
then filled in that order, the quota with the fewest subjects first; a subject is skipped if its kind is already taken,
or its colour twice.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from latent_prior.pocket.captions import Subject, every_subject, is_held_out

SEED = 2302
PER_COLOUR = 2


def draw(quotas: Mapping[tuple[bool, str], int], taken: Sequence[Subject]) -> list[Subject]:
    """Fill the quotas by the rule, without the subjects in `taken`; in the order of the quotas."""
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
