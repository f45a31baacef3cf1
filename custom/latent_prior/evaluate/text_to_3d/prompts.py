"""The benchmark prompts and the prompts for tuning, drawn by the rule in bench/prompts.py.

The benchmark has 16 different kinds in all four surfaces, 8 of them held out of the prior's training; the tuning
prompts are drawn from the remaining training subjects. tests/evaluate/text_to_3d/test_prompts.py pins the lists.
"""

from functools import cache

from latent_prior.evaluate.bench.prompts import draw

HALF = {"plain": 5, "striped": 1, "checkered": 1, "golden": 1}  # in each half of the benchmark
BENCHMARK_QUOTAS = {(held_out, surface): n for held_out in (False, True) for surface, n in HALF.items()}
TUNING_QUOTAS = {(False, "plain"): 3, (False, "striped"): 1, (False, "checkered"): 1, (False, "golden"): 1}


@cache
def benchmark() -> tuple[str, ...]:
    """The 16 prompts of the benchmark, the 8 training ones first."""
    return tuple(subject.caption for subject in draw(BENCHMARK_QUOTAS, taken=()))


@cache
def tuning() -> tuple[str, ...]:
    """6 training prompts, none of them in the benchmark, for tuning weights and options."""
    return tuple(subject.caption for subject in draw(TUNING_QUOTAS, taken=draw(BENCHMARK_QUOTAS, taken=())))


@cache
def study() -> tuple[str, ...]:
    """8 of the benchmark's, every second one: four of each half, for studies with many variants."""
    return benchmark()[1::2]
