"""Tables of known results."""

import statistics

import pytest
from latent_prior.evaluate import stylegan_table
from latent_prior.evaluate.stylegan_result import SOURCE, TRUTH, Result


def result(label, frechet=None, diversity=0.3, prompt="a golden mug", seed=0, **figures):
    return Result(label, prompt, seed, False, frechet=frechet, diversity=diversity, **figures)


def row(results, label, prompt="a golden mug"):
    (found,) = [r for r in stylegan_table.summarise(results) if (r.label, r.prompt) == (label, prompt)]
    return found


def test_rows_are_source_variants_truth_for_each_prompt():
    results = [
        result(label, 1.0, prompt=prompt, seed=seed)
        for prompt in ("a blue jug", "a golden mug")
        for label, seed in ((TRUTH, None), (SOURCE, None), ("LSD", 0), ("ours", 0), ("LSD", 1), ("ours", 1))
    ]
    rows = stylegan_table.summarise(results)
    labels = [SOURCE, "LSD", "ours", TRUTH]
    assert [(r.prompt, r.label) for r in rows] == [(p, x) for p in ("a blue jug", "a golden mug") for x in labels]


def test_means_ratio_and_spread_over_the_seeds():
    results = [result(SOURCE, 8.0, seed=None), result("ours", 1.0, seed=0, seconds=50.0), result("ours", 4.0, seed=1)]
    ours = row(results, "ours")
    assert (ours.runs, ours.frechet, ours.ratio, ours.seconds) == (2, 2.5, 2.5 / 8, 50)
    assert ours.spread["frechet"] == statistics.pstdev((1, 4)) and "seconds" not in ours.spread
    assert "2.50 ± 1.50 (0.31)" in stylegan_table.to_markdown(results, "Title", "Legend")
    assert row(results, SOURCE).ratio == 1 and row(results, SOURCE).spread == {}


def test_a_failed_run_has_no_figures():
    failed = Result("ours", "a golden mug", 1, False, error="exit code 1: lost")
    results = [result(SOURCE, 8.0, seed=None), result("ours", 2.0), failed]
    ours = row(results, "ours")
    assert (ours.runs, ours.failed, ours.frechet) == (2, 1, 2)
    text = stylegan_table.to_markdown(results, "Title", "Legend")
    assert "ours (1 of 2 failed)" in text and "- ours, a golden mug, seed 1: exit code 1: lost" in text
    alone = stylegan_table.summarise([result(SOURCE, 8.0, seed=None), failed])
    assert stylegan_table.verdicts(alone) == [stylegan_table.Verdict("ours", 1, 0)]


def test_enough_is_half_of_the_source():
    values = {"a": 5.0, "b": 5.01, "c": 0.1}
    results = [result(SOURCE, 10.0, prompt=p, seed=None) for p in values]
    results += [result("NADA", value, prompt=p) for p, value in values.items()]
    (verdict,) = stylegan_table.verdicts(stylegan_table.summarise(results))
    assert verdict == stylegan_table.Verdict("NADA", 3, 2)


def test_ours_against_lsd_by_the_means_over_seeds():
    pairs = {  # ours, LSD: (Fréchet, diversity)
        "both": ((1.0, 0.30), (2.0, 0.20)),
        "equal": ((2.0, 0.20), (2.0, 0.20)),
        "farther": ((2.1, 0.30), (2.0, 0.20)),
        "poorer": ((1.0, 0.19), (2.0, 0.20)),
    }
    results = []
    for prompt, (ours, lsd) in pairs.items():
        for label, (frechet, diversity) in (("ours", ours), ("LSD", lsd)):
            for seed, bump in enumerate((-0.01, 0.01)):
                results.append(result(label, frechet + 10 * bump, diversity + bump, prompt, seed))
    failed = Result("ours", "failed", 0, False, error="lost")
    results += [failed, result("LSD", 2.0, prompt="failed"), result("ours", 1.0, prompt="alone")]
    rows = stylegan_table.summarise(results)
    comparison = stylegan_table.compare(rows)
    assert (comparison.prompts, comparison.no_worse) == (5, 2)
    assert "with diversity no lower, in 2 of 5 prompts" in "\n".join(stylegan_table.summary_lines(rows))
    assert stylegan_table.compare([r for r in rows if r.label != "LSD"]) is None


def test_markdown_has_a_cell_for_every_column():
    results = [result(SOURCE, 8.0, seed=None), result("a|b", 2.0, recognised=0.987, clip_score=41.25)]
    results[1] = Result(**{**vars(results[1]), "held_out": True})
    lines = stylegan_table.to_markdown(results, "Title", "Legend").replace("\\|", "").splitlines()
    grid = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in grid} == {len(stylegan_table.COLUMNS) + 1}
    assert "99 %" in grid[-1] and "a golden mug (held out)" in grid[-1]


@pytest.mark.parametrize("features", [None, "inception.pt"])
@pytest.mark.parametrize("real", [None, "cats"])
def test_the_legend_says_what_stands_in(features, real):
    text = stylegan_table.legend(500, 0.7, features, True, real)
    assert ("stands in for Inception" in text) is (features is None)
    assert ("judge CLIP's picture embedding" in text) is (features is None)
    assert ("PSNR" in text) is ("recognised" in text) is (real is None)
    assert "ψ = 0.7" in text and ("`cats`" in text) is (real is not None)
    assert "CLIP score" not in stylegan_table.legend(500, 1.0, "inception.pt", False, real)
