"""Tables of known results."""

import statistics

import pytest
from latent_prior.evaluate.bench import table
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.stylegan import evaluation as stylegan
from latent_prior.evaluate.stylegan.evaluation import COLUMNS, SOURCE, TRUTH


def result(label, frechet=None, diversity=0.3, prompt="a golden mug", seed=0, held_out=False, seconds=None, **figures):
    return Result(label, prompt, seed, held_out, {"frechet": frechet, "diversity": diversity} | figures, seconds)


def summarise(results):
    rows = table.rows_of(COLUMNS, stylegan.groups(results))
    stylegan.set_ratios(rows)
    return rows


def row(results, label, prompt="a golden mug"):
    (found,) = [r for r in summarise(results) if (r.label, r.heads["prompt"]) == (label, prompt)]
    return found


def verdicts(results):
    return stylegan.findings(summarise(results)).record["verdicts"]


def failed_run(label="ours", prompt="a golden mug", seed=1):
    return Result(label, prompt, seed, False, error="exit code 1: lost")


def test_rows_are_source_variants_truth_for_each_prompt():
    results = [
        result(label, 1.0, prompt=prompt, seed=seed)
        for prompt in ("a blue jug", "a golden mug")
        for label, seed in ((TRUTH, None), (SOURCE, None), ("LSD", 0), ("ours", 0), ("LSD", 1), ("ours", 1))
    ]
    labels = [SOURCE, "LSD", "ours", TRUTH]
    expected = [(p, x) for p in ("a blue jug", "a golden mug") for x in labels]
    assert [(r.heads["prompt"], r.label) for r in summarise(results)] == expected


def test_means_ratio_and_spread_over_the_seeds():
    results = [result(SOURCE, 8.0, seed=None), result("ours", 1.0, seconds=50.0), result("ours", 4.0, seed=1)]
    ours = row(results, "ours")
    assert (ours.runs, ours.values["frechet"], ours.values["ratio"], ours.values["seconds"]) == (2, 2.5, 2.5 / 8, 50)
    assert ours.spread["frechet"] == statistics.pstdev((1, 4)) and "seconds" not in ours.spread
    assert "2.50 ± 1.50 (0.31)" in table.summary_table(COLUMNS, [ours])
    assert row(results, SOURCE).values["ratio"] == 1 and row(results, SOURCE).spread == {}


def test_a_failed_run_has_no_figures():
    results = [result(SOURCE, 8.0, seed=None), result("ours", 2.0), failed_run()]
    ours = row(results, "ours")
    assert (ours.runs, ours.failed, ours.values["frechet"]) == (2, 1, 2)
    assert "ours (1 of 2 failed)" in table.summary_table(COLUMNS, [ours])
    assert verdicts([result(SOURCE, 8.0, seed=None), failed_run()]) == [{"label": "ours", "prompts": 1, "enough": 0}]


def test_enough_is_half_of_the_source():
    values = {"a": 5.0, "b": 5.01, "c": 0.1}
    results = [result(SOURCE, 10.0, prompt=p, seed=None) for p in values]
    results += [result("NADA", value, prompt=p) for p, value in values.items()]
    assert verdicts(results) == [{"label": "NADA", "prompts": 3, "enough": 2}]


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
    results += [
        failed_run("ours", "failed", 0),
        result("LSD", 2.0, prompt="failed"),
        result("ours", 1.0, prompt="alone"),
    ]
    found = stylegan.findings(summarise(results))
    assert found.record["comparison"] == {"prompts": 5, "no_worse": 2}
    assert "with diversity no lower, in 2 of 5 prompts" in "\n".join(found.lines)
    without = [r for r in summarise(results) if r.label != "LSD"]
    assert stylegan.findings(without).record["comparison"] is None


def test_the_table_reads_as_in_the_readme():
    known = {"held_out": True}
    results = [result(SOURCE, 8.0, seed=None, **known), result(TRUTH, seed=None, **known)]
    for seed, share in enumerate((0.987, 0.967)):
        results.append(result("a|b", 2.0, seed=seed, recognised=share, clip_score=41.25, **known))
    lines = table.summary_table(COLUMNS, summarise(results)).splitlines()
    assert lines[0] == (
        "| prompt | variant | Fréchet (of source) | CLIP score | diversity | PSNR | recognised | seconds | peak MB |"
    )
    assert lines[1] == "| :-- | :-- | --: | --: | --: | --: | --: | --: | --: |"
    assert lines[2] == "| a golden mug (held out) | source | 8.00 (1.00) | – | 0.300 | – | – | – | – |"
    assert lines[3] == (
        "| a golden mug (held out) | a\\|b | 2.00 ± 0.00 (0.25) | 41.2 ± 0.0 | 0.300 ± 0.000 | – | 98 % ± 1 | – | – |"
    )
    assert lines[4] == "| a golden mug (held out) | truth | – | – | 0.300 | – | – | – | – |"


@pytest.mark.parametrize("features", [None, "inception.pt"])
@pytest.mark.parametrize("real", [None, "cats"])
def test_the_legend_says_what_stands_in(features, real):
    text = stylegan.legend(500, 0.7, features, True, real)
    assert ("replaces Inception" in text) is (features is None)
    assert ("judge CLIP's picture embedding" in text) is (features is None)
    assert ("PSNR" in text) is ("recognised" in text) is (real is None)
    assert "ψ = 0.7" in text and ("`cats`" in text) is (real is not None)
    assert "CLIP score" not in stylegan.legend(500, 1.0, "inception.pt", False, real)
